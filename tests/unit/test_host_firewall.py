"""firewalld's rules for what comes in, as our chains ask them before a published port is translated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from net import firewall
from net.backend.base import Scene
from net.hostfirewall import GATE, NO_FIREWALL, OUTSIDE, HostFirewall, gate, heard, read
from net.servicechains import Frame, base_chains

OWN = [f'iifname "{prefix}*" goto publish' for prefix in ("flb", "flx", "flw")]
ACCEPT, REJECT = {"accept": None}, {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}


def match(left: Any, right: Any, op: str = "==") -> Mapping[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, field: str, right: Any, op: str = "==") -> Mapping[str, Any]:
    return match({"payload": {"protocol": protocol, "field": field}}, right, op)


def port(number: Any, protocol: str = "tcp") -> Mapping[str, Any]:
    return payload(protocol, "dport", number)


def link(name: str) -> Mapping[str, Any]:
    return match({"meta": {"key": "iifname"}}, name)


def to(verb: str, chain: str) -> Mapping[str, Any]:
    return {verb: {"target": chain}}


def listing(**chains: list[list[Mapping[str, Any]]]) -> Mapping[str, Any]:
    """As `nft -j list table inet firewalld` writes it, the rules of these chains."""
    rules = [
        {"rule": {"family": "inet", "table": "firewalld", "chain": chain, "handle": 1, "expr": expr}}
        for chain, found in chains.items()
        for expr in found
    ]
    return {"nftables": [{"metainfo": {}}, {"table": {"family": "inet", "name": "firewalld"}}, *rules]}


def words(found: HostFirewall) -> dict[str, list[str]]:
    return {name: [r.text for r in chain.rules] for name, chain in gate(found, "publish").items()}


def entrance(*expressions: list[Mapping[str, Any]]) -> list[str]:
    """What one chain of such rules becomes."""
    return words(read(listing(filter_INPUT=list(expressions))))[f"{GATE}0"]


def test_zones_are_asked_in_their_order_and_what_they_refuse_is_not_translated() -> None:
    found = read(
        listing(
            filter_INPUT=[
                [match({"ct": {"key": "state"}}, ["established", "related"], "in"), ACCEPT],
                [link("lo"), ACCEPT],
                [to("jump", "filter_INPUT_ZONES")],
                [REJECT],
            ],
            filter_INPUT_ZONES=[
                [payload("ip", "saddr", {"prefix": {"addr": "10.0.0.0", "len": 8}}), to("goto", "IN_home")],
                [to("goto", "IN_public")],
            ],
            IN_home=[[ACCEPT]],
            IN_public=[[to("jump", "IN_public_log")], [to("jump", "IN_public_allow")], [REJECT]],
            IN_public_allow=[[port(80), ACCEPT], [port({"range": [8000, 8010]}, "udp"), ACCEPT]],
        )
    )
    assert words(found) == {
        OUTSIDE: [*OWN, "goto gate-0"],
        "gate-0": [
            "ct state { established, related } goto publish",
            'meta iifname "lo" goto publish',
            "jump gate-1",
            "accept",
        ],
        "gate-1": ["ip saddr 10.0.0.0/8 goto gate-4", "goto gate-2"],
        "gate-2": ["jump gate-3", "accept"],
        "gate-3": ["tcp dport 80 goto publish", "udp dport 8000-8010 goto publish"],
        "gate-4": ["goto publish"],
    }


@pytest.mark.parametrize(
    "unknown",
    [
        payload("ip", "saddr", "@friends"),
        match({"meta": {"key": "pkttype"}}, "unicast"),
        match({"fib": {"flags": ["saddr"], "result": "oif"}}, False),
        payload("ip", "saddr", {"prefix": {"addr": "10.0.0.0/8 } accept #", "len": 8}}),
        link('x" accept #'),
        {"limit": {"rate": 1, "per": "minute"}},
        {"xt": None},
    ],
)
def test_what_is_not_understood_opens_nothing(unknown: Mapping[str, Any]) -> None:
    assert entrance([unknown, port(80), ACCEPT], [REJECT]) == ["accept"]
    assert entrance([unknown, port(80), REJECT], [ACCEPT]) == ["tcp dport 80 accept", "goto publish"]
    assert entrance([unknown, to("jump", "some")], [ACCEPT]) == ["accept", "goto publish"]
    assert entrance([unknown, port(80), {"return": None}], [ACCEPT]) == [
        "tcp dport 80 accept",
        "goto publish",
    ]


def test_rules_about_other_protocols_and_those_that_only_count_are_passed_over() -> None:
    echo = payload("icmp", "type", "echo-request")
    assert entrance([echo, REJECT], [{"log": {"prefix": "x"}}], [{"counter": {}}, ACCEPT]) == ["goto publish"]


def test_a_jump_to_an_empty_chain_is_nothing_and_a_goto_ends() -> None:
    assert entrance([to("jump", "empty")], [port(80), to("goto", "empty")], [ACCEPT]) == [
        "tcp dport 80 return",
        "goto publish",
    ]


def test_a_table_that_is_laid_out_otherwise_refuses_everything() -> None:
    assert words(read(listing(other=[[ACCEPT]])))["gate-0"] == ["accept"]


def test_containers_and_clients_of_an_allow_list_are_not_asked_about() -> None:
    scene = Scene(host="h" * 64, address="192.0.2.1", mtu=1500, vxlan_port=4789, peers={})  # type: ignore[arg-type]
    closed = read(listing(filter_INPUT=[[REJECT]]))
    made = firewall.tables((), scene, (), (), firewall=closed)["inet"].chains
    assert [r.text for r in made[OUTSIDE].rules] == [
        "jump publish_some",
        *OWN,
        "goto gate-0",
    ]
    assert all(f"jump {OUTSIDE}" in r.text for r in made["prerouting"].rules)
    assert all("jump publish" in r.text for r in made["output"].rules)
    services = base_chains(Frame(ports=True, firewall=closed))
    assert services[OUTSIDE].rules[0].text == "meta l4proto . th dport @limited goto ports"
    assert sum(f"jump {OUTSIDE}" in r.text for r in services["prerouting"].rules) == 2


def test_without_firewalld_nothing_of_it_is_there() -> None:
    assert gate(NO_FIREWALL, "publish") == {}
    assert base_chains(Frame(ports=True)).keys() & {OUTSIDE, f"{GATE}0"} == set()


@pytest.mark.parametrize(
    "text", ["", "{", '{"nftables": [{"rule": {"chain": "filter_INPUT", "expr": [{}]}}]}']
)
def test_table_that_can_not_be_listed_refuses_everything_while_it_stands(text: str) -> None:
    closed = heard(text, lambda: True)
    assert closed == read({}) and words(closed)[f"{GATE}0"] == ["accept"]
    assert heard(text, lambda: False) == NO_FIREWALL
