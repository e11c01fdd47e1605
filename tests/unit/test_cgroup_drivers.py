"""Which cgroup a container gets: the two drivers' parents, paths and what systemd is told of a scope."""

from __future__ import annotations

import pytest

from agent.oci import cgroups
from agent.runtime.argv import Programs, conmon_create, runc
from model.errors import FlotaError, InvalidInput, Unsupported


@pytest.mark.parametrize(
    ("driver", "wish", "booted", "unified", "parent"),
    [
        ("", "/flota", True, True, "flota.slice"),
        ("", "/flota", True, False, "/flota"),
        ("", "/flota", False, True, "/flota"),
        ("", "flota-a.slice", True, False, "flota-a.slice"),
        ("cgroupfs", "/flota", True, True, "/flota"),
        ("systemd", "/flota", True, False, "flota.slice"),
        ("systemd", "/a/b", True, True, "a-b.slice"),
        ("systemd", "system.slice", True, True, "system.slice"),
        ("cgroupfs", "flota/x/", False, False, "/flota/x"),
    ],
)
def test_driver_is_systemds_where_it_runs_cgroup_v2_unless_told_otherwise(
    driver: str, wish: str, booted: bool, unified: bool, parent: str
) -> None:
    found = cgroups.parent_of(driver, wish, booted=booted, unified=unified)
    assert found == parent
    assert cgroups.driver_of(found) == ("systemd" if parent.endswith(".slice") else "cgroupfs")


@pytest.mark.parametrize(
    ("driver", "wish", "booted", "kind", "words"),
    [
        ("systemd", "/flota", False, Unsupported, "systemd does not run"),
        ("", "flota.slice", False, InvalidInput, "is a slice"),
        ("cgroupfs", "flota.slice", True, InvalidInput, "is a slice"),
        ("podman", "/flota", True, InvalidInput, "unknown cgroup driver"),
        ("systemd", "/flo ta", True, InvalidInput, "no slice's name"),
        ("systemd", "/", True, InvalidInput, "no slice's name"),
        ("systemd", "a/../b.slice", True, InvalidInput, "no slice's name"),
    ],
)
def test_driver_that_cannot_be_is_refused(
    driver: str, wish: str, booted: bool, kind: type[FlotaError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        cgroups.parent_of(driver, wish, booted=booted, unified=True)


def test_container_is_a_directory_of_cgroupfs_and_a_scope_of_systemds() -> None:
    assert cgroups.oci_path("/flota", "abc") == "/flota/abc"
    assert cgroups.place("/flota", "abc") == "flota/abc"
    assert cgroups.oci_path("flota.slice", "abc") == "flota.slice:flota:abc"
    assert cgroups.place("flota.slice", "abc") == "flota.slice/flota-abc.scope"
    assert cgroups.place("a-b-c.slice", "x") == "a.slice/a-b.slice/a-b-c.slice/flota-x.scope"


def test_scope_ends_after_the_agent_within_its_grace() -> None:
    told = cgroups.scope_properties("flota.slice", stop_grace=2.5)
    assert told["org.systemd.property.TimeoutStopUSec"] == "uint64 2500000"
    assert told["org.systemd.property.Before"] == "['flota-agent.service']"
    assert (
        cgroups.scope_properties("flota.slice", stop_grace=0)["org.systemd.property.TimeoutStopUSec"]
        == "uint64 1"
    )
    assert cgroups.scope_properties("/flota", stop_grace=2.5) == {}


def test_runtime_is_told_of_systemds_driver_and_of_no_other() -> None:
    plain = Programs(runc="/runc", conmon="/conmon", root="/r")
    theirs = Programs(runc="/runc", conmon="/conmon", root="/r", systemd=True)
    assert runc(plain, "kill", "x") == ["/runc", "--root", "/r", "kill", "x"]
    assert runc(theirs, "kill", "x") == ["/runc", "--root", "/r", "--systemd-cgroup", "kill", "x"]
    words = {"log_path": "/l", "tty": False, "stdin": False, "once": False}
    assert "--runtime-arg=--systemd-cgroup" in conmon_create(theirs, "x", "/d", **words)  # type: ignore[arg-type]
    assert not any("systemd" in word for word in conmon_create(plain, "x", "/d", **words))  # type: ignore[arg-type]


@pytest.mark.parametrize("parent", ["/flota", "/a/b", "flota.slice", "flota-a.slice"])
def test_process_is_known_by_its_cgroup_under_either_driver(parent: str) -> None:
    own, other = "c" * 64, "d" * 64
    place = f"/{cgroups.place(parent, own)}"
    assert cgroups.holds([f"0::{place}\n"], own)
    assert cgroups.holds(["12:pids:/elsewhere\n", f"4:cpu,cpuacct:{place}/init.scope\n"], own)
    assert not cgroups.holds([f"0::{place}\n"], other)
    assert not cgroups.holds(["0::/\n", f"0::{place}x\n", f"0::/x{own}\n"], own)


def test_container_without_a_log_has_none_by_its_supervisor() -> None:
    plain = Programs(runc="/runc", conmon="/conmon", root="/r")

    def told(path: str) -> str:
        words = conmon_create(plain, "x", "/d", log_path=path, tty=False, stdin=False, once=False)
        return words[words.index("-l") + 1]

    assert (told("/l/log"), told("")) == ("k8s-file:/l/log", "none")
