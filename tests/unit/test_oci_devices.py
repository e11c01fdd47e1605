"""Devices, limits on them and what only one version of cgroups has, in the OCI's words: v1 and v2."""

from __future__ import annotations

from typing import Any

import pytest

from agent.oci import resources
from agent.oci.facts import ContainerFacts, Device, HostLimits
from agent.ocispec import container_config
from model.errors import InvalidInput, Unsupported
from model.image import ImageConfig
from model.spec import BlkioDevice, ContainerSpec, DeviceWish, Resources
from model.validate import validate_container

V1, V2 = HostLimits(cpus=2), HostLimits(cpus=2, cgroup_v2=True)
FUSE = Device(path="/dev/f", type="c", major=10, minor=229, mode=0o666, permissions="rw")
BLOCKS = {"/dev/a": (8, 0), "/dev/b": (8, 16)}


def linux(spec: ContainerSpec, host: HostLimits = V1, *devices: Device) -> dict[str, Any]:
    return config(spec, host, *devices)["linux"]  # type: ignore[no-any-return]


def config(spec: ContainerSpec, host: HostLimits = V1, *devices: Device) -> dict[str, Any]:
    facts = ContainerFacts(hostname="h", rootfs="/r", cgroups_path="/f/x", netns="/n", devices=devices)
    return container_config(spec, ImageConfig(env=("A=1", "B=2")), facts, host, seccomp=None)


def box(**words: Any) -> ContainerSpec:
    return ContainerSpec(image="x", args=("true",), seccomp="unconfined", **words)


@pytest.mark.parametrize(
    ("wish", "wanted"),
    [
        (Resources(cpuset_mems="0"), {"cpu": {"mems": "0"}}),
        (Resources(memory_swappiness=0), {"memory": {"swappiness": 0}}),
        (
            Resources(memory=1 << 23, memory_swap=1 << 24, oom_kill_disable=True),
            {"memory": {"limit": 1 << 23, "swap": 1 << 24, "disableOOMKiller": True}},
        ),
        (Resources(blkio_weight=50), {"blockIO": {"weight": 50}}),
        (
            Resources(blkio_devices=(BlkioDevice(path="/dev/a", weight=20, read_bps=9, write_iops=3),)),
            {
                "blockIO": {
                    "weightDevice": [{"major": 8, "minor": 0, "weight": 20}],
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
                }
            },
        ),
        (
            Resources(
                blkio_devices=(
                    BlkioDevice(path="/dev/a", write_bps=1),
                    BlkioDevice(path="/dev/b", read_iops=2),
                )
            ),
            {
                "blockIO": {
                    "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
                    "throttleReadIOPSDevice": [{"major": 8, "minor": 16, "rate": 2}],
                }
            },
        ),
    ],
    ids=str,
)
def test_limits_become_the_runtimes_words(wish: Resources, wanted: dict[str, Any]) -> None:
    assert resources.resources(wish, V1, BLOCKS) == wanted


@pytest.mark.parametrize(
    "wish", [Resources(memory_swappiness=5), Resources(memory=1 << 23, oom_kill_disable=True)]
)
def test_limits_that_cgroup_v2_has_not_are_refused_there(wish: Resources) -> None:
    with pytest.raises(Unsupported, match="cgroup v2"):
        resources.resources(wish, V2, {})


def test_limits_changed_say_also_what_is_unlimited() -> None:
    whole = {"limit": -1, "swap": -1}
    assert resources.changed(Resources(), V2) == {
        "cpu": {"shares": 1024, "quota": -1, "period": 100_000}, "memory": whole, "pids": {"limit": -1},
    }  # fmt: skip
    wish = Resources(nano_cpus=5 * 10**8, memory=1 << 23, pids=7, blkio_weight=30, cpuset_cpus="1")
    assert resources.changed(wish, V2) == {
        "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "1"},
        "memory": {"limit": 1 << 23, "swap": 1 << 24},
        "pids": {"limit": 7},
        "blockIO": {"weight": 30},
    }


