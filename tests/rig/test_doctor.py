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
    """A container on each host, on a routed and a bridged network of both families."""
    for mode in ("routed", "bridged"):
        clean.flota("n1", "network", "create", "--ipv6", "--opt", f"mode={mode}", f"net{mode}")
        for host in HOSTS:
            clean.flota("n1", "run", "-d", "--name", f"{mode}{host}", "--network", f"net{mode}", "--node",
                        host, IMAGE, "sleep", "10000")  # fmt: skip
    return clean


def test_a_fleet_that_is_well_has_no_findings(netted: Fleet) -> None:
    assert wait_until(lambda: examined(netted) == (0, []), deadline=5, what="all is well")
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
    assert wait_until(lambda: examined(netted) == (0, []), deadline=5, what="all is well again")
