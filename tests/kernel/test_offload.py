"""A network card that spoils checksums inside tunnels, played by a relay that never fills them in: it is
found out, and tunnels that make checksums themselves get through."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from net.naming import vxlan_name
from tests.support.nethosts import NetHosts, inner4, net_hosts, network_id, overlay
from tests.support.talkers import answers, server

pytestmark = pytest.mark.kernel
SPEC = overlay("one", 1)
OWN, PEER = "10.129.1.0", "10.129.2.0"
"""The hosts' own addresses in the network."""
TUNNEL = vxlan_name(network_id(1))
TRY = f"import asyncio; from net.kernel.offload import *; print(asyncio.run(try_ways([({OWN!r}, {PEER!r})])))"
RELAY = """
import socket
taken = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); taken.bind(("relay1", 0))
given = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
print("up", flush=True)
while True:
    data, where = taken.recvfrom(70000)
    if where[2] != socket.PACKET_OUTGOING and data[12:14] == b"\\x08\\x00":
        given.sendto(data[:40] + bytes(2) + data[42:], ("p2", 0))
"""
"""Of what it takes, the kernel has left out checksums that a card would fill in; the outer one is none then,
which RFC 7348 allows."""


@pytest.fixture
def pair() -> Iterator[NetHosts]:
    with net_hosts(2, "flof") as hosts:
        hosts.carry({1: SPEC})
        yield hosts


@contextmanager
def broken_card(pair: NetHosts) -> Iterator[None]:
    """What the first host sends through tunnels goes by the relay."""
    words = ("ip", "netns", "exec", pair.switch)
    for line in (
        "ip link add relay0 type veth peer name relay1",
        "ip link set relay0 up",
        "ip link set relay1 up",
        "tc qdisc add dev p1 clsact",
        "tc filter add dev p1 ingress protocol ip u32 match ip protocol 17 0xff match ip dport 4789 0xffff "
        "action mirred egress redirect dev relay0",
    ):
        subprocess.run([*words, *line.split()], check=True)
    with subprocess.Popen([*words, sys.executable, "-u", "-c", RELAY], stdout=subprocess.PIPE) as relay:
        assert relay.stdout is not None and relay.stdout.readline() == b"up\n"
        try:
            yield
        finally:
            relay.kill()
            subprocess.run([*words, "tc", "qdisc", "del", "dev", "p1", "clsact"], check=True)


def tried(pair: NetHosts) -> str:
    return pair.hosts[1].python(TRY).stdout.strip()


def test_a_card_that_spoils_checksums_is_found_out_and_spared(pair: NetHosts) -> None:
    client, box = pair.container(1, 0, 1), pair.container(2, 0, 1)
    inside, host = str(pair.hosts[1].run_dir / "ns" / client), pair.hosts[1]
    serving = server(str(pair.hosts[2].run_dir / "ns" / box), "box")
    target = inner4(SPEC, 2, 0)
    try:
        assert tried(pair) == f"{{({OWN!r}, {PEER!r}): True}}"
        with broken_card(pair):
            assert tried(pair) == f"{{({OWN!r}, {PEER!r}): False}}"
            assert answers(inside, "udp", [target])[0][0] == "TimeoutError"
            host.call("apply", replace(pair.plan(1), checksums=False))
            assert tried(pair) == f"{{({OWN!r}, {PEER!r}): True}}"
            for kind in ("udp", "tcp"):
                assert answers(inside, kind, [target])[0][0] == "box", kind
    finally:
        serving.close()


def test_nothing_is_found_out_of_a_peer_that_is_silent(pair: NetHosts) -> None:
    subprocess.run(["ip", "-n", pair.switch, "link", "set", "p2", "down"], check=True)
    assert tried(pair) == "{}"


def test_the_switch_is_kept_as_it_should_be_and_the_device_stays(pair: NetHosts) -> None:
    host = pair.hosts[1]

    def shown() -> tuple[str, str]:
        index = host.run("ip", "-o", "link", "show", TUNNEL).stdout.split(":")[0]
        features = host.run("ethtool", "-k", TUNNEL).stdout
        return index, next(w for w in features.splitlines() if "tx-checksum-ip-generic" in w).split()[1]

    before = shown()
    assert before[1] == "on"
    spared = replace(pair.plan(1), checksums=False)
    host.call("apply", spared)
    assert shown() == (before[0], "off")
    host.run("ethtool", "-K", TUNNEL, "tx-checksum-ip-generic", "on")
    assert len(host.call("examine")) == 1
    assert shown() == (before[0], "off") and host.call("examine") == []
    host.call("apply", pair.plan(1))
    assert shown() == before
