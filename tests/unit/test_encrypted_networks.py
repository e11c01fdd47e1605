"""Encrypted networks: what a host should have, what is never on the underlay, how keys change step by
step."""

from __future__ import annotations

import base64

import msgspec
import pytest

from controller.parents import choosy, lacking
from controller.plan import Plan
from controller.reconcile.keys import next_keys, own_ends, plan_ends, plan_keys
from controller.snapshot import Cluster
from model.ids import HostId, NetworkId
from model.netoptions import REKEY, canonical, encrypted, problems, rekey_after
from model.records import Block, Host, Network
from model.spec import HostSpec, NetworkSpec, Subnet
from model.status import HostFacts, HostReport, HostState
from model.tunnels import KeyPhase, TunnelEnd, TunnelReport, keys_digest
from model.view import NetworkPeer, NetworkView, Peer
from net.diff import Op, diff, roamed
from net.host import NetworkPlan
from net.naming import bridge_name, wireguard_name
from net.plan import check, desired
from net.state import Link, LocalEnd, NetState, Route, TunnelPeer

ME, PEER, THIRD = HostId("1" * 64), HostId("2" * 64), HostId("3" * 64)
NETWORK = NetworkId("a" * 64)
ONE, TWO = wireguard_name(NETWORK, 1), wireguard_name(NETWORK, 2)


def end(generation: int, port: int = 51820) -> LocalEnd:
    return LocalEnd(generation=generation, key=f"mine{generation}", port=port, key_file=f"/keys/{generation}")


def peer_end(generation: int, port: int = 51830) -> TunnelEnd:
    return TunnelEnd(generation=generation, key=public(f"theirs{generation}"), port=port)


def public(word: str) -> str:
    """A key that is one by its form."""
    return base64.b64encode(word.encode().ljust(32)).decode()


def plan(
    ends: tuple[LocalEnd, ...] = (end(1),),
    theirs: tuple[TunnelEnd, ...] = (peer_end(1),),
    keys: KeyPhase = KeyPhase(),  # noqa: B008 - frozen
    address: str = "198.18.0.12",
) -> NetworkPlan:
    spec = NetworkSpec(
        name="secret",
        subnets=(Subnet(cidr="10.1.0.0/16"), Subnet(cidr="fd00:1::/64")),
        options={"encrypted": "on"},
    )
    peers = (NetworkPeer(host=PEER, blocks=("10.1.2.0/24", "fd00:1::200/120"), ends=theirs),)
    blocks = ("10.1.1.0/24", "fd00:1::100/120")
    view = NetworkView(id=NETWORK, spec=spec, vni=4097, blocks=blocks, peers=peers, keys=keys)
    return NetworkPlan(
        host=ME,
        address="198.18.0.11",
        mtu=1500,
        vxlan_port=4789,
        networks={NETWORK: view},
        peers={PEER: Peer(host=PEER, name="h2", address=address)},
        ends={NETWORK: ends} if ends else {},
    )


def ways(state: NetState) -> dict[str, str]:
    return {route.destination: route.link for route in state.routes}


def test_encrypted_network_is_routed_into_its_tunnel_and_nothing_else() -> None:
    state = desired(plan(), ())
    assert ways(state) == {
        "10.1.0.0/16": "",
        "fd00:1::/64": "",
        "10.1.1.0/24": bridge_name(NETWORK),
        "fd00:1::100/120": bridge_name(NETWORK),
        "10.1.2.0/24": ONE,
        "fd00:1::200/120": ONE,
    }
    assert not state.fdb and not state.neighbours
    assert {link.kind for link in state.links.values()} == {"bridge", "wireguard"}
    assert {link.mtu for link in state.links.values()} == {1440}
    (peer,) = state.tunnel_peers
    assert peer.allowed == ("10.1.2.0/24", "fd00:1::200/120")
    assert (peer.key, peer.endpoint, peer.keepalive) == (public("theirs1"), "198.18.0.12:51830", 0)


def test_ipv6_underlay_takes_twenty_bytes_more_and_brackets() -> None:
    found = msgspec.structs.replace(plan(address="2001:db8::12"), address="2001:db8::11")
    state = desired(found, ())
    assert {link.mtu for link in state.links.values()} == {1420}
    assert [peer.endpoint for peer in state.tunnel_peers] == ["[2001:db8::12]:51830"]


