"""From what a host is to what is done on it, and what speaks against it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from deploy.findings import Level, fatal, findings
from deploy.hostfacts import Facts, Membership, Python
from deploy.inventory import HostWish, Target
from deploy.software import needed
from deploy.steps import FLOTA, FleetView, Kind, Node, Plan, Software, plan

FLEET, OTHER, HOST = "f" * 32, "e" * 32, "a" * 64
GIB = 1 << 30
GOOD = Facts(
    os_id="debian",
    os_version="12",
    os_name="Debian GNU/Linux 12",
    hostname="web-1",
    kernel="6.1.0",
    machine="x86_64",
    libc="gnu",
    cgroup=2,
    controllers=("cpu", "memory", "pids"),
    features={"bridge": "yes", "veth": "yes", "nf_tables": "yes", "overlay": "yes", "vxlan": "yes"},
    pythons=(Python(path="/usr/bin/python3", version=(3, 11)),),
    free_opt=10 * GIB,
    free_lib=10 * GIB,
    memory=4 * GIB,
    init="systemd",
)
JOIN = HostWish(target=Target(host="h", user="root"))
FOUND = replace(JOIN, controller=True)
VIEW = FleetView(fleet_id=FLEET, nodes=(Node(id="b" * 64, name="n1", state="ready"),))
HERE = Membership(fleet_id=FLEET, host_id=HOST, name="web-1")


def made(facts: Facts, wish: HostWish = JOIN, view: FleetView | None = VIEW, **words: Any) -> Plan:
    return plan(facts, wish, view, words.pop("software", Software()), **words)


def kinds(of: Plan) -> list[Kind]:
    return [step.kind for step in of.steps]


def with_node(state: str) -> FleetView:
    return FleetView(fleet_id=FLEET, nodes=(*VIEW.nodes, Node(id=HOST, name="web-1", state=state)))


def test_a_bare_host_gets_packages_a_release_and_a_place_in_the_fleet() -> None:
    software = Software(packages=("runc",), commands=(("apt-get", "install", "runc"),))
    wish = replace(JOIN, address="10.0.0.7", labels={"b": "2", "a": "1"})
    done = made(GOOD, wish, software=software, release="r1", controller="192.0.2.1:7420")
    assert kinds(done) == [Kind.PACKAGES, Kind.RELEASE, Kind.JOIN, Kind.READY]
    (join,) = done.steps[2].commands
    assert join == (
        FLOTA, "join", "--name", "web-1", "--address", "10.0.0.7",
        "--label", "a=1", "--label", "b=2", "-", "192.0.2.1:7420",
    )  # fmt: skip
    assert all(step.why for step in done.steps)


def test_a_controller_is_founded_by_up() -> None:
    done = made(GOOD, FOUND, None)
    assert kinds(done) == [Kind.RELEASE, Kind.UP, Kind.READY]
    assert done.steps[1].commands == ((FLOTA, "up", "--name", "web-1"),)


def test_a_member_that_is_ready_gets_nothing_and_an_upgrade_is_offered() -> None:
    facts = replace(GOOD, member=HERE, running=frozenset({"agent"}), release="r1")
    done = made(facts, view=with_node("ready"), release="r2")
    assert done.steps == () and done.settled == "it is a member already, as web-1"
    assert "flota host upgrade web-1" in str(done.findings[0])


def test_a_members_name_is_what_its_fleet_calls_it_not_what_it_says() -> None:
    says = replace(GOOD, member=replace(HERE, name="n1"), release="r1")
    for facts in (says, replace(says, running=frozenset({"agent"}))):
        assert made(facts, view=with_node("ready")).name == "web-1"


@pytest.mark.parametrize(
    ("change", "wish", "view", "wanted"),
    [
        ({"release": "r1"}, JOIN, VIEW, [Kind.JOIN, Kind.READY]),
        ({"release": "r0"}, JOIN, VIEW, [Kind.RELEASE, Kind.JOIN, Kind.READY]),
        ({"release": "r1", "member": HERE}, JOIN, with_node("joining"), [Kind.START, Kind.READY]),
        (
            {"release": "r1", "member": HERE, "running": frozenset({"agent"})},
            JOIN,
            with_node("joining"),
            [Kind.READY],
        ),
        ({"release": "r0", "member": HERE}, JOIN, with_node("lost"), [Kind.START, Kind.READY]),
        ({"release": "r1", "controls": FLEET}, FOUND, None, [Kind.UP, Kind.READY]),
        ({"release": "r1", "controls": FLEET, "member": HERE}, FOUND, None, [Kind.UP, Kind.READY]),
    ],
    ids=["installed", "another release", "enrolled", "started", "stopped", "half founded", "founded"],
)
def test_a_host_whose_addition_was_cut_gets_what_is_left(
    change: dict[str, Any], wish: HostWish, view: FleetView | None, wanted: list[Kind]
) -> None:
    assert kinds(made(replace(GOOD, **change), wish, view, release="r1")) == wanted


def test_machine_installed_anew_takes_its_hosts_place_only_when_that_is_said() -> None:
    facts = replace(GOOD, hostname="n1", release="r1")
    view = FleetView(fleet_id=FLEET, nodes=(Node(id="b" * 64, name="n1", state="lost"),))
    refused = made(facts, view=view, release="r1")
    assert refused.steps == () and "--replace" in refused.fatal[0].hint
    done = made(facts, replace(JOIN, replace=True), view, release="r1")
    assert kinds(done) == [Kind.JOIN, Kind.READY] and done.replaces == "b" * 64
    ready = made(facts, replace(JOIN, replace=True), VIEW, release="r1")
    assert "is in the fleet (ready)" in ready.fatal[0].what, "that one is there"


def test_host_that_joined_and_never_came_is_joined_again_without_a_word() -> None:
    view = FleetView(fleet_id=FLEET, nodes=(Node(id="b" * 64, name="n1", state="joining"),))
    done = made(replace(GOOD, hostname="n1", release="r1"), view=view, release="r1")
    assert kinds(done) == [Kind.JOIN, Kind.READY] and done.replaces == "b" * 64
    assert made(replace(GOOD, hostname="n9", release="r1"), view=view, release="r1").replaces == ""


@pytest.mark.parametrize(
    ("change", "wish", "view", "words"),
    [
        ({"member": replace(HERE, fleet_id=OTHER)}, JOIN, VIEW, "belongs to another fleet (eeeeeeeeeeee)"),
        ({"member": replace(HERE, fleet_id="")}, JOIN, VIEW, "belongs to another fleet (unknown)"),
        ({"member": HERE}, FOUND, None, "belongs to another fleet"),
        ({"controls": OTHER}, JOIN, VIEW, "controller of another fleet"),
        ({"member": HERE}, JOIN, VIEW, "its fleet has removed it"),
        ({"opt": "foreign"}, JOIN, VIEW, "is not flota's"),
        ({"hostname": "localhost"}, JOIN, VIEW, "is no name for it"),
        ({"hostname": "n1"}, JOIN, VIEW, "a node named n1 is in the fleet (ready)"),
        ({"pythons": ()}, JOIN, VIEW, "it has no Python 3.11 or newer that is whole (found: none)"),
        ({"machine": "mips"}, JOIN, VIEW, "its processor is mips"),
        ({"libc": ""}, JOIN, VIEW, "C library"),
        ({"cgroup": 0}, JOIN, VIEW, "no cgroups"),
        ({"features": {"nf_tables": "no"}}, JOIN, VIEW, "has no nf_tables"),
        ({"free_opt": 1 << 20}, JOIN, VIEW, "no room in /opt/flota: 1 MiB"),
        ({"free_lib": 0}, JOIN, VIEW, "no room in /var/lib/flota"),
        ({"clock_off": -4000.0}, JOIN, VIEW, "its clock is 4000 s behind ours"),
        ({"ports": ("7420/tcp",)}, FOUND, None, "another program listens on TCP 7420"),
    ],
)
def test_a_host_that_must_not_or_cannot_be_added_gets_no_step_and_a_reason(
    change: dict[str, Any], wish: HostWish, view: FleetView | None, words: str
) -> None:
    done = made(replace(GOOD, **change), wish, view)
    assert done.steps == () and not done.settled
    assert any(words in one.what for one in done.fatal), done.findings
    assert all(one.hint for one in done.fatal)


def test_python_that_packages_bring_is_not_missed() -> None:
    done = made(replace(GOOD, pythons=()), software=Software(packages=("python3",), brings_python=True))
    assert kinds(done)[0] is Kind.PACKAGES


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": {"overlay": "no"}}, "no overlayfs"),
        ({"features": {"vxlan": "no"}}, "no VXLAN"),
        ({"controllers": ("cpu", "pids")}, "limits no memory"),
        ({"free_lib": GIB}, "little room for images"),
        ({"memory": GIB // 4}, "little memory"),
        ({"clock_off": 20.0, "clock_doubt": 1.0}, "20 s ahead of ours"),
        ({"ports": ("4789/udp",)}, "UDP 4789"),
        ({"command": "foreign"}, "somebody else's and stays"),
        ({"others": frozenset({"docker", "swarm"})}, "Docker Swarm"),
        ({"selinux": "Enforcing"}, "SELinux"),
    ],
)
def test_what_will_not_work_well_is_a_warning_and_stops_nothing(change: dict[str, Any], words: str) -> None:
    done = made(replace(GOOD, **change))
    assert done.steps and any(words in one.what for one in done.findings if one.level is Level.WARNING)


def test_a_clock_that_may_be_right_is_not_complained_of() -> None:
    assert findings(replace(GOOD, clock_off=6.0, clock_doubt=2.0)) == ()


def test_software_of_a_known_family_is_installed_and_an_unknown_one_is_told_what_is_missing() -> None:
    debian = needed(replace(GOOD, programs=frozenset({"conmon", "ip"})))
    assert "runc" in debian.packages and "conmon" not in debian.packages
    assert debian.commands[-1][:2] == ("env", "DEBIAN_FRONTEND=noninteractive")
    assert "DPkg::Lock::Timeout=300" in debian.commands[-1]
    unknown = needed(replace(GOOD, os_id="plan9", os_name="Plan 9"))
    assert unknown.packages == () and fatal("").level in {one.level for one in unknown.findings}
    assert any("it lacks runc" in one.what and "Plan 9" in one.hint for one in unknown.findings)
