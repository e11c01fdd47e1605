"""`network doctor` on a fleet that is well, and on one where somebody broke something."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.support import on_host
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
HOSTS = ("n1", "n2", "n3")
BLOCKED = """
add table inet stranger
add chain inet stranger in { type filter hook input priority -400; }
add rule inet stranger in udp dport 4789 drop
"""


def examined(fleet: Fleet) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and findings."""
    done = fleet.attempt("n1", "network", "doctor", "--format", "json")
    assert not done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def netted(clean: Fleet) -> Fleet:
    """A container on each host, on a routed and a bridged network of both families, known to all."""
    for mode in ("routed", "bridged"):
        clean.flota("n1", "network", "create", "--ipv6", "--opt", f"mode={mode}", f"net{mode}")
        for host in HOSTS:
            clean.flota("n1", "run", "-d", "--name", f"{mode}{host}", "--network", f"net{mode}", "--node",
                        host, IMAGE, "sleep", "10000")  # fmt: skip
    wait_until(lambda: examined(clean) == (0, []), deadline=15, what="all is well")
    return clean


def test_a_fleet_that_is_well_has_no_findings(netted: Fleet) -> None:
    said = netted.flota("n1", "network", "doctor")
    # Three hosts with two peers each, by the underlay and two networks of two families.
    assert said == "3 hosts, 30 ways between them tried: all is well\n"


def test_what_is_blocked_narrow_or_gone_is_named_with_its_remedy(netted: Fleet) -> None:
    on_host(netted, "n2", "nft", BLOCKED)
    try:
        code, found = examined(netted)
    finally:
        on_host(netted, "n2", "nft", "delete", "table", "inet", "stranger")
    assert code == 1
    faults = {f["where"] for f in found if f["severity"] == "fault"}
    pairs = (("n1", "n2"), ("n2", "n1"), ("n3", "n2"), ("n2", "n3"))
    assert faults == {f"{a} → {b}, net{mode}" for a, b in pairs for mode in ("routed", "bridged")}
    assert all("let UDP 4789 pass" in f["hint"] for f in found)

    switch = ["ip", "link", "set", "n3", "mtu", "1400"]
    netted.rig.outside(switch)
    try:
        code, found = examined(netted)
    finally:
        netted.rig.outside([*switch[:-1], "1500"])
    assert code == 1
    narrow = {f["where"] for f in found if "vanish" in f["what"] and f["severity"] == "fault"}
    assert "n1 → n3, netrouted" in narrow and "n3 → n2, netbridged" in narrow
    assert not any("n1 → n2" in where for where in narrow)

    links = json.loads(on_host(netted, "n1", "ip", "-j", "link", "show", "type", "bridge"))
    on_host(netted, "n1", "ip", "link", "set", links[0]["ifname"], "mtu", "1300")
    code, found = examined(netted)
    assert code == 0 and {f["severity"] for f in found} <= {"repaired"}
    assert wait_until(lambda: examined(netted) == (0, []), deadline=15, what="all is well again")


def own_addresses(fleet: Fleet, host: str) -> dict[str, str]:
    """IPv4 addresses of a host in its overlays, by the link's first letters."""
    listed = json.loads(on_host(fleet, host, "ip", "-j", "-4", "address"))
    return {
        one["ifname"][:3]: one["addr_info"][0]["local"]
        for one in listed
        if one.get("ifname", "").startswith(("flx", "fls")) and one["addr_info"]
    }


FORWARD = (
    "add table inet stranger; add chain inet stranger f { type filter hook forward priority 9; policy drop; }"
)
SENT = (
    "add table inet stranger; add chain inet stranger out { type filter hook output priority 9; };"
    "add rule inet stranger out udp dport 4789 drop"
)
GONE = "nft delete table inet stranger"


STRANGERS = (
    ("n1", "ip route add {flx}/32 dev eth0", "ip route del {flx}/32", "led-astray", "by eth0"),
    ("n1", "ip route add {fls}/32 via 198.18.0.1", "ip route del {fls}/32", "led-astray", "by eth0"),
    ("n1", "ip rule add to {flx} lookup 77; ip route add unreachable {flx} table 77",
     "ip rule del to {flx}; ip route del unreachable {flx} table 77", "led-astray", "nowhere"),
    ("n1", f"nft '{FORWARD}'", GONE, "forwarding", "though their host does"),
    ("n2", f"nft '{SENT}'", GONE, "blocked", "every way that fails is n2's"),
)  # fmt: skip
"""On a host what is done and undone, the kind of the findings and words of each."""


def test_what_a_stranger_put_in_the_way_is_named(netted: Fleet) -> None:
    there = own_addresses(netted, "n2")
    for host, damage, undo, kind, words in STRANGERS:
        on_host(netted, host, "sh", "-c", damage.format(**there) if "{fl" in damage else damage)
        try:
            code, found = examined(netted)
        finally:
            on_host(netted, host, "sh", "-c", undo.format(**there))
        assert code == 1 and {f["kind"] for f in found} == {kind}, f"{damage}: {found}"
        told = [f for f in found if words in f["what"] + f["hint"]]
        assert told and all("astray" in f["hint"] for f in found if f not in told), (damage, found)
        assert all(host in (f["host"], f["peer"]) for f in found)
    assert wait_until(lambda: examined(netted) == (0, []), deadline=15, what="all is well again")
    ways = netted.json("network", "doctor", "--ways")
    assert len(ways) == 30 and all(way["small"] > 0 and way["large"] > 0 for way in ways)
    assert {way["network"] for way in ways} == {"", "netrouted", "netbridged"}


def test_what_is_flotas_own_is_set_back_before_others_are_asked(netted: Fleet) -> None:
    tunnels = json.loads(on_host(netted, "n1", "ip", "-j", "link", "show", "type", "vxlan"))
    names = sorted(link["ifname"] for link in tunnels)
    spoil = [f"ip link set {name} down; ip neigh flush dev {name} nud permanent" for name in names]
    script = f"{'; '.join(spoil)}; ip route flush proto 247; nft flush ruleset; true"
    on_host(netted, "n1", "sh", "-c", script)
    code, found = examined(netted)
    assert code == 0 and {f["kind"] for f in found} <= {"repaired"}, found
    assert wait_until(lambda: examined(netted) == (0, []), deadline=15, what="all is well")