@pytest.mark.parametrize(
    ("ends", "theirs"), [((), (peer_end(1),)), ((end(1),), ())], ids=["no key here", "none there"]
)
def test_network_without_a_key_at_either_end_is_unreachable(
    ends: tuple[LocalEnd, ...], theirs: tuple[TunnelEnd, ...]
) -> None:
    state = desired(plan(ends, theirs), ())
    assert "10.1.2.0/24" not in ways(state) and ways(state)["10.1.0.0/16"] == ""


def test_private_key_is_in_no_state_that_is_observed_or_compared() -> None:
    state = desired(plan(), ())
    device = state.links[ONE]
    assert device.wireguard is not None and device.wireguard.key == "mine1"
    seen = msgspec.structs.replace(device, key_file="")
    assert diff(state, msgspec.structs.replace(state, links={**state.links, ONE: seen})) == ()


def test_keys_change_with_two_devices_that_both_take_what_comes() -> None:
    both, theirs = (end(1), end(2, 51821)), (peer_end(1), peer_end(2, 51831))
    made = desired(plan(both, theirs, KeyPhase(oldest=1, sending=1, newest=2)), ())
    sent = desired(plan(both, theirs, KeyPhase(oldest=1, sending=2, newest=2)), ())
    alone = desired(plan((end(2, 51821),), theirs, KeyPhase(oldest=2, sending=2, newest=2)), ())
    assert {ONE, TWO} <= made.links.keys() and ways(made)["10.1.2.0/24"] == ONE
    assert ways(sent)["10.1.2.0/24"] == TWO and {p.key for p in sent.tunnel_peers} == {
        public("theirs1"),
        public("theirs2"),
    }
    changes = [op for op in diff(sent, made) if isinstance(op, Op)]
    assert [(op.verb, op.item.link) for op in changes if isinstance(op.item, Route)] == [("change", TWO)] * 2
    removed = [op.item.name for op in diff(alone, sent) if isinstance(op, Op) and isinstance(op.item, Link)]
    assert removed == [ONE] and {p.key for p in alone.tunnel_peers} == {public("theirs2")}


def test_device_that_says_nothing_is_made_anew_with_its_peers() -> None:
    want = desired(plan(), ())
    mute = msgspec.structs.replace(want.links[ONE], wireguard=None)
    have = msgspec.structs.replace(want, links={**want.links, ONE: mute}, tunnel_peers=frozenset())
    done = [(op.verb, type(op.item).__name__) for op in diff(want, have) if isinstance(op, Op)]
    assert done[0] == ("remove", "Link") and ("add", "Link") in done and ("add", "TunnelPeer") in done
    assert done.index(("add", "TunnelPeer")) < done.index(("add", "Route"))


def test_peers_end_that_moved_is_left_to_its_device_until_it_should_be_another() -> None:
    want = desired(plan(), ())
    (peer,) = want.tunnel_peers
    gone = msgspec.structs.replace(peer, endpoint="203.0.113.9:40000")
    have = msgspec.structs.replace(want, tunnel_peers=frozenset({gone}))
    told = {peer.whose: peer.endpoint}
    assert diff(want, roamed(want, have, told)) == ()
    (op,) = diff(want, roamed(want, have, {peer.whose: "198.18.0.99:51830"}))
    assert isinstance(op, Op) and (op.verb, op.item) == ("change", peer)
    unset = msgspec.structs.replace(
        want, tunnel_peers=frozenset({msgspec.structs.replace(peer, endpoint="")})
    )
    assert diff(want, roamed(want, unset, told)) != (), "somebody took it away"
    silent = NetState(tunnel_peers=frozenset({msgspec.structs.replace(peer, endpoint="")}))
    heard = NetState(tunnel_peers=frozenset({gone}))
    assert roamed(silent, heard, {}) == silent, "one that has to speak first is where it spoke from"


def test_host_behind_nat_speaks_first_and_keeps_the_way_back_open() -> None:
    def peer_of(mine: bool, its: bool) -> tuple[str, int]:
        found = plan()
        other = msgspec.structs.replace(found.peers[PEER], behind_nat=its)
        state = desired(msgspec.structs.replace(found, behind_nat=mine, peers={PEER: other}), ())
        (seen,) = state.tunnel_peers
        return seen.endpoint, seen.keepalive

    assert peer_of(mine=True, its=False) == ("198.18.0.12:51830", 25)
    assert peer_of(mine=False, its=True) == ("", 0), "its address is good on its own side only"
    assert peer_of(mine=True, its=True) == ("198.18.0.12:51830", 25), "they may be side by side"
    assert peer_of(mine=False, its=False) == ("198.18.0.12:51830", 0)


