"""Docker's Config and HostConfig to a spec, and back to what an inspection shows: tables."""

# ruff: noqa: E501 - tables

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from api.docker.bodies import decode
from api.docker.containers import states
from api.docker.containers.body import CREATE, CreateBody
from api.docker.containers.hostconfig import spec_of
from api.docker.containers.inspection import Around, inspect, listed
from api.docker.containers.listing import chosen, prunable
from api.docker.containers.placing import place_of
from api.docker.versions import NEWEST, Version
from model.api import InstanceInfo
from model.errors import InvalidInput
from model.ids import HostId, InstanceId, NetworkId
from model.image import ImageConfig
from model.records import Desired, Instance, ResolvedAttachment
from model.spec import (
    Attachment,
    BlkioDevice,
    ContainerSpec,
    DeviceWish,
    ExecProbe,
    HealthCheck,
    Mount,
    Publish,
    Resources,
    RestartPolicy,
    ShellProbe,
)
from model.status import BoundPort, Endpoint, InstanceStatus, Phase

IMAGE = ImageConfig(
    env=("PATH=/bin", "A=image"), cmd=("sh",), labels={"of": "image"}, exposed_ports=("80/tcp",)
)


def spec(config: dict[str, Any] | None = None, image: ImageConfig = IMAGE, version: Version = NEWEST,
         **host: Any) -> ContainerSpec:  # fmt: skip
    body = decode(json.dumps({"Image": "box:1", **(config or {}), "HostConfig": host}).encode(), CREATE)
    assert isinstance(body, CreateBody)
    return spec_of(body, image, version)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({"Memory": 1 << 26, "MemorySwap": -1}, {"resources": Resources(memory=1 << 26, memory_swap=-1)}),
        ({"CpusetMems": "0", "MemorySwappiness": 0, "OomKillDisable": True, "BlkioWeight": 100},
         {"resources": Resources(cpuset_mems="0", memory_swappiness=0, oom_kill_disable=True, blkio_weight=100)}),
        ({"BlkioWeightDevice": [{"Path": "/dev/a", "Weight": 20}], "BlkioDeviceReadBps": [{"Path": "/dev/a", "Rate": 9}],
          "BlkioDeviceWriteIOps": [{"Path": "/dev/b", "Rate": 7}]},
         {"resources": Resources(blkio_devices=(BlkioDevice(path="/dev/a", weight=20, read_bps=9), BlkioDevice(path="/dev/b", write_iops=7)))}),
        ({"Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/f", "CgroupPermissions": "rw"}, {"PathOnHost": "/dev/kvm"}]},
         {"devices": (DeviceWish(source="/dev/fuse", target="/dev/f", permissions="rw"), DeviceWish(source="/dev/kvm", target="/dev/kvm"))}),
        ({"DeviceCgroupRules": ["c 10:* rw"], "OomScoreAdj": -5}, {"device_rules": ("c 10:* rw",), "oom_score_adj": -5}),
        ({"UTSMode": "host", "CgroupnsMode": "host"}, {"uts_mode": "host", "cgroup_namespace": "host"}),
        ({"MaskedPaths": [], "ReadonlyPaths": ["/proc/sys"]}, {"masked_paths": (), "readonly_paths": ("/proc/sys",)}),
        ({"NanoCpus": 5 * 10**8, "PidsLimit": -1}, {"resources": Resources(nano_cpus=5 * 10**8)}),
        ({"CpuQuota": 50_000}, {"resources": Resources(nano_cpus=5 * 10**8)}),
        ({"CpuQuota": 30_000, "CpuPeriod": 10_000}, {"resources": Resources(nano_cpus=3 * 10**9)}),
        ({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
         {"restart": RestartPolicy(condition="on-failure", max_attempts=3)}),
        ({"Binds": ["/src:/dst:ro"]},
         {"mounts": (Mount(type="bind", source="/src", target="/dst", read_only=True, create_source=True),)}),
        ({"Binds": ["vol:/dst"]}, {"mounts": (Mount(type="volume", source="vol", target="/dst", create_source=True),)}),
        ({"Mounts": [{"Type": "volume", "Source": "v", "Target": "/d", "VolumeOptions": {"NoCopy": True}}]},
         {"mounts": (Mount(type="volume", source="v", target="/d", no_copy=True),)}),
        ({"Tmpfs": {"/t": "size=64m,mode=700,noexec"}},
         {"mounts": (Mount(type="tmpfs", target="/t", tmpfs_size=64 << 20, tmpfs_mode=0o700, tmpfs_options=("noexec",)),)}),
        ({"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}], "53/udp": [{"HostPort": ""}], "9/tcp": None}},
         {"ports": (Publish(target=80, published=8080, host_ip="127.0.0.1"), Publish(target=53, protocol="udp"))}),
        ({"PortBindings": {"80": [{"HostPort": "8000-8010"}]}},
         {"ports": (Publish(target=80, published=8000, published_to=8010),)}),
        ({"NetworkMode": "default"}, {"networks": ()}),
        ({"NetworkMode": "host"}, {"networks": (Attachment(network="host"),)}),
        ({"NetworkMode": "blue"}, {"networks": (Attachment(network="blue"),)}),
        ({"CapAdd": "NET_ADMIN", "Privileged": True}, {"cap_add": ("NET_ADMIN",), "privileged": True}),
        ({"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]}, {"no_new_privileges": True, "seccomp": "unconfined"}),
        ({"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}}, {}),
        ({"Init": True, "ShmSize": 1 << 20, "ReadonlyRootfs": True}, {"init": True, "shm_size": 1 << 20, "read_only": True}),
    ],
    ids=str,
)  # fmt: skip
def test_host_config_becomes_a_spec(host: dict[str, Any], expected: dict[str, Any]) -> None:
    made = spec(**host)
    for name, value in expected.items():
        assert getattr(made, name) == value


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"LogConfig": {"Type": "asdf"}}, "logger: no log driver named 'asdf' is registered"),
        ({"LogConfig": {"Type": "syslog"}}, "HostConfig.LogConfig.Type: logging driver 'syslog'"),
        ({"RestartPolicy": {"Name": "sometimes"}}, "invalid restart policy: unknown policy 'sometimes'"),
        ({"RestartPolicy": {"Name": "always"}, "AutoRemove": True}, "can't create 'AutoRemove' container"),
        ({"NanoCpus": 1, "CpuQuota": 1}, "Conflicting options: Nano CPUs"),
        ({"IpcMode": "container:x"}, "HostConfig.IpcMode: 'container:x' is not supported"),
        ({"UTSMode": "other"}, "HostConfig.UTSMode: 'other' is not supported"),
        ({"CgroupnsMode": "other"}, "HostConfig.CgroupnsMode"),
        ({"CpuRealtimeRuntime": 50}, "HostConfig.CpuRealtimeRuntime: is not supported"),
        ({"DeviceRequests": [{"Count": -1}]}, "HostConfig.DeviceRequests: is not supported"),
        ({"SecurityOpt": ["apparmor=mine"]}, "HostConfig.SecurityOpt: 'apparmor=mine'"),
        ({"PortBindings": {"http/tcp": []}}, "invalid port specification: 'http'"),
        ({"PortBindings": {"80/xyz": [{}]}}, "invalid proto: xyz"),
        ({"Binds": ["./x:/y"]}, "the source is a relative path"),
        ({"Mounts": [{"Type": "image", "Target": "/x"}]}, r"HostConfig.Mounts\[0\].Type: 'image'"),
        ({"Mounts": [{"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions": {"Subpath": "a"}}]}, "Subpath"),
    ],
    ids=str,
)  # fmt: skip
def test_value_that_cannot_be_done_is_refused_by_name(host: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        spec(**host)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (None, None)),
        ({"Cmd": ["a", "b"]}, (None, ("a", "b"))),
        ({"Entrypoint": ["e"]}, (("e",), None)),
        ({"Entrypoint": "e", "Cmd": "c"}, (("e",), ("c",))),
        ({"Entrypoint": []}, ((), ("sh",))),
        ({"Entrypoint": [""], "Cmd": ["c"]}, ((), ("c",))),
    ],
)
def test_entrypoint_and_command_are_merged_with_the_images(config: dict[str, Any], expected: object) -> None:
    made = spec(config)
    assert (made.entrypoint, made.args) == expected


