"""Bad specs: every problem at once, each at its path; good ones pass."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.networkrules import validate_network
from model.spec import (
    Attachment,
    ContainerSpec,
    ExecProbe,
    Global,
    HealthCheck,
    HttpProbe,
    Mount,
    NetworkSpec,
    Placement,
    Publish,
    Replicated,
    Reservations,
    Resources,
    RestartPolicy,
    ServiceSpec,
    ShellProbe,
    Subnet,
    TcpProbe,
    Ulimit,
    UpdatePolicy,
)
from model.validate import (
    validate_container,
    validate_name,
    validate_placement,
    validate_service,
)

HUGE = 10**20
BAD_CHECKS: list[tuple[HealthCheck, list[str]]] = [
    (HealthCheck(probe=ExecProbe(args=()), retries=-1), ["probe.args", "retries"]),
    (HealthCheck(probe=ExecProbe(args=("a\0",))), ["probe"]),
    (HealthCheck(probe=ShellProbe(command=" ")), ["probe.command"]),
    (HealthCheck(probe=ShellProbe(command="x" * (1 << 18))), ["probe"]),
    (HealthCheck(probe=TcpProbe(port=0)), ["probe.port"]),
    (HealthCheck(probe=HttpProbe(port=99999, path="x y")), ["probe.port", "probe.path"]),
    (HealthCheck(probe=HttpProbe(port=80, path="/a\r\nX: y")), ["probe.path"]),
    (HealthCheck(disabled=True, interval=5.0), [""]),
    (
        HealthCheck(interval=0.0001, timeout=-1.0, start_period=1e9, start_interval=float("nan")),
        ["interval", "timeout", "start_period", "start_interval"],
    ),
]


@pytest.mark.parametrize(("check", "paths"), BAD_CHECKS)
def test_health_check_that_can_not_be_has_all_its_problems_named(
    check: HealthCheck, paths: list[str]
) -> None:
    found = validate_container(ContainerSpec(image="x", health=check))
    assert [p.path for p in found] == [f"spec.health.{path}".rstrip(".") for path in paths]


@pytest.mark.parametrize(
    "check",
    [
        HealthCheck(),
        HealthCheck(disabled=True),
        HealthCheck(probe=HttpProbe(port=80, path="/a?b=%20"), interval=0.001, retries=1),
        HealthCheck(probe=ShellProbe(command="true"), start_period=3600.0),
    ],
)
def test_health_check_that_can_be_passes(check: HealthCheck) -> None:
    assert validate_container(ContainerSpec(image="x", health=check)) == []


GOOD = ContainerSpec(
    image="docker.io/library/nginx:1.25@sha256:" + "a" * 64,
    args=("nginx", "-g", "daemon off;"),
    env={"A": "b=c", "EMPTY": ""},
    mounts=(
        Mount(type="bind", source="/srv", target="/data"),
        Mount(type="volume", source="v1", target="/var/lib/x"),
        Mount(type="volume", target="/anon"),
        Mount(type="tmpfs", target="/run"),
    ),
    ports=(Publish(target=80, published=8080), Publish(target=53, published=8080, protocol="udp")),
    networks=(
        Attachment(network="blue", aliases=("web", "Web_2"), ipv4="10.1.2.3", mac="02:42:ac:11:00:02"),
    ),
    resources=Resources(nano_cpus=500_000_000, memory=64 << 20, pids=100, cpuset_cpus="0-2,4"),
    ulimits=(Ulimit(name="nofile", soft=1024, hard=2048),),
    cap_add=("NET_ADMIN", "cap_sys_time"),
    cap_drop=("ALL",),
    dns=("1.1.1.1", "fd00::1"),
    extra_hosts=("db:10.0.0.1", "me:host-gateway", "six:[fd00::1]"),
    stop_signal="SIGINT",
    platform="linux/arm64/v8",
    workdir="/srv",
    user="1000:1000",
    hostname="web-1",
    sysctls={"net.ipv4.ip_unprivileged_port_start": "0"},
)


def paths(spec: ContainerSpec) -> list[str]:
    return [problem.path for problem in validate_container(spec)]


def test_good_container_has_no_problems() -> None:
    assert validate_container(GOOD) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 129,
        "../x",
        "a b",
        "-x",
        "📦",
        "NUL\0",
        "name\n",
        "\x1b[31mred",
        "..",
        ".hidden",
        "a/b",
        "ａ",
    ],
)
def test_bad_names_are_refused(name: str) -> None:
    assert validate_name("container", name, "name")
    assert validate_service(ServiceSpec(name=name, container=GOOD))


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (ContainerSpec(image=""), "spec.image"),
        (ContainerSpec(image="-x"), "spec.image"),
        (ContainerSpec(image="a\n"), "spec.image"),
        (ContainerSpec(image="x", env={"": "x"}), "spec.env"),
        (ContainerSpec(image="x", env={"A=B": "x"}), "spec.env"),
        (ContainerSpec(image="x", env={"A": "x\0"}), "spec.env.A"),
        (ContainerSpec(image="x", env={"A": "x" * (2 << 20)}), "spec.env"),
        (ContainerSpec(image="x", args=("a\0b",)), "spec.args[0]"),
        (ContainerSpec(image="x", workdir="rel"), "spec.workdir"),
        (ContainerSpec(image="x", resources=Resources(memory=1)), "spec.resources.memory"),
        (ContainerSpec(image="x", resources=Resources(memory=-5)), "spec.resources.memory"),
        (ContainerSpec(image="x", resources=Resources(nano_cpus=100)), "spec.resources.nano_cpus"),
        (ContainerSpec(image="x", resources=Resources(memory_swap=5)), "spec.resources.memory_swap"),
        (ContainerSpec(image="x", resources=Resources(pids=-1)), "spec.resources.pids"),
        (ContainerSpec(image="x", resources=Resources(cpuset_cpus="0-")), "spec.resources.cpuset_cpus"),
        (ContainerSpec(image="x", ports=(Publish(target=0),)), "spec.ports[0].target"),
        (ContainerSpec(image="x", ports=(Publish(target=1, published=70000),)), "spec.ports[0].published"),
        (ContainerSpec(image="x", ports=(Publish(target=1, host_ip="x"),)), "spec.ports[0].host_ip"),
        (
            ContainerSpec(image="x", ports=(Publish(target=1, published=5), Publish(target=2, published=5))),
            "spec.ports[1].published",
        ),
        (
            ContainerSpec(image="x", networks=(Attachment(network="host"), Attachment(network="a"))),
            "spec.networks",
        ),
        (
            ContainerSpec(image="x", networks=(Attachment(network="host"),), ports=(Publish(target=1),)),
            "spec.ports",
        ),
        (
            ContainerSpec(image="x", networks=(Attachment(network="a", ipv4="1.2.3"),)),
            "spec.networks[0].ipv4",
        ),
        (
            ContainerSpec(image="x", networks=(Attachment(network="a", mac="01:00:00:00:00:00"),)),
            "spec.networks[0].mac",
        ),
        (
            ContainerSpec(image="x", auto_remove=True, restart=RestartPolicy(condition="always")),
            "spec.restart",
        ),
        (ContainerSpec(image="x", restart=RestartPolicy(max_attempts=-1)), "spec.restart.max_attempts"),
        (ContainerSpec(image="x", ulimits=(Ulimit(name="nofile", soft=5, hard=1),)), "spec.ulimits[0]"),
        (ContainerSpec(image="x", cap_add=("RM -RF",)), "spec.cap_add[0]"),
        (ContainerSpec(image="x", stop_grace=-1), "spec.stop_grace"),
        (ContainerSpec(image="x", dns=("ns.example",)), "spec.dns[0]"),
        (ContainerSpec(image="x", extra_hosts=("db",)), "spec.extra_hosts[0]"),
        (ContainerSpec(image="x", platform="linux"), "spec.platform"),
        (ContainerSpec(image="x", sysctls={"a b": "1"}), "spec.sysctls"),
        (ContainerSpec(image="x", hostname="-a"), "spec.hostname"),
    ],
)
def test_bad_container_is_refused_at_its_path(spec: ContainerSpec, path: str) -> None:
    assert paths(spec) == [path]


@pytest.mark.parametrize(
    ("mount", "part"),
    [
        (Mount(type="bind", source="rel", target="/a"), "source"),
        (Mount(type="bind", source="/a/../b", target="/a"), "source"),
        (Mount(type="volume", source="a/b", target="/a"), "source"),
        (Mount(type="volume", source="v", target="a"), "target"),
        (Mount(type="volume", source="v", target="/"), "target"),
        (Mount(type="volume", source="v", target="//"), "target"),
        (Mount(type="volume", source="v", target="/a/.."), "target"),
        (Mount(type="volume", source="v", target="/proc/"), "target"),
        (Mount(type="tmpfs", source="v", target="/a"), "source"),
    ],
)
def test_bad_mount_is_refused(mount: Mount, part: str) -> None:
    assert paths(ContainerSpec(image="x", mounts=(mount,))) == [f"spec.mounts[0].{part}"]


def test_two_mounts_of_one_target_are_refused() -> None:
    mounts = (Mount(type="volume", target="/a/b"), Mount(type="volume", target="/a//b/"))
    assert paths(ContainerSpec(image="x", mounts=mounts)) == ["spec.mounts[1].target"]


def test_all_problems_come_at_once() -> None:
    spec = ServiceSpec(
        name="Web",
        container=ContainerSpec(image="", ports=(Publish(target=0),), auto_remove=True),
        mode=Replicated(replicas=-1),
        placement=Placement(constraints=("zone=a",), reservations=Reservations(memory=-1)),
    )
    assert {problem.path for problem in validate_service(spec)} == {
        "spec.container.image",
        "spec.container.ports[0].target",
        "spec.name",
        "spec.mode.replicas",
        "spec.container.auto_remove",
        "spec.placement.constraints[0]",
        "spec.placement.reservations.memory",
    }


@pytest.mark.parametrize(
    ("name", "good"),
    [("web", True), ("stack_web", True), ("a-1", True), ("_web", False), ("web_", False), ("a.b", False),
     ("a b", False), ("", False), ("x" * 63, True), ("x" * 64, False)],
)  # fmt: skip
def test_names_of_services_are_labels_with_underscores(name: str, good: bool) -> None:
    found = {problem.path for problem in validate_service(ServiceSpec(name=name, container=GOOD))}
    assert ("spec.name" not in found) is good


@pytest.mark.parametrize("replicas", [-1, 10**9])
def test_absurd_replicas_are_refused(replicas: int) -> None:
    problems = validate_service(ServiceSpec(name="a", container=GOOD, mode=Replicated(replicas=replicas)))
    assert "spec.mode.replicas" in {p.path for p in problems}


def test_numbers_that_make_no_sense_are_refused_at_their_paths() -> None:
    container = ContainerSpec(
        image="x",
        restart=RestartPolicy(condition="always", max_attempts=HUGE),
        ulimits=(Ulimit(name="nofile", soft=1, hard=HUGE), Ulimit(name="nproc", soft=HUGE, hard=-1)),
        resources=Resources(memory=1 << 30, memory_swap=HUGE),
        mounts=(Mount(type="tmpfs", target="/t", tmpfs_size=HUGE),),
    )
    policy = UpdatePolicy(parallelism=HUGE)
    found = validate_service(ServiceSpec(name="web", container=container, update=policy, rollback=policy))
    assert {problem.path for problem in found} == {
        "spec.container.restart.max_attempts",
        "spec.container.ulimits[0]",
        "spec.container.ulimits[1]",
        "spec.container.resources.memory_swap",
        "spec.container.mounts[0]",
        "spec.update.parallelism",
        "spec.rollback.parallelism",
    }


def test_start_first_with_a_host_port_is_refused() -> None:
    container = ContainerSpec(image="x", ports=(Publish(target=80, published=80),))
    spec = ServiceSpec(name="a", container=container, update=UpdatePolicy(order="start-first"))
    assert [p.path for p in validate_service(spec)] == ["spec.update.order"]


def test_reservation_above_the_limit_is_refused() -> None:
    container = ContainerSpec(image="x", resources=Resources(memory=64 << 20))
    placement = Placement(reservations=Reservations(memory=65 << 20))
    assert [p.path for p in validate_placement(placement, container, "p")] == ["p.reservations.memory"]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (NetworkSpec(name="host"), "spec.name"),
        (NetworkSpec(name="bridge"), "spec.name"),
        (NetworkSpec(name="n", subnets=(Subnet(cidr="10.0.0.1/8"),)), "spec.subnets[0].cidr"),
        (NetworkSpec(name="n", subnets=(Subnet(cidr="nope"),)), "spec.subnets[0].cidr"),
        (
            NetworkSpec(name="n", subnets=(Subnet(cidr="10.1.0.0/16", gateway="10.2.0.1"),)),
            "spec.subnets[0].gateway",
        ),
        (
            NetworkSpec(name="n", subnets=(Subnet(cidr="10.1.0.0/16", ip_range="10.2.0.0/24"),)),
            "spec.subnets[0].ip_range",
        ),
        (NetworkSpec(name="n", options={"mtu": "9"}), "spec.options.mtu"),
        (NetworkSpec(name="n", options={"vni": "16777216"}), "spec.options.vni"),
        (NetworkSpec(name="n", options={"mode": "magic"}), "spec.options.mode"),
    ],
)
def test_bad_network_is_refused_at_its_path(spec: NetworkSpec, path: str) -> None:
    assert [problem.path for problem in validate_network(spec)] == [path]


@given(
    st.builds(
        ContainerSpec,
        image=st.text(),
        env=st.dictionaries(st.text(), st.text()),
        user=st.text(),
        workdir=st.text(),
        hostname=st.text(),
        platform=st.text(),
        stop_grace=st.floats(),
        extra_hosts=st.tuples(st.text()),
        dns=st.tuples(st.text()),
    )
)
@settings(max_examples=100, deadline=None)
def test_any_text_gives_problems_and_never_an_exception(spec: ContainerSpec) -> None:
    for problem in validate_container(spec):
        assert problem.path and problem.message and len(str(problem)) < 1000


@pytest.mark.parametrize(
    ("wish", "more", "complaint"),
    [
        ({"ipv4": "10.1.0.5"}, {"mode": Replicated(replicas=2)}, "2 replicas need one each, 1 address named"),
        ({"ipv4": "10.1.0.5-10.1.0.4"}, {}, "ends before it begins"),
        ({"ipv4": "fd00::5"}, {}, "no IPv4 address"),
        ({"ipv6": "fd00::5%eth0"}, {}, "zone"),
        ({"ipv4": "10.1.0.5", "keep_address": True}, {}, "not both"),
        ({"ipv4": "10.1.0.5"}, {"mode": Global()}, "global service has no numbered replicas"),
        ({"mac": "02:00:00:00:00:01"}, {}, "fixed MAC"),
        ({"keep_address": True}, {"update": UpdatePolicy(order="start-first")}, "use stop-first"),
        ({"ipv4": "10.1.0.5"}, {"rollback": UpdatePolicy(order="start-first")}, "use stop-first"),
    ],
)
def test_addresses_of_a_service_that_can_not_be(
    wish: dict[str, Any], more: dict[str, Any], complaint: str
) -> None:
    container = ContainerSpec(image="x", networks=(Attachment(network="blue", **wish),))
    problems = validate_service(ServiceSpec(name="web", container=container, **more))
    assert len(problems) == 1 and complaint in str(problems[0]), problems


def test_addresses_of_a_service_that_can_be() -> None:
    for wish in ({"ipv4": "10.1.0.5,10.1.0.9-10.1.0.20", "ipv6": "fd00::/120"}, {"keep_address": True}):
        container = ContainerSpec(image="x", networks=(Attachment(network="blue", **wish),))
        spec = ServiceSpec(name="web", container=container, mode=Replicated(replicas=3))
        assert validate_service(spec) == []


def test_container_can_not_keep_addresses() -> None:
    container = ContainerSpec(image="x", networks=(Attachment(network="blue", keep_address=True),))
    assert "only replicas" in str(validate_container(container)[0])