def test_packet_filter_lets_nothing_of_an_encrypted_network_by_in_the_clear() -> None:
    chains = desired(plan(), ()).tables["inet"].chains
    early, forward = chains["early"].rules, chains["forward"].rules
    assert early[0].text.endswith("ip saddr 10.1.0.0/16 counter drop") and "flw" in early[0].text
    assert early[2].text.startswith("udp dport 4789 @th,96,24 { 4097 }")
    assert forward[0].text == "jump seal" and chains["seal_output"].hook == "output"
    assert "jump tunnel" not in " ".join(rule.text for rule in early), "it has no VXLAN to let in"
    same = desired(plan((end(2),), (peer_end(2),), KeyPhase(oldest=2, sending=2, newest=2)), ())
    assert same.tables["inet"].chains == chains, "other keys are no reason for other chains"


def test_bridged_overlay_can_not_be_encrypted() -> None:
    found = plan()
    spec = msgspec.structs.replace(
        found.networks[NETWORK].spec, options={"encrypted": "on", "mode": "bridged"}
    )
    view = msgspec.structs.replace(found.networks[NETWORK], spec=spec)
    with pytest.raises(Exception, match="bridged overlay can't be encrypted"):
        check(msgspec.structs.replace(found, networks={NETWORK: view}))
    assert [p.path for p in problems("overlay", spec.options, "options", ipv6=False)] == ["options.encrypted"]


@pytest.mark.parametrize("word", ["", "true", "1", "on", "T", "TRUE"])
def test_option_encrypted_is_understood_as_docker_writes_it(word: str) -> None:
    assert encrypted(canonical({"encrypted": word}))
    assert not problems("overlay", canonical({"encrypted": word}), "options", ipv6=False)


def test_option_rekey_is_a_time_or_off_and_needs_encryption() -> None:
    found = [rekey_after({"rekey": text}) for text in ("", "off", "2m")]
    assert found == [REKEY, 0, 120]
    for options in ({"encrypted": "on", "rekey": "1s"}, {"encrypted": "on", "rekey": "x"}, {"rekey": "24h"}):
        assert [p.path for p in problems("overlay", options, "o", ipv6=False)] == ["o.rekey"]
    assert problems("bridge", {"encrypted": "on"}, "o", ipv6=False)


# -- the controller's side --------------------------------------------------------------------------
def cluster(keys: KeyPhase, told: dict[HostId, tuple[int, ...]], *, keyed_at: float = 1000.0) -> Cluster:
    """Hosts with blocks, and the generations of which each has told its key."""
    spec = NetworkSpec(name="secret", subnets=(Subnet(cidr="10.1.0.0/16"),), options={"encrypted": "on"})
    network = Network(id=NETWORK, spec=spec, vni=4097, keys=keys, keyed_at=keyed_at)
    hosts = [
        Host(
            id=host,
            spec=HostSpec(name=host[:2]),
            facts=HostFacts(hostname=host[:2], address="198.18.0.1"),
            state=HostState.READY,
            tunnels={NETWORK: tuple(TunnelEnd(generation=g, key=key(host, g), port=1) for g in generations)},
        )
        for host, generations in told.items()
    ]
    blocks = [Block(network=NETWORK, cidr=f"10.1.{i}.0/24", host=h.id) for i, h in enumerate(hosts)]
    return Cluster().apply([network, *hosts, *blocks], [], 1)[0]


def key(host: HostId, generation: int) -> str:
    return f"{host[:1]}-{generation}"


def said(host: HostId, generation: int, met: tuple[HostId, ...], sends: int) -> HostReport:
    report = TunnelReport(met=keys_digest(generation, [key(h, generation) for h in met]), sends=sends)
    return HostReport(host=host, tunnels={NETWORK: report})


def phase_after(cluster_: Cluster, reports: dict[HostId, HostReport], now: float = 1000.0) -> KeyPhase | None:
    plan_ = plan_keys(cluster_, NETWORK, reports, now, Plan())
    if not plan_.items:
        return None
    record = plan_.items[0].record
    assert isinstance(record, Network)
    return record.keys


