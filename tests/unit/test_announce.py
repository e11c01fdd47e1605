"""Frames that tell a segment whose an address is."""

from __future__ import annotations

import struct

from net.kernel.announce import frame

MAC = "02:00:00:00:00:42"


def test_gratuitous_arp_is_a_request_for_ones_own_address() -> None:
    found = frame(MAC, "10.1.2.3")
    own, ip = bytes.fromhex("020000000042"), bytes((10, 1, 2, 3))
    assert found[:14] == b"\xff" * 6 + own + b"\x08\x06"
    assert found[14:22] == bytes.fromhex("0001080006040001")
    assert found[22:] == own + ip + bytes(6) + ip


def test_advertisement_overrides_and_its_checksum_is_right() -> None:
    found = frame(MAC, "fd00::9")
    assert found[:14] == bytes.fromhex("333300000001020000000042") + b"\x86\xdd"
    head, body = found[14:54], found[54:]
    assert (head[0] >> 4, head[6], head[7]) == (6, 58, 255), "a hop limit of 255 (RFC 4861, 7.1.2)"
    assert body[0] == 136 and body[4:8] == bytes.fromhex("20000000"), "unsolicited, it overrides"
    assert body[24:26] == b"\x02\x01" and body[26:] == bytes.fromhex("020000000042")
    whole = head[8:40] + struct.pack("!II", len(body), 58) + body
    total = sum(struct.unpack(f"!{len(whole) // 2}H", whole))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
