"""The kernel's WireGuard in generic netlink (linux/wireguard.h, uapi), packed and parsed by hand. Pure.

Message bodies begin with genlmsghdr; the socket's owner puts the netlink head before them.
"""

from __future__ import annotations

import base64
import ipaddress
import struct
from collections.abc import Iterable, Mapping, Sequence

from net.state import TunnelPeer, WireGuard
from net.wireguard.base import Device

GENL_ID_CTRL, CTRL_GETFAMILY, CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 16, 3, 1, 2
FAMILY = "wireguard"
GET_DEVICE, SET_DEVICE = 0, 1
IFNAME, PRIVATE_KEY, PUBLIC_KEY, LISTEN_PORT, PEERS = 2, 3, 4, 6, 8
PEER_KEY, PEER_FLAGS, ENDPOINT, KEEPALIVE, LAST_HANDSHAKE, ALLOWED = 1, 3, 4, 5, 6, 9
IP_FAMILY, IP_ADDRESS, IP_PREFIX = 1, 2, 3
REMOVE_ME, REPLACE_ALLOWED = 1, 2
NESTED, TYPE = 0x8000, 0x3FFF
AF_INET, AF_INET6 = 2, 10
CHUNK = 40000
"""Bytes of peers in one message: an attribute's length has 16 bits."""


def family_request() -> bytes:
    return _head(CTRL_GETFAMILY) + _attr(CTRL_ATTR_FAMILY_NAME, FAMILY.encode() + b"\0")


def family_of(body: bytes) -> int:
    """From the answer; 0: none."""
    raw = attributes(body, 4).get(CTRL_ATTR_FAMILY_ID, b"\0\0")
    return int(struct.unpack("=H", raw[:2])[0])


def get_device(name: str) -> bytes:
    return _head(GET_DEVICE) + _attr(IFNAME, name.encode() + b"\0")


def own(name: str, private_key: bytes, port: int) -> bytes:
    mine = _attr(PRIVATE_KEY, private_key) + _attr(LISTEN_PORT, struct.pack("=H", port))
    return _head(SET_DEVICE) + _attr(IFNAME, name.encode() + b"\0") + mine


def put(name: str, peers: Iterable[tuple[bytes, TunnelPeer]]) -> list[bytes]:
    """Each peer with its key, in as many messages as it takes."""
    return _set(name, [_peer(key, peer) for key, peer in peers])


def drop(name: str, keys: Iterable[bytes]) -> list[bytes]:
    gone = struct.pack("=I", REMOVE_ME)
    return _set(name, [_attr(PEER_KEY, key) + _attr(PEER_FLAGS, gone) for key in keys])


def device(name: str, bodies: Sequence[bytes]) -> Device:
    """From all messages of a dump; a peer whose ranges don't fit into one goes on in the next."""
    end: WireGuard | None = None
    found: dict[bytes, TunnelPeer] = {}
    met: set[str] = set()
    for body in bodies:
        seen = attributes(body, 4)
        if any(seen.get(PUBLIC_KEY, b"")):
            port = struct.unpack("=H", seen.get(LISTEN_PORT, b"\0\0")[:2])[0]
            end = WireGuard(key=_text(seen[PUBLIC_KEY]), port=port)
        for _, raw in items(seen.get(PEERS, b""), 0):
            key, peer = _seen(name, raw)
            if any(attributes(raw, 0).get(LAST_HANDSHAKE, b"")):
                met.add(peer.key)
            before = found.get(key)
            allowed = peer.allowed if before is None else tuple(sorted({*before.allowed, *peer.allowed}))
            found[key] = TunnelPeer(
                link=name,
                key=peer.key,
                allowed=allowed,
                endpoint=peer.endpoint or (before.endpoint if before else ""),
                keepalive=peer.keepalive or (before.keepalive if before else 0),
            )
    peers = tuple(sorted(found.values(), key=lambda peer: peer.key))
    return Device(end=end, peers=peers, strangers=frozenset(peer.key for peer in peers) - met)


def _set(name: str, peers: Sequence[bytes]) -> list[bytes]:
    head = _head(SET_DEVICE) + _attr(IFNAME, name.encode() + b"\0")
    chunks, size = [list[bytes]()], 0
    for peer in peers:
        if size + len(peer) > CHUNK and chunks[-1]:
            chunks.append([])
            size = 0
        chunks[-1].append(peer)
        size += len(peer) + 4
    nested = (b"".join(_attr(i | NESTED, p) for i, p in enumerate(chunk)) for chunk in chunks if chunk)
    return [head + _attr(PEERS | NESTED, peers_) for peers_ in nested]


def _peer(key: bytes, peer: TunnelPeer) -> bytes:
    body = _attr(PEER_KEY, key) + _attr(PEER_FLAGS, struct.pack("=I", REPLACE_ALLOWED))
    if peer.endpoint:
        body += _attr(ENDPOINT, _sockaddr(peer.endpoint))
    body += _attr(KEEPALIVE, struct.pack("=H", peer.keepalive))
    ranges = (_attr(i | NESTED, _range(cidr)) for i, cidr in enumerate(peer.allowed))
    return body + _attr(ALLOWED | NESTED, b"".join(ranges))


def _range(cidr: str) -> bytes:
    network = ipaddress.ip_network(cidr)
    family = AF_INET if network.version == 4 else AF_INET6
    body = _attr(IP_FAMILY, struct.pack("=H", family)) + _attr(IP_ADDRESS, network.network_address.packed)
    return body + _attr(IP_PREFIX, bytes([network.prefixlen]))


def _sockaddr(endpoint: str) -> bytes:
    """ADDRESS:PORT as sockaddr_in or sockaddr_in6."""
    host, _, port = endpoint.rpartition(":")
    address = ipaddress.ip_address(host.strip("[]"))
    number = int(port).to_bytes(2, "big")
    if address.version == 4:
        return struct.pack("=H", AF_INET) + number + address.packed + bytes(8)
    return struct.pack("=H", AF_INET6) + number + bytes(4) + address.packed + bytes(4)


def _endpoint(raw: bytes) -> str:
    if len(raw) < 16:
        return ""
    port = int.from_bytes(raw[2:4], "big")
    if struct.unpack_from("=H", raw)[0] == AF_INET:
        return f"{ipaddress.IPv4Address(raw[4:8])}:{port}"
    return f"[{ipaddress.IPv6Address(raw[8:24])}]:{port}"


def _seen(name: str, raw: bytes) -> tuple[bytes, TunnelPeer]:
    found = attributes(raw, 0)
    key = found.get(PEER_KEY, b"")
    allowed = (_cidr(attributes(one, 0)) for _, one in items(found.get(ALLOWED, b""), 0))
    return key, TunnelPeer(
        link=name,
        key=_text(key),
        allowed=tuple(sorted(allowed)),
        endpoint=_endpoint(found.get(ENDPOINT, b"")),
        keepalive=struct.unpack("=H", found.get(KEEPALIVE, b"\0\0")[:2])[0],
    )


def _cidr(found: Mapping[int, bytes]) -> str:
    return f"{ipaddress.ip_address(found[IP_ADDRESS])}/{found[IP_PREFIX][0]}"


def _head(command: int) -> bytes:
    return struct.pack("=BBH", command, 1, 0)


def _attr(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def items(data: bytes, at: int) -> Iterable[tuple[int, bytes]]:
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & TYPE, data[at + 4 : at + length]
        at += length + (-length % 4)


def attributes(data: bytes, at: int) -> dict[int, bytes]:
    return dict(items(data, at))


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()