def test_hosts_send_by_new_keys_only_once_all_have_met_all() -> None:
    changing = KeyPhase(oldest=1, sending=1, newest=2)
    known = cluster(changing, {ME: (1, 2), PEER: (1, 2)})
    half = {ME: said(ME, 2, (PEER,), 1), PEER: said(PEER, 2, (), 1)}
    assert phase_after(known, half) is None
    whole = {**half, PEER: said(PEER, 2, (ME,), 1)}
    assert phase_after(known, whole) == KeyPhase(oldest=1, sending=2, newest=2)
    assert phase_after(cluster(changing, {ME: (1, 2), PEER: (1,)}), whole) is None, "one has no key yet"


def test_old_keys_go_only_once_nobody_sends_by_them() -> None:
    known = cluster(KeyPhase(oldest=1, sending=2, newest=2), {ME: (1, 2), PEER: (1, 2)})
    reports = {ME: said(ME, 2, (PEER,), 2), PEER: said(PEER, 2, (ME,), 1)}
    assert phase_after(known, reports) is None
    assert phase_after(known, {**reports, PEER: said(PEER, 2, (ME,), 2)}) == KeyPhase(
        oldest=2, sending=2, newest=2
    )


def test_lost_host_holds_up_no_change_of_keys_and_a_silent_one_does() -> None:
    known = cluster(KeyPhase(oldest=1, sending=1, newest=2), {ME: (1, 2), PEER: (1, 2), THIRD: (1,)})
    reports = {ME: said(ME, 2, (PEER,), 1), PEER: said(PEER, 2, (ME,), 1)}
    for state, expected in (
        (HostState.UNKNOWN, None),
        (HostState.LOST, KeyPhase(oldest=1, sending=2, newest=2)),
    ):
        third = msgspec.structs.replace(known.hosts[THIRD], state=state)
        assert phase_after(known.apply([third], [], 2)[0], reports) == expected


def test_keys_are_changed_by_the_clock_and_not_while_they_are_being_changed() -> None:
    known = cluster(KeyPhase(), {ME: (1,), PEER: (1,)})
    waiting = plan_keys(known, NETWORK, {}, 2000.0, Plan())
    assert not waiting.items and waiting.retry_at == 1000.0 + REKEY
    assert phase_after(known, {}, 1000.0 + REKEY) == KeyPhase(oldest=1, sending=1, newest=2)
    changing = cluster(KeyPhase(oldest=1, sending=1, newest=2), {ME: (1,), PEER: (1,)})
    assert phase_after(changing, {}, 1000.0 + 9 * REKEY) is None


def test_other_plans_go_along_unchanged() -> None:
    plain = Cluster().apply([Network(id=NETWORK, spec=NetworkSpec(name="plain"))], [], 1)[0]
    other = Plan(retry_at=5.0)
    assert plan_keys(plain, NETWORK, {}, 0.0, other) is other
    assert plan_keys(cluster(KeyPhase(), {}), NETWORK, {}, 0.0, other).retry_at == 5.0


def test_ends_are_recorded_once_and_only_of_networks_that_there_are() -> None:
    known = cluster(KeyPhase(), {ME: ()})
    mine = TunnelReport(ends=(peer_end(1),))
    told = {NETWORK: mine, NetworkId("f" * 64): mine}
    (item,) = plan_ends(known, ME, told).items
    assert isinstance(item.record, Host) and item.record.tunnels == {NETWORK: (peer_end(1),)}
    assert plan_ends(known.apply([item.record], [], 2)[0], ME, told).empty
    assert plan_ends(known, THIRD, told).empty


@pytest.mark.parametrize(
    "bad",
    [
        TunnelEnd(generation=0, key=public("a"), port=51820),
        TunnelEnd(generation=4, key=public("a"), port=51820),
        TunnelEnd(generation=2, key="oops", port=51820),
        TunnelEnd(generation=2, key=base64.b64encode(bytes(31)).decode(), port=51820),
        TunnelEnd(generation=2, key=public("a").rstrip("="), port=51820),
        TunnelEnd(generation=2, key=f"{public('a')}\n", port=51820),
        TunnelEnd(generation=2, key=f"{public('a')[:-2]}h=", port=51820),
        TunnelEnd(generation=2, key=public("a"), port=0),
        TunnelEnd(generation=2, key=public("a"), port=65536),
        TunnelEnd(generation=2, key=public("anothers"), port=51820),
    ],
)
def test_end_that_cannot_be_the_hosts_is_left_out_and_the_others_stay(bad: TunnelEnd) -> None:
    known = cluster(KeyPhase(oldest=1, sending=2, newest=3), {ME: (), PEER: ()})
    theirs = TunnelEnd(generation=1, key=public("anothers"), port=9)
    there = msgspec.structs.replace(known.hosts[PEER], tunnels={NETWORK: (theirs,)})
    known = known.apply([there], [], 2)[0]
    good = peer_end(3)
    told = {NETWORK: TunnelReport(ends=(bad, good))}
    (item,) = plan_ends(known, ME, told).items
    assert isinstance(item.record, Host) and item.record.tunnels == {NETWORK: (good,)}
    (words,) = own_ends(known, known.hosts[ME], told)[1]
    assert "its end of secret is left out" in words and "\n" not in words
    known = known.apply([item.record], [], 3)[0]
    assert plan_ends(known, ME, told).empty, "and the same again writes nothing"