def test_nothing_to_run_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="No command specified"):
        spec({"Entrypoint": [""]})
    with pytest.raises(InvalidInput, match="No command specified"):
        spec(image=ImageConfig())


def test_labels_are_the_images_and_the_callers_unchanged() -> None:
    labels = {"com.docker.compose.config-hash": "a=b,c", "of": "caller"}
    assert spec({"Labels": labels}).labels == labels
    assert spec().labels == {"of": "image"}


@pytest.mark.parametrize(
    ("test", "probe"),
    [
        (["CMD", "a", "b"], HealthCheck(probe=ExecProbe(args=("a", "b")), interval=2.0)),
        (["CMD-SHELL", "a b"], HealthCheck(probe=ShellProbe(command="a b"), interval=2.0)),
        (["NONE"], HealthCheck(disabled=True, interval=2.0)),
        ([], HealthCheck(interval=2.0)),
    ],
)
def test_health_check_is_read_in_nanoseconds(test: list[str], probe: HealthCheck) -> None:
    assert spec({"Healthcheck": {"Test": test, "Interval": 2 * 10**9}}).health == probe


def test_networks_are_several_from_1_44_on() -> None:
    wishes = {"blue": {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.0.0.5"}}, "red": {"GwPriority": 1}}
    config = {"NetworkingConfig": {"EndpointsConfig": wishes}}
    made = spec(config, NetworkMode="blue")
    assert made.networks == (
        Attachment(network="blue", aliases=("a",), ipv4="10.0.0.5"),
        Attachment(network="red", priority=1),
    )
    with pytest.raises(InvalidInput, match="Container cannot be connected to network endpoints: blue, red"):
        spec(config, version=(1, 43), NetworkMode="blue")
    with pytest.raises(InvalidInput, match="conflicting options"):
        spec(config, NetworkMode="host")


def test_place_is_told_by_labels_and_by_variables_of_classic_swarm() -> None:
    wish = place_of(
        ("A=b", "constraint:node==n2", "constraint:zone!=a"), {"flota.constraints": "node.labels.x==y"}, ""
    )
    assert (wish.env, wish.host) == (("A=b",), "n2")
    assert wish.placement.constraints == ("node.labels.x==y", "node.labels.zone!=a")
    assert place_of((), {"flota.node": "n1"}, "n1").host == "n1"
    with pytest.raises(InvalidInput, match="two hosts are asked for: n1, n2"):
        place_of((), {"flota.node": "n1"}, "n2")


NETWORK = NetworkId("e" * 64)


def info(phase: Phase = Phase.RUNNING, container: ContainerSpec | None = None, **status: Any) -> InstanceInfo:
    ident = InstanceId("a" * 64)
    instance = Instance(
        id=ident,
        name="web",
        spec=container or spec(),
        host=HostId("b" * 64),
        created_at=1000.0,
        attachments=(ResolvedAttachment(network=NETWORK, aliases=("w",)),),
    )
    return InstanceInfo(
        instance=instance, status=InstanceStatus(instance=ident, phase=phase, **status), host_name="n1"
    )


@pytest.mark.parametrize(
    ("phase", "status", "state", "text"),
    [
        (Phase.RUNNING, {"started_at": 1700.0}, "running", "Up 5 minutes"),
        (Phase.RUNNING, {"started_at": 1700.0, "health": "healthy"}, "running", "Up 5 minutes (healthy)"),
        (Phase.RUNNING, {"started_at": 1700.0, "health": "starting"}, "running", "Up 5 minutes (health: starting)"),
        (Phase.RUNNING, {"started_at": 1700.0, "paused": True}, "paused", "Up 5 minutes (Paused)"),
        (Phase.EXITED, {"finished_at": 1997.0, "exit_code": 3}, "exited", "Exited (3) 3 seconds ago"),
        (Phase.EXITED, {"finished_at": 1997.0}, "exited", "Exited (255) 3 seconds ago"),
        (Phase.PULLING, {}, "created", "Created"),
        (Phase.FAILED, {"exit_code": 127, "message": "no such file"}, "created", "Created"),
        (Phase.RESTARTING, {"finished_at": 1999.0, "exit_code": 1}, "restarting", "Restarting (1) 1 second ago"),
        (Phase.LOST, {}, "dead", "Dead"),
    ],
)  # fmt: skip
def test_state_is_told_in_dockers_words(phase: Phase, status: dict[str, Any], state: str, text: str) -> None:
    one = info(phase, **status)
    assert (states.state(one), states.summary(one, 2000.0)) == (state, text)


def test_inspection_shows_what_was_asked_for_and_what_stands() -> None:
    asked = spec(
        {"Labels": {"a": "b"}, "Env": ["A=mine"], "StopTimeout": 3},
        Binds=["/src:/dst:ro", "vol:/v"],
        Mounts=[{"Type": "volume", "Source": "m", "Target": "/m"}],
        PortBindings={"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
        RestartPolicy={"Name": "always"},
        NetworkMode="blue",
        Memory=1 << 26,
    )
    foot = Endpoint(network=NETWORK, network_name="blue", ifname="eth0", ipv4="10.1.0.2", gateway="10.1.0.1")
    one = info(
        container=asked,
        started_at=1500.25,
        endpoints=(foot,),
        ports=(BoundPort(target=80, published=8080, protocol="tcp"),),
        pid=42,
    )
    seen = inspect(one, Around(image=IMAGE, prefixes={NETWORK: 16}))
    assert seen["HostConfig"]["Binds"] == ["/src:/dst:ro", "vol:/v"]
    assert seen["HostConfig"]["Mounts"] == [{"Type": "volume", "Source": "m", "Target": "/m"}]
    assert seen["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    assert seen["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert seen["HostConfig"]["NetworkMode"] == "blue"
    assert seen["Config"]["Env"] == ["PATH=/bin", "A=mine"]
    assert (seen["Config"]["Cmd"], seen["Path"], seen["Config"]["StopTimeout"]) == (["sh"], "sh", 3)
    assert seen["Config"]["Labels"] == {"of": "image", "a": "b"}
    assert seen["State"]["StartedAt"] == "1970-01-01T00:25:00.250000000Z" and seen["State"]["Pid"] == 42
    network = seen["NetworkSettings"]["Networks"]["blue"]
    assert (network["IPAddress"], network["IPPrefixLen"], network["Aliases"]) == ("10.1.0.2", 16, ["w"])
    assert seen["NetworkSettings"]["IPAddress"] == "10.1.0.2"
    assert seen["NetworkSettings"]["Ports"]["80/tcp"][0] == {"HostIp": "0.0.0.0", "HostPort": "8080"}


def test_spec_of_an_inspection_is_the_spec_that_was_inspected() -> None:
    asked = spec(
        {"Labels": {"a": "b"}, "Env": ["A=mine"], "Cmd": ["x"], "Tty": True, "User": "1:2", "WorkingDir": "/w"},
        Binds=["/src:/dst", "vol:/v:ro"],
        PortBindings={"80/tcp": [{"HostPort": "8080"}]},
        Memory=1 << 26, MemorySwap=1 << 27, CapAdd=["SYS_TIME"], Dns=["10.0.0.1"], Ulimits=[{"Name": "nofile", "Soft": 5, "Hard": 6}],
        NetworkMode="blue", RestartPolicy={"Name": "unless-stopped"}, Sysctls={"net.core.somaxconn": "5"},
    )  # fmt: skip
    seen = inspect(info(container=asked), Around())
    host = seen["HostConfig"]
    assert replace(spec(seen["Config"], ImageConfig(), **host), expose=(), hostname="") == asked


def test_list_names_the_node_in_labels_and_keeps_the_containers_own() -> None:
    line = listed(info(started_at=1700.0), Around(image=IMAGE), 2000.0)
    assert line["Labels"] == {"of": "image", "flota.node": "n1"}
    assert (line["Names"], line["Command"], line["Node"]["Name"]) == (["/web"], "sh", "n1")


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        ({"name": ("we",)}, True),
        ({"name": ("^/web$",)}, True),
        ({"name": ("^b",)}, False),
        ({"label": ("of=image",)}, True),
        ({"label": ("of=image", "x")}, False),
        ({"status": ("running", "paused")}, True),
        ({"status": ("exited",)}, False),
        ({"ancestor": ("box",)}, True),
        ({"network": ("e" * 64,)}, True),
        ({"node": ("n1",)}, True),
        ({"id": ("aaa",)}, True),
        ({"is-task": ("true",)}, False),
        ({"health": ("none",)}, True),
    ],
)
def test_filters_choose_as_dockers(filters: dict[str, tuple[str, ...]], fits: bool) -> None:
    assert bool(chosen([info()], filters)) is fits


def test_unknown_filters_and_states_are_refused() -> None:
    with pytest.raises(InvalidInput, match="invalid filter 'colour'"):
        chosen([], {"colour": ("red",)})
    with pytest.raises(InvalidInput, match="invalid filter 'status=odd'"):
        chosen([], {"status": ("odd",)})


def test_only_what_runs_is_listed_unless_all_or_a_limit_is_asked() -> None:
    ended = info(Phase.EXITED, exit_code=0)
    assert chosen([ended], {}, all_=False) == []
    assert chosen([ended], {}, all_=False, limit=1) == [ended]
    assert chosen([ended], {"status": ("exited",)}, all_=False) == [ended]


def test_prune_takes_what_does_not_run_and_fits() -> None:
    ended, lives = info(Phase.EXITED, exit_code=0), info()
    assert prunable([ended, lives], {}, 2000.0) == [ended]
    assert prunable([ended], {"until": ("10m",)}, 1300.0) == []
    assert prunable([ended], {"until": ("10m",)}, 2000.0) == [ended]
    assert prunable([ended], {"label!": ("of",)}, 2000.0) == []
    task = replace(ended, instance=replace(ended.instance, service="c" * 64, desired=Desired.STOPPED))
    assert prunable([task], {}, 2000.0) == []
