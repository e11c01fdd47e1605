"""What hosts send each other for their overlays, captured between them, is VXLAN as RFC 7348 has it: read by
scapy, not by us."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.fleet import Fleet
from deploy.rig.netns import address_of
from tests.rig.conftest import IMAGE
from tests.rig.support import local_pid
from tests.support.frames import Capture, decoded
from tests.support.talkers import PORT, Talker, answers, server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
FLOWS = 48
"""Datagram sockets, each with a port of its own, two datagrams each."""
TALK = f"""
import socket, sys
for target in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in range({FLOWS})]
    for s in sockets:
        s.settimeout(3)
        s.connect((target, {PORT}))
    for turn in range(2):
        for s in sockets:
            s.send(b"?")
            s.recv(99)
    with socket.create_connection((target, {PORT}), 5) as s: s.recv(99)
print("done", flush=True)
"""


def container(fleet: Fleet, network: str, host: str) -> tuple[str, dict[str, Any]]:
    """Its network namespace and its foot."""
    words = ("--network", network, "--node", host, IMAGE, "sleep", "10000")
    ident = fleet.flota("n1", "run", "-d", *words).strip()
    status = fleet.json("inspect", ident)[0]["status"]
    return f"/proc/{local_pid(fleet, host, status['pid'])}/ns/net", status["endpoints"][0]


@pytest.mark.parametrize("mode", ["routed", "bridged"])
def test_frames_between_hosts_are_vxlan_to_others(clean: Fleet, mode: str) -> None:
    clean.flota("n1", "network", "create", "--ipv6", "--opt", f"mode={mode}", "frames")
    (shown,) = json.loads(clean.flota("n1", "network", "inspect", "frames"))
    vni = shown["network"]["vni"]
    near, here = container(clean, "frames", "n1")
    far, there = container(clean, "frames", "n2")
    answering = server(far, "far")
    for target in (there["ipv4"], there["ipv6"]):  # a datagram that is lost is not sent again
        wait_until(
            lambda t=target: answers(near, "udp", [t])[0][0] == "far",
            deadline=10,
            what=f"an answer of {target}",
        )
    capture = Capture(f"/run/netns/{clean.rig.name}-sw", "n2")
    try:
        talking = Talker(near, TALK, there["ipv4"], there["ipv6"])
        assert talking.greeting == "done"
        talking.close()
    finally:
        frames = capture.frames()
        answering.close()
    found = [one for one in decoded(frames) if 4789 in one["ports"]]
    hosts = {address_of(host) for host in ("n1", "n2", "n3")}
    for one in found:
        assert one["vxlan"] and one["ethernet"], one
        assert (one["flags"], one["reserved"]) == (0x08, [0, 0]), "the I flag alone (RFC 7348, section 5)"
        assert one["ports"][1] == 4789 and {one["source"], one["target"]} <= hosts, one
    mine = [one for one in found if one["vni"] == vni and one.get("inner")]
    for family in ("ipv4", "ipv6"):
        ways = {(one["inner"]["source"], one["inner"]["target"]) for one in mine}
        assert {(here[family], there[family]), (there[family], here[family])} <= ways
    if mode == "bridged":
        assert {here["mac"], there["mac"]} <= {mac for one in mine for mac in one["macs"]}
    else:
        assert not any({here["mac"], there["mac"]} & set(one["macs"]) for one in mine), "hosts speak for them"
    by_flow: dict[str, set[int]] = {}
    for one in mine:
        inner = one["inner"]
        if inner["protocol"] == "UDP" and inner["target"] in (there["ipv4"], there["ipv6"]):
            by_flow.setdefault(str((inner["source"], inner["ports"])), set()).add(one["ports"][0])
    assert len(by_flow) == 2 * FLOWS
    assert all(len(ports) == 1 for ports in by_flow.values()), "one flow takes one way"
    used = {port for ports in by_flow.values() for port in ports}
    assert len(used) > FLOWS, "flows are spread by the source port (RFC 7348, section 5)"
    assert min(used) >= 32768, "of the dynamic ports"
