"""Another port, other source ports: tunnels are rebuilt, containers stay, others' tunnels are untouched."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from net.naming import vxlan_name
from tests.support.nethosts import NetHosts, address, inner4, net_hosts, network_id, overlay

pytestmark = pytest.mark.kernel
SPEC = overlay("one", 1)


@pytest.fixture
def pair() -> Iterator[NetHosts]:
    with net_hosts(2, "fltp") as hosts:
        yield hosts


def pings(hosts: NetHosts, target: str, *words: str) -> bool:
    done = hosts.hosts[1].run(*words, "busybox", "ping", "-c1", "-W2", target, check=False)
    return done.returncode == 0


def test_tunnels_change_their_ports_beside_others_that_keep_theirs(pair: NetHosts) -> None:
    for number, other in ((1, 2), (2, 1)):
        host = pair.hosts[number]
        host.run("ip", "link", "add", "alien", "type", "vxlan", "id", "77", "dstport", "4789",
                 "local", address(number), "remote", address(other))  # fmt: skip
        host.run("ip", "address", "add", f"192.168.77.{number}/24", "dev", "alien")
        host.run("ip", "link", "set", "alien", "up")
    pair.carry({1: SPEC})
    client, _ = pair.container(1, 0, 1), pair.container(2, 0, 1)
    inside = ("nsenter", f"--net={pair.hosts[1].run_dir / 'ns' / client}")
    assert pings(pair, inner4(SPEC, 2, 0), *inside) and pings(pair, "192.168.77.2")
    before = pair.hosts[1].run("ip", "-o", "link", "show", "alien").stdout
    for port, ports in ((8472, (0, 0)), (4789, (40000, 40009))):
        for number, host in pair.hosts.items():
            host.call("apply", replace(pair.plan(number), vxlan_port=port, source_ports=ports))
        assert pings(pair, inner4(SPEC, 2, 0), *inside) and pings(pair, "192.168.77.2")
        shown = pair.hosts[1].run("ip", "-d", "link", "show", vxlan_name(network_id(1))).stdout
        assert re.search(rf"srcport {ports[0]} {ports[1]} dstport {port}", shown), shown
    assert pair.hosts[1].run("ip", "-o", "link", "show", "alien").stdout == before
    watch = ["timeout", "30", "ip", "netns", "exec", pair.switch, "python3", "-c", SNIFF]
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as sniffer:
        assert sniffer.stdout is not None and sniffer.stdout.readline() == "up\n"
        assert pings(pair, inner4(SPEC, 2, 0), *inside)
        source = int(sniffer.stdout.readline())
        sniffer.kill()
    assert 40000 <= source <= 40009
    assert pair.hosts[1].call("examine") == []


SNIFF = """
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("p1", 0))
print("up", flush=True)
while True:
    data = s.recv(2000)
    if data[12:14] == b"\\x08\\x00" and data[23] == 17 and data[36:38] == (4789).to_bytes(2, "big"):
        if data[42 + 4 : 42 + 7] == (4097).to_bytes(3, "big"):
            print(int.from_bytes(data[34:36], "big"), flush=True); break
"""