def test_second_end_of_a_generation_is_left_out() -> None:
    known = cluster(KeyPhase(), {ME: ()})
    ends = (peer_end(1), TunnelEnd(generation=1, key=public("more"), port=1))
    (item,) = plan_ends(known, ME, {NETWORK: TunnelReport(ends=ends)}).items
    assert isinstance(item.record, Host) and item.record.tunnels == {NETWORK: (peer_end(1),)}


@pytest.mark.parametrize(
    ("bad", "address"),
    [
        (TunnelEnd(generation=1, key="oops", port=1), "198.18.0.13"),
        (TunnelEnd(generation=1, key=public("a"), port=1 << 16), "198.18.0.13"),
        (TunnelEnd(generation=1, key=public("a"), port=1), "198.18.0.13\nreplace_peers=true"),
        (TunnelEnd(generation=1, key=public("theirs1"), port=1), "198.18.0.13"),
    ],
)
def test_peer_that_cannot_be_sent_to_spoils_no_other(bad: TunnelEnd, address: str) -> None:
    found = plan()
    view = found.networks[NETWORK]
    third = NetworkPeer(host=THIRD, blocks=("10.1.3.0/24",), ends=(bad,))
    peers = {**found.peers, THIRD: Peer(host=THIRD, name="h3", address=address)}
    networks = {NETWORK: msgspec.structs.replace(view, peers=(*view.peers, third))}
    state = desired(msgspec.structs.replace(found, networks=networks, peers=peers), ())
    assert state.tunnel_peers == desired(found, ()).tunnel_peers


def test_change_asked_for_makes_one_generation_more() -> None:
    network = cluster(KeyPhase(), {}).networks[NETWORK]
    made = next_keys(network, "asked for", 7.0)
    assert isinstance(made.items[0].record, Network)
    assert made.items[0].record.keys == KeyPhase(oldest=1, sending=1, newest=2)
    assert made.items[0].record.keyed_at == 7.0


def test_hosts_are_passed_over_that_can_not_carry_a_network() -> None:
    known = cluster(KeyPhase(), {ME: (), PEER: (), THIRD: ()})
    hosts = known.hosts
    secret, plain = known.networks[NETWORK], Network(id=NetworkId("p" * 64), spec=NetworkSpec(name="plain"))
    able = {
        ME: {"wireguard": "kernel"},
        PEER: {"wireguard": "wireguard-go", "behind_nat": True},
        THIRD: {},
    }
    told = [
        msgspec.structs.replace(hosts[h], facts=msgspec.structs.replace(hosts[h].facts, **facts))
        for h, facts in able.items()
    ]
    found = [lacking((secret, plain), host) for host in told]
    assert found[0] == {} and choosy(secret, told) and choosy(plain, told) and not choosy(plain, told[:1])
    assert found[1].keys() == {plain.id, "plain"} and "behind NAT" in found[1]["plain"]
    assert found[2].keys() == {NETWORK, "secret"} and "WireGuard" in found[2]["secret"]


def test_peer_states_compare_by_all_but_where_they_are() -> None:
    peer = TunnelPeer(link=ONE, key="k", allowed=("10.1.2.0/24",))
    wide = msgspec.structs.replace(peer, allowed=("10.1.2.0/24", "10.1.9.0/24"))
    (op,) = diff(NetState(tunnel_peers=frozenset({wide})), NetState(tunnel_peers=frozenset({peer})))
    assert isinstance(op, Op) and (op.verb, op.item) == ("change", wide)
    (op,) = diff(NetState(), NetState(tunnel_peers=frozenset({peer})))
    assert isinstance(op, Op) and op.verb == "remove"
