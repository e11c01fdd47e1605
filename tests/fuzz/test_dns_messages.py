"""Whatever bytes containers and name servers send: an answer, a refusal or silence, never a failure."""

from __future__ import annotations

import os

import dns.exception
import dns.message
import dns.name
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from net.resolver import codec
from net.resolver.answer import Answerer, Forward
from net.resolver.cache import Cache
from tests.support.names import BACK, asker, ident, plain, query, replica, state

FULL = os.environ.get("FLOTA_FULL") == "1"
pytestmark = pytest.mark.timeout(900 if FULL else 120)
examples = settings(
    max_examples=20_000 if FULL else 400,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
NEAR = "10.1.0.1"
STATE = state(
    {BACK: {ident(1): replica(1), ident(2): plain("cache", "10.1.0.2", ipv6="fd00:1::2")}},
    asker((BACK, NEAR)),
)
ANSWERER = Answerer(STATE)
SEEDS = [
    query(name, kind, edns=edns).to_wire()
    for name, kind in (("web", "A"), ("_1._tcp.web", "SRV"), ("2.0.1.10.in-addr.arpa", "PTR"), (".", "NS"))
    for edns in (None, 0)
]
RESPONSE = dns.message.from_text(
    "id 1\nopcode QUERY\nrcode NOERROR\nflags QR RD RA\nedns 0\npayload 1232\n"
    ";QUESTION\nwww.example.com. IN A\n"
    ";ANSWER\nwww.example.com. 300 IN CNAME a.example.com.\na.example.com. 60 IN A 192.0.2.1\n"
    ";AUTHORITY\nexample.com. 900 IN SOA ns.example.com. me.example.com. 1 2 3 4 30\n"
).to_wire()
EDITS = st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=4)), max_size=5)


def mutated(seed: bytes, edits: list[tuple[int, bytes]], cut: int) -> bytes:
    data = bytearray(seed)
    for at, piece in edits:
        data[at : at + len(piece)] = piece
    return bytes(data[:cut])


questions = st.binary(max_size=80) | st.builds(
    mutated, st.sampled_from(SEEDS), EDITS, st.integers(0, 120) | st.just(10_000)
)


@examples
@given(questions, st.sampled_from([NEAR, "10.1.0.200"]), st.booleans(), st.integers(0, 5))
@example(b"\0" * 12, NEAR, True, 0)
@example(b"\0\0\0\0\0\1\0\0\0\0\0\0" + b"\xc0\x0c" * 30, NEAR, True, 0)
@example(b"\0\0\0\0\0\1\0\0\0\0\0\1\0\0\1\0\1\0\0\x29\xff\xff\0\0\0\0\xff\xff", NEAR, False, 0)
def test_question_has_an_answer_that_others_can_read(data: bytes, source: str, udp: bool, turn: int) -> None:
    found = ANSWERER.answer(data, source, turn, udp=udp)
    if found is None:
        assert len(data) < codec.HEADER or data[2] & 0x80
    elif isinstance(found, Forward):
        asked = codec.read_query(data)
        assert source == NEAR and asked is not None and not asked.opcode
    else:
        assert found[:2] == data[:2] and found[2] & 0x80
        assert len(found) <= (codec.MOST_UDP if udp else 0xFFFF)
        said = dns.message.from_wire(found)
        if said.question:
            assert found[codec.HEADER : codec.HEADER + 1] == data[codec.HEADER : codec.HEADER + 1]


@examples
@given(st.binary(max_size=60) | st.builds(mutated, st.just(RESPONSE), EDITS, st.integers(0, 200)))
def test_foreign_answer_is_walked_cut_and_kept_within_its_bytes(data: bytes) -> None:
    try:
        seen = codec.walk(data)
    except codec.Malformed:
        return
    assert len(seen.records) * 11 <= len(data)
    ends = [record.end for record in seen.records]
    assert ends == sorted(ends) and all(end <= len(data) for end in ends)
    for limit in (512, 40):
        short = codec.truncated(data, limit)
        assert short[:2] == data[:2] and (len(short) <= limit or len(short) <= seen.question_end + 64)
        codec.walk(short)
    cache = Cache(entries=2, size=4096)
    cache.put("key", data, seen, 0.0)
    kept = cache.get("key", 1.0)
    assert kept is None or len(kept) == len(data)


@examples
@given(st.binary(max_size=80))
def test_walk_agrees_with_another_reader_on_what_is_well_formed(data: bytes) -> None:
    raw = RESPONSE[:12] + data
    try:
        dns.message.from_wire(raw)
    except (dns.exception.DNSException, ValueError):
        return
    codec.walk(raw)


labels = st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=6)


@examples
@given(labels)
def test_any_name_in_a_question_is_read_as_lower_case_text(parts: list[bytes]) -> None:
    wire = b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
    data = b"\0\1\1\0\0\1\0\0\0\0\0\0" + wire + b"\0\1\0\1"
    try:
        found = codec.read_query(data)
    except codec.Malformed:
        assert len(wire) > 255
        return
    assert found is not None and found.name == found.name.lower() and found.name.isascii()
    assert found.name.count(".") == len(parts) - 1 and found.end == len(data)
    if all(part.isalnum() and part.isascii() for part in parts):
        assert codec.encode_name(found.name) == wire.lower()
        assert dns.name.from_wire(data, 12)[0].to_text(omit_final_dot=True).lower() == found.name
