"""SCTP ports by crafted packets: no sockets of SCTP are needed for what the packet filter does.

An INIT to a published port comes to the container with the container's address and port, and the answer goes
back as from the host's.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from model.spec import NetworkSpec, Subnet
from model.status import BoundPort
from tests.support.nethosts import OUTSIDE, NetHosts, address, inner4, inner6, net_hosts
from tests.support.talkers import Talker

pytestmark = pytest.mark.kernel

LAN = NetworkSpec(
    name="lan", driver="bridge", subnets=(Subnet(cidr="10.201.0.0/16"), Subnet(cidr="fd00:b::/64"))
)
SIX, OUTSIDE6 = "2001:db8:7::11", "2001:db8:7::1"
CLIENT_PORT, PUBLISHED, TARGET = 5060, 3868, 3869
RAW = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family, socket.SOCK_RAW, 132)
s.settimeout(1)
s.bind((sys.argv[1], 0))
print("up", flush=True)
for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    try:
        if word == "send":
            to, data = rest.split()
            s.sendto(bytes.fromhex(data), (to, 0))
            print("sent", flush=True)
        else:
            data, source = s.recvfrom(2048)
            body = data if family == socket.AF_INET6 else data[(data[0] & 15) * 4:]
            print(source[0], body.hex(), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


def crc32c(data: bytes) -> int:
    """RFC 9260, appendix A: reflected, polynomial 0x1EDC6F41."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def packet(source: int, target: int, tag: int, chunk: bytes) -> bytes:
    """RFC 9260, section 3: common header, then one chunk."""
    head = struct.pack(">HHI", source, target, tag)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def init(kind: int, tag: int) -> bytes:
    """An INIT (1), or an INIT ACK (2) with its State Cookie."""
    cookie = struct.pack(">HH4s", 7, 8, b"milk") if kind == 2 else b""
    return struct.pack(">BBHIIHHI", kind, 0, 20 + len(cookie), tag, 65536, 1, 1, 1) + cookie


def read(line: str) -> tuple[str, int, int, int, bool]:
    """(source address, source port, target port, type of the chunk, whether the checksum is right)."""
    address_, text = line.split()
    data = bytes.fromhex(text)
    source, target = struct.unpack_from(">HH", data)
    whole = crc32c(data[:8] + bytes(4) + data[12:]) == struct.unpack_from("<I", data, 8)[0]
    return address_, source, target, data[12], whole


@pytest.fixture
def hosts() -> Iterator[NetHosts]:
    with net_hosts(1, "flsc") as made:
        made.carry({1: LAN})
        made.hosts[1].run("ip", "address", "add", f"{SIX}/64", "dev", "eth0", "nodad")
        made.outside("ip", "address", "add", f"{OUTSIDE6}/64", "dev", "br0", "nodad")
        yield made


@pytest.mark.parametrize("ipv6", [False, True])
def test_sctp_port_leads_to_the_container_and_its_answer_back(hosts: NetHosts, ipv6: bool) -> None:
    host, instance = hosts.hosts[1], hosts.container(1, 0, 1)
    port = BoundPort(target=TARGET, published=PUBLISHED, protocol="sctp")
    hosts.publish(1, instance, inner4(LAN, 1, 0), port, ipv6=inner6(LAN, 1, 0))
    ours, inner, client_at = (
        (SIX, inner6(LAN, 1, 0), OUTSIDE6) if ipv6 else (address(1), inner4(LAN, 1, 0), OUTSIDE)
    )
    client = Talker(f"/run/netns/{hosts.switch}", RAW, client_at)
    server = Talker(str(host.run_dir / "ns" / instance), RAW, inner)
    try:
        assert client.say(f"send {ours} {packet(CLIENT_PORT, PUBLISHED, 0, init(1, 77)).hex()}") == "sent"
        heard = server.say("read")
        assert read(heard) == (client_at, CLIENT_PORT, TARGET, 1, True), heard
        answer = packet(TARGET, CLIENT_PORT, 77, init(2, 88)).hex()
        assert server.say(f"send {client_at} {answer}") == "sent"
        heard = client.say("read")
        assert read(heard) == (ours, PUBLISHED, CLIENT_PORT, 2, True), heard
        host.call("unpublish", instance)
        assert client.say(f"send {ours} {packet(CLIENT_PORT + 1, PUBLISHED, 0, init(1, 78)).hex()}") == "sent"
        assert server.say("read") == "TimeoutError", "no longer published"
    finally:
        client.close()
        server.close()


def test_checksum_is_the_one_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert socket.IPPROTO_SCTP == 132
