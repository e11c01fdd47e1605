"""What agents may say of their hosts and instances, before anything is kept of it or acted upon elsewhere."""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec.structs import replace

from controller.commands.hosts import admit
from controller.snapshot import Cluster
from model.api import JoinRequest
from model.errors import InvalidInput
from model.events import Event
from model.factrules import MOST_ENTRIES, MOST_OWN, address_fault, facts_problems, range_fault
from model.ids import HostId, InstanceId, NetworkId
from model.reportrules import hello_problems, report_problems
from model.spec import Struct
from model.status import HostFacts, HostReport, InstanceStatus, Nic, Platform, Stranger, VolumeReport
from model.wire import Hello, Report

HONEST = HostFacts(
    hostname="n1.example",
    address="192.0.2.1",
    mtu=1500,
    nano_cpus=4 * 10**9,
    memory=8 << 30,
    kernel="6.1.0",
    os_name="Debian GNU/Linux 12 (bookworm) – ünï",
    runtime="runc version 1.1.5",
    labels={"zone": "a", "example.com/link": "eth1"},
    addresses=("192.0.2.1", "2001:db8::1", "100.64.0.9"),
    links=("192.0.2.0/24", "169.254.0.0/16", "2001:db8::/64"),
    routes=("10.0.0.0/8", "0.0.0.0/1", "128.0.0.0/1"),
    nics=(Nic(name="eth0"), Nic(name="enp0s31f6.100", mtu=9000, up=False)),
    link_kinds=("macvlan", "vlan"),
    link="br-lan",
    onlink=("192.0.2.0/24", "192.0.2.7/32"),
    link_local="fe80::1",
)
SCRIPT = "198.18.9.9 }\nadd rule inet flota forward accept\nadd table inet evil\n#"
WIDE = HONEST.address[:-1] + "٣"
"""A digit that is none of ASCII's."""


def at(facts: HostFacts) -> list[str]:
    return [problem.path for problem in facts_problems(facts)]


def test_facts_of_an_honest_host_have_no_problems() -> None:
    six = replace(HONEST, address="2001:db8::1", addresses=(), link_local="")
    translates = replace(HONEST, addresses=("192.0.2.1", "64:ff9b::c000:201", "64:ff9b:1::1"))
    for facts in (HONEST, six, translates, HostFacts(hostname="lab", address="127.0.0.1", mtu=65536)):
        assert list(facts_problems(facts)) == []


@pytest.mark.parametrize("text", ["", "oops", SCRIPT, "0.0.0.0/0", "10.0.0.0/8", "fe80::1%eth0", "192.0.2.01",
    "FD00::1", "::", "0.0.0.0", "224.0.0.1", "ff02::1", "::ffff:192.0.2.1", "::ffff:c000:201",
    "::2", "192.0.2.1\n", WIDE])  # fmt: skip
def test_address_that_is_not_one_of_one_machine_is_refused(text: str) -> None:
    assert address_fault(text)
    assert at(replace(HONEST, address=text)) == ["address"]
    assert at(replace(HONEST, addresses=("192.0.2.1", text))) == ["addresses"]


@pytest.mark.parametrize("text", ["", "oops", SCRIPT, "10.0.0.1/8", "0.0.0.0/0", "::/0", "10.0.0.0",
    "10.0.0.0/255.0.0.0", "fe80::%1/64"])  # fmt: skip
@pytest.mark.parametrize("field", ["links", "routes", "onlink"])
def test_range_that_is_none_or_everything_is_refused(field: str, text: str) -> None:
    assert range_fault(text)
    assert at(replace(HONEST, **{field: ("10.0.0.0/8", text)})) == [field]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hostname", "n1\nn2"),
        ("hostname", ""),
        ("mtu", 0),
        ("mtu", 1 << 20),
        ("nano_cpus", -1),
        ("memory", -1),
        ("link", "eth0/../x"),
        ("nics", (Nic(name="a b"),)),
        ("nics", (Nic(name="eth0", mtu=-1),)),
        ("link_local", "192.0.2.1"),
        ("link_local", "2001:db8::1"),
        ("link_local", "fe80::1%eth0"),
        ("labels", {"a": "x" * 5000}),
        ("warnings", ("x" * 5000,)),
        ("addresses", ("192.0.2.1",) * (MOST_OWN + 1)),
        ("routes", ("10.0.0.0/8",) * (MOST_ENTRIES + 1)),
    ],
)
def test_fact_beyond_its_bounds_is_named(field: str, value: Any) -> None:
    assert at(replace(HONEST, **{field: value})) == [field]


def test_text_without_end_is_refused() -> None:
    assert at(replace(HONEST, kernel="x" * 5000)) == ["facts"]
    assert at(replace(HONEST, platform=Platform(os="x" * 5000))) == ["facts"]


def test_problem_of_facts_is_one_line_of_bounded_length() -> None:
    (problem,) = facts_problems(replace(HONEST, address=SCRIPT * 1000))
    assert "\n" not in str(problem) and len(str(problem)) < 200


# -- the rest of a message ----------------------------------------------------------------------------
INSTANCE = InstanceId("a")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 1e300])
def test_time_that_is_none_is_refused_wherever_it_stands(bad: float) -> None:
    status = InstanceStatus(instance=INSTANCE)
    network = NetworkId("n")
    wholes: list[Struct] = [
        *(replace(status, **{f: bad}) for f in ("created_at", "started_at", "finished_at", "ready_since")),
        HostReport(host=HostId("h"), volumes=(VolumeReport(name="v", created_at=bad),)),
        HostReport(host=HostId("h"), strangers=(Stranger(network=network, address="", mac="", seen_at=bad),)),
        Event(type="container", action="start", id="a", at=bad),
    ]
    for whole in wholes:
        report = Report(
            sequence=1,
            statuses=(whole,) if isinstance(whole, InstanceStatus) else (),
            report=whole if isinstance(whole, HostReport) else None,
            events=(whole,) if isinstance(whole, Event) else (),
        )
        assert [p.path for p in report_problems(report)] == ["times"]


def test_messages_of_an_honest_host_have_no_problems() -> None:
    status = InstanceStatus(instance=INSTANCE, started_at=1.7e9)
    report = HostReport(host=HostId("h"))
    hello = Hello(epoch=1, boot_id="b", facts=HONEST, statuses=(status,), report=report)
    assert list(hello_problems(hello)) == []
    assert list(report_problems(Report(sequence=1, statuses=(status,), report=report, facts=HONEST))) == []
    assert [p.path for p in hello_problems(replace(hello, facts=replace(HONEST, mtu=0)))] == ["mtu"]
    assert [p.path for p in report_problems(Report(sequence=1, facts=replace(HONEST, mtu=0)))] == ["mtu"]


# -- joining ------------------------------------------------------------------------------------------
def test_host_joins_without_an_address_or_with_one_and_with_nothing_else() -> None:
    def joined(**more: Any) -> HostFacts:
        request = JoinRequest(secret="s", csr="c", name="n1", **more)
        plan = admit(Cluster(), request, now=1.0, ident=HostId("h"), fingerprint="f", connected=False)
        return plan.items[0].record.facts  # type: ignore[union-attr]

    assert joined().address == "" and joined(address="fd00::1").address == "fd00::1"
    for bad in (SCRIPT, "0.0.0.0/0", "fe80::1%eth0", "host.example"):
        with pytest.raises(InvalidInput, match="invalid host: address"):
            joined(address=bad)
    with pytest.raises(InvalidInput, match="invalid host: labels"):
        joined(labels={"a": "x" * 5000})