def test_devices_are_nodes_and_rules_after_the_refusal_of_all() -> None:
    made = linux(box(device_rules=("b 8:* r", "a *:* m")), V1, FUSE)
    assert made["resources"]["devices"] == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": True, "type": "b", "major": 8, "access": "r"},
        {"allow": True, "type": "a", "access": "m"},
    ]
    assert [(d["path"], d["fileMode"]) for d in made["devices"]] == [("/dev/f", 0o666)]


def test_devices_of_a_privileged_one_are_all_and_the_wish_names_its_own() -> None:
    host = HostLimits(devices=(Device(path="/dev/f", type="c", major=1, minor=1, mode=0), FUSE))
    made = linux(box(privileged=True), host, FUSE)
    assert made["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert [(d["major"], d["minor"]) for d in made["devices"]] == [(10, 229)]


def test_paths_masked_or_read_only_are_the_users_or_the_usual() -> None:
    assert "/proc/kcore" in linux(box())["maskedPaths"] and "/proc/sys" in linux(box())["readonlyPaths"]
    made = linux(box(masked_paths=(), readonly_paths=("/proc/x",)))
    assert (made["maskedPaths"], made["readonlyPaths"]) == ([], ["/proc/x"])


def test_namespaces_of_the_host_are_not_made() -> None:
    kinds = {n["type"] for n in linux(box(uts_mode="host", cgroup_namespace="host"), V2)["namespaces"]}
    assert not kinds & {"uts", "cgroup"}
    assert {"uts", "cgroup"} <= {n["type"] for n in linux(box(), V2)["namespaces"]}
    assert "hostname" not in config(box(uts_mode="host")), "runc refuses one without a namespace for it"


def test_process_has_its_score_and_lacks_what_was_removed() -> None:
    made = config(box(oom_score_adj=500, env_remove=("A", "none"), env={"C": "3"}))["process"]
    assert made["oomScoreAdj"] == 500
    assert "B=2" in made["env"] and "C=3" in made["env"] and "A=1" not in made["env"]


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ({"oom_score_adj": 1001}, "spec.oom_score_adj"),
        ({"devices": (DeviceWish(source="dev/x", target="/dev/x"),)}, "spec.devices[0].source"),
        ({"devices": (DeviceWish(source="/dev/x", target="/dev/../x"),)}, "spec.devices[0].target"),
        (
            {"devices": (DeviceWish(source="/d", target="/d", permissions="rr"),)},
            "spec.devices[0].permissions",
        ),
        ({"device_rules": ("c 1:2",)}, "spec.device_rules[0]"),
        ({"uts_mode": "host", "hostname": "h"}, "spec.uts_mode"),
        ({"masked_paths": ("proc",)}, "spec.masked_paths[0]"),
        ({"resources": Resources(blkio_weight=9)}, "spec.resources.blkio_weight"),
        ({"resources": Resources(oom_kill_disable=True)}, "spec.resources.oom_kill_disable"),
        ({"resources": Resources(memory_swappiness=101)}, "spec.resources.memory_swappiness"),
        ({"resources": Resources(cpuset_mems="x")}, "spec.resources.cpuset_mems"),
        (
            {"resources": Resources(blkio_devices=(BlkioDevice(path="/dev/x", read_bps=-1),))},
            "spec.resources.blkio_devices[0].read_bps",
        ),
    ],
    ids=str,
)
def test_wish_that_is_wrong_is_told_by_its_path(words: dict[str, Any], path: str) -> None:
    assert [problem.path for problem in validate_container(box(**words))] == [path]


def test_rule_that_is_none_is_refused_once_more_at_the_host() -> None:
    with pytest.raises(InvalidInput, match="invalid device rule"):
        linux(box(device_rules=("x 1:2 r",)))
