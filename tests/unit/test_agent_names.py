"""What an agent makes of View, directory and records for its resolver; what containers are told to ask."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agent import etcfiles
from agent.nameplan import NamePlan
from agent.record import Local
from agent.runtime.base import Created
from model.directory import Directory, Member
from model.ids import HostId, InstanceId, NetworkId, ServiceId
from model.records import Desired, Instance, ResolvedAttachment
from model.spec import ContainerSpec, NetworkSpec, Subnet
from model.status import Endpoint, Phase
from model.view import NetworkView, ServiceView, View, service_key
from net.host import PREDEFINED_BRIDGE
from net.resolver.change import diff
from net.resolver.state import Client, ResolverState
from tests.support.names import resolved

HERE, THERE = HostId("here"), HostId("there")
BACK, BRIDGE, WEB = NetworkId("b" * 64), NetworkId(PREDEFINED_BRIDGE), ServiceId("5" * 64)
NETWORK = NetworkView(
    id=BACK, spec=NetworkSpec(name="back", subnets=(Subnet(cidr="10.1.0.0/16"),)), vni=1, blocks=()
)


def ident(number: int) -> InstanceId:
    return InstanceId(f"{number:x}" * 64)


def wish(number: int, name: str, **more: object) -> Instance:
    spec = ContainerSpec(image="x", dns=("192.0.2.1",) if number == 1 else ())
    attachment = ResolvedAttachment(network=BACK, aliases=(f"alias{number}",))
    return Instance(id=ident(number), name=name, spec=spec, attachments=(attachment,), **more)  # type: ignore[arg-type]


def record(number: int, phase: Phase = Phase.RUNNING, **more: object) -> Local:
    foot = Endpoint(
        network=BACK, network_name="back", ifname="eth0", ipv4=f"10.1.0.{number}", gateway="10.1.0.1"
    )
    created = Created(pid=1, conmon_pid=2, conmon_started=2)
    return Local(instance=ident(number), phase=phase, created=created, endpoints=(foot,), **more)  # type: ignore[arg-type]


def view(*wishes: Instance, services: dict[str, ServiceView] | None = None) -> View:
    return View(instances={w.id: w for w in wishes}, networks={BACK: NETWORK}, services=services or {})


def directory(**members: tuple[int, str, HostId]) -> Directory:
    found = {
        ident(number): Member(name=name, host=host, ipv4=address)
        for name, (number, address, host) in members.items()
    }
    return Directory(networks={BACK: found})


def plan(view: View, directory: Directory, *records: Local) -> ResolverState:
    return NamePlan().state(view, directory, HERE, {r.instance: r for r in records})


def test_own_containers_are_known_before_the_controller_tells_and_others_by_it() -> None:
    told = directory(far=(7, "10.1.9.7", THERE), old=(8, "10.1.0.8", HERE))
    state = plan(view(wish(1, "near")), told, record(1))
    assert resolved(state, "10.1.0.1", "near") == ("NOERROR", ["10.1.0.1"])
    assert resolved(state, "10.1.0.1", "alias1") == ("NOERROR", ["10.1.0.1"])
    assert resolved(state, "10.1.0.1", "far") == ("NOERROR", ["10.1.9.7"])
    assert "old" not in state.zones[BACK].names, "what is gone here is gone, whoever still tells of it"
    assert state.clients == {"10.1.0.1": Client(zones=(BACK,), upstreams=("192.0.2.1",))}


def test_links_of_a_wish_are_its_containers_own_names() -> None:
    linked = wish(1, "web")
    linked = replace(linked, attachments=(replace(linked.attachments[0], links={"db": "cache"}),))
    state = plan(
        view(linked, wish(2, "cache")), Directory(), record(1, prepared=True), record(2, prepared=True)
    )
    assert state.clients["10.1.0.1"].links == {"db": "cache.back"}
    assert resolved(state, "10.1.0.1", "db") == ("NOERROR", ["10.1.0.2"])


def test_step_of_a_build_may_ask_and_is_no_name() -> None:
    told, near = directory(far=(7, "10.1.9.7", THERE)), record(1)
    guest = record(9).endpoints
    state = NamePlan().state(view(wish(1, "near")), told, HERE, {near.instance: near}, [guest, ()])
    assert resolved(state, "10.1.0.9", "far") == ("NOERROR", ["10.1.9.7"])
    assert state.clients["10.1.0.9"] == Client(zones=(BACK,))
    assert "10.1.0.9" not in repr(state.zones)


def test_container_may_ask_before_it_runs_and_is_a_name_once_it_does() -> None:
    state = plan(view(wish(2, "new")), Directory(), record(2, Phase.STARTING))
    assert "10.1.0.2" in state.clients and "new" not in state.zones[BACK].names
    ended = replace(record(2, Phase.EXITED), created=None)
    state = plan(view(wish(2, "new")), Directory(), ended)
    assert not state.clients and "new" not in state.zones[BACK].names


@pytest.mark.parametrize(("more", "paused"), [({"desired": Desired.STOPPED}, False), ({}, True)])
def test_task_that_is_to_stop_or_sleeps_is_behind_no_service(more: dict[str, Desired], paused: bool) -> None:
    one = wish(1, "web.1.x", service=WEB, service_name="web", slot=1, **more)
    two = wish(2, "web.2.y", service=WEB, service_name="web", slot=2)
    state = plan(view(one, two), Directory(), record(1, paused=paused), record(2))
    assert state.zones[BACK].names["web"] == ("10.1.0.2",)
    assert state.zones[BACK].names["web.1"] == ("10.1.0.1",)


def test_service_with_an_address_is_found_there() -> None:
    services = {
        service_key(BACK, WEB): ServiceView(name="web", ipv4="10.200.0.1"),
        service_key(BACK, ServiceId("6" * 64)): ServiceView(name="rr"),
    }
    state = plan(view(services=services), Directory())
    assert state.zones[BACK].names["web"] == ("10.200.0.1",) and "rr" not in state.zones[BACK].names


def test_what_was_asked_before_changes_nothing_but_the_cost() -> None:
    worn, told = NamePlan(), directory(far=(7, "10.1.9.7", THERE))
    steps = [
        (view(), told, ()),
        (view(wish(1, "a")), told, (record(1),)),
        (view(wish(1, "b")), told, (record(1),)),
        (view(wish(1, "b")), Directory(), (record(1),)),
        (
            view(wish(1, "b"), services={service_key(BACK, WEB): ServiceView(name="w", ipv4="10.2.0.1")}),
            told,
            (),
        ),
    ]
    last, compared = ResolverState(), 0
    for seen, known, records in steps:
        by_id = {r.instance: r for r in records}
        now = worn.state(seen, known, HERE, by_id)
        assert now == NamePlan().state(seen, known, HERE, by_id)
        step = worn.step
        if step is not None:
            assert step.before is last and step.change == diff(last, now)
        compared += step is None
        last = now
    assert compared == 1, "only a network that is new has all of it compared"
    zone = worn.state(view(), told, HERE, {}).zones[BACK]
    assert worn.state(view(wish(3, "c")), told, HERE, {}).zones[BACK] is zone


def foot(network: NetworkId, gateway: str) -> Endpoint:
    return Endpoint(network=network, network_name="", ifname="eth0", gateway=gateway)


@pytest.mark.parametrize(
    ("feet", "resolver"),
    [
        ([], ""),
        ([foot(BRIDGE, "172.29.0.1")], ""),
        ([foot(BACK, "10.1.0.1")], "10.1.0.1"),
        ([foot(BRIDGE, "172.29.0.1"), foot(BACK, "fd00::1")], "fd00::1"),
    ],
)
def test_containers_ask_the_gateway_of_their_first_network_with_names(
    feet: list[Endpoint], resolver: str
) -> None:
    assert etcfiles.resolver_of(feet) == resolver


HOST = "nameserver 127.0.0.53\nnameserver 192.0.2.9\nsearch corp.example\noptions edns0 trust-ad\n"


def lines(resolver: str = "", **spec: tuple[str, ...]) -> list[str]:
    return etcfiles.resolv_conf(ContainerSpec(image="x", **spec), HOST, resolver).splitlines()  # type: ignore[arg-type]


def test_resolv_conf_with_our_resolver_names_it_alone() -> None:
    plain = ["nameserver 10.1.0.1", "search corp.example", "options edns0 trust-ad ndots:0"]
    assert lines("10.1.0.1") == plain
    assert lines("10.1.0.1", dns=("192.0.2.1",)) == plain, "those of --dns are asked by the resolver"
    own = lines("10.1.0.1", dns_search=("a", "b"), dns_options=("ndots:2",))
    assert own == ["nameserver 10.1.0.1", "search a b", "options ndots:2"]
    assert lines("10.1.0.1", dns_search=(".",)) == ["nameserver 10.1.0.1", plain[2]]


def test_resolv_conf_follows_the_networks_and_keeps_what_the_container_wrote() -> None:
    spec = ContainerSpec(image="x")
    bridge, back, front = foot(BRIDGE, "172.29.0.1"), foot(BACK, "10.1.0.1"), foot(NetworkId("f"), "10.2.0.1")

    def anew(text: str, old: Endpoint, new: Endpoint) -> str:
        return etcfiles.resolved_anew(text, spec, HOST, [old], [new])

    plain, ours = etcfiles.resolv_conf(spec, HOST), etcfiles.resolv_conf(spec, HOST, "10.1.0.1")
    assert anew(plain, bridge, back) == ours and anew(ours, back, bridge) == plain
    assert anew(ours, back, front) == ours.replace("10.1.0.1", "10.2.0.1")
    assert anew(ours, back, back) == ours
    own = "nameserver 10.1.0.1\noptions rotate\n"
    assert anew(own, back, front) == "nameserver 10.2.0.1\noptions rotate\n"
    assert anew("nameserver 9.9.9.9\n", bridge, back) == "nameserver 9.9.9.9\n"


def test_resolv_conf_without_it_is_the_hosts_but_for_its_loopback() -> None:
    assert lines() == ["nameserver 192.0.2.9", "search corp.example", "options edns0 trust-ad"]
    assert lines(dns=("192.0.2.1",))[0] == "nameserver 192.0.2.1"
