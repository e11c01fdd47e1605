"""Packets made by hand, for those who forge them."""

from __future__ import annotations

import ipaddress
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"


def raw_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def ether(source: str, kind: int, payload: bytes, target: str = BROADCAST) -> bytes:
    return raw_mac(target) + raw_mac(source) + kind.to_bytes(2, "big") + payload


def tagged(frame: bytes, times: int = 1) -> bytes:
    """The same with tags of VLAN 0, which say nothing but a priority (IEEE 802.1Q)."""
    return frame[:12] + bytes.fromhex("81000000") * times + frame[12:]


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp(sport: int, dport: int, data: bytes = b"forged") -> bytes:
    return struct.pack(">HHHH", sport, dport, 8 + len(data), 0) + data


def ip4(source: str, target: str, payload: bytes) -> bytes:
    def head(check: int) -> bytes:
        return (
            struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, 17, check)
            + packed(source)
            + packed(target)
        )

    return head(checksum(head(0))) + payload


def ip6(source: str, target: str, payload: bytes, protocol: int) -> bytes:
    return (
        struct.pack(">IHBB", 6 << 28, len(payload), protocol, 255) + packed(source) + packed(target) + payload
    )


def icmp6(source: str, target: str, kind: int, rest: bytes) -> bytes:
    body = bytes([kind, 0, 0, 0]) + rest
    pseudo = packed(source) + packed(target) + struct.pack(">II", len(body), 58)
    check = checksum(pseudo + body)
    return ip6(source, target, body[:2] + check.to_bytes(2, "big") + body[4:], 58)


def arp(mac: str, claims: str) -> bytes:
    """A reply to everybody: that address is at that MAC."""
    return (
        struct.pack(">HHBBH", 1, 0x800, 6, 4, 2)
        + raw_mac(mac)
        + packed(claims)
        + raw_mac(BROADCAST)
        + packed(claims)
    )
