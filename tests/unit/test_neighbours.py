"""Frames that ask whether an address is free, and those that answer (RFC 5227, RFC 4861)."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from net.kernel.neighbours import announcement, claim, probe

MINE, OTHER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
FOUR, SIX = "192.0.2.130", "2001:db8::82"


def test_probe_of_ipv4_says_nothing_of_the_sender() -> None:
    """RFC 5227 2.1.1: sender address zero, so that nobody's cache learns anything."""
    head = "ffffffffffff 020000000001 0806 0001 0800 06 04 0001"
    body = "020000000001 00000000 000000000000 c0000282"
    assert probe(FOUR, MINE) == bytes.fromhex(head + body)


def test_announcement_of_ipv4_is_a_request_for_oneself() -> None:
    head = "ffffffffffff 020000000001 0806 0001 0800 06 04 0001"
    body = "020000000001 c0000282 000000000000 c0000282"
    assert announcement(FOUR, MINE) == bytes.fromhex(head + body)


@pytest.mark.parametrize("frame", [probe(SIX, MINE), announcement(SIX, MINE)])
def test_nd_frames_have_a_right_checksum_and_prove_to_be_of_the_link(frame: bytes) -> None:
    length, kind, hops = struct.unpack_from("!HBB", frame, 18)
    assert (kind, hops, len(frame)) == (58, 255, 54 + length)
    pseudo = frame[22:54] + struct.pack("!II", length, 58) + frame[54:]
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def test_probe_of_ipv6_goes_to_the_solicited_node_group() -> None:
    frame = probe(SIX, MINE)
    assert frame[:6].hex() == "3333ff000082" and not any(frame[22:38])
    assert str(ipaddress.IPv6Address(frame[38:54])) == "ff02::1:ff00:82"


@pytest.mark.parametrize("address", [FOUR, SIX])
def test_claim_is_heard_of_announcements_and_of_others_probes(address: str) -> None:
    packed = ipaddress.ip_address(address).packed
    assert claim(announcement(address, OTHER)) == (OTHER, packed)
    assert claim(probe(address, OTHER)) == (OTHER, packed)


def test_claim_is_heard_of_an_answer_and_not_of_questions_for_the_address() -> None:
    reply = bytes.fromhex("020000000001 020000000002 0806 0001 0800 06 04 0002")
    answer = reply + OTHER + ipaddress.ip_address(FOUR).packed + MINE + bytes(4)
    assert claim(answer) == (OTHER, ipaddress.ip_address(FOUR).packed)
    question = reply[:20] + b"\0\1" + OTHER + bytes([192, 0, 2, 9]) + bytes(6) + bytes([192, 0, 2, 130])
    assert claim(question) == (OTHER, bytes([192, 0, 2, 9])), "the asker claims its own address alone"


@pytest.mark.parametrize("length", [0, 13, 41, 54, 77])
def test_claim_of_a_cut_frame_is_none(length: int) -> None:
    assert claim(announcement(SIX, OTHER)[:length]) is None


def test_claim_from_beyond_the_link_is_none() -> None:
    """RFC 4861 7.1: a hop limit other than 255 was routed here."""
    frame = bytearray(announcement(SIX, OTHER))
    frame[21] = 64
    assert claim(bytes(frame)) is None
