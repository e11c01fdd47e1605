"""The PROXY protocol's header against the specification's own words and sizes, and bytes from an enemy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import InvalidInput
from net.proxy.header import HEAD, MOST_V1, SIGNATURE, UNKNOWN, Header, Version, decode, encode

FOUR = Header(source="192.0.2.7", source_port=56324, destination="192.0.2.11", destination_port=443)
LONGEST = "ffff:f000:ffff:ffff:ffff:ffff:ffff:ffff"
SIX = Header(source=LONGEST, source_port=65535, destination=LONGEST, destination_port=65535)
V2_FOUR = (
    SIGNATURE + bytes.fromhex("2111000c") + bytes((192, 0, 2, 7, 192, 0, 2, 11)) + bytes.fromhex("dc0401bb")
)

VERSIONS: tuple[Version, ...] = ("v1", "v2")
ports = st.integers(0, 65535)
headers = st.sampled_from((4, 6)).flatmap(
    lambda v: st.builds(
        lambda a, b, p, q: Header(source=str(a), source_port=p, destination=str(b), destination_port=q),
        st.ip_addresses(v=v),
        st.ip_addresses(v=v),
        ports,
        ports,
    )
)


@pytest.mark.parametrize(
    ("header", "version", "data"),
    [
        (FOUR, "v1", b"PROXY TCP4 192.0.2.7 192.0.2.11 56324 443\r\n"),
        (FOUR, "v2", V2_FOUR),
        (UNKNOWN, "v1", b"PROXY UNKNOWN\r\n"),
        (UNKNOWN, "v2", SIGNATURE + b"\x20\x00\x00\x00"),
    ],
)
def test_header_is_written_as_the_specification_says(header: Header, version: Version, data: bytes) -> None:
    assert encode(header, version) == data
    assert decode(data + b"GET /") == (header, len(data))


def test_sizes_are_those_of_the_specification() -> None:
    widest = Header(
        source="255.255.255.255", source_port=65535, destination="255.255.255.255", destination_port=65535
    )
    assert len(encode(widest, "v1")) == 56 and len(encode(SIX, "v1")) == 104
    assert len(encode(widest, "v2")) == 28 and len(encode(SIX, "v2")) == 52


@settings(deadline=None)
@given(headers, st.sampled_from(VERSIONS), st.binary(max_size=40))
def test_header_is_read_back_as_it_was_written_whatever_follows(
    header: Header, version: Version, rest: bytes
) -> None:
    data = encode(header, version)
    assert decode(data + rest) == (header, len(data))
    assert len(data) <= MOST_V1


@settings(deadline=None)
@given(headers, st.sampled_from(VERSIONS))
def test_every_beginning_of_a_header_asks_for_more(header: Header, version: Version) -> None:
    data = encode(header, version)
    assert all(decode(data[:size]) is None for size in range(len(data)))


def test_fields_after_the_addresses_are_passed_over() -> None:
    tlv = b"\x04\x00\x03abc"
    data = SIGNATURE + b"\x21\x11" + (12 + len(tlv)).to_bytes(2, "big") + V2_FOUR[HEAD:] + tlv
    assert decode(data + b"rest") == (FOUR, len(data))


def test_what_a_local_or_unix_header_holds_is_ignored() -> None:
    for head in (b"\x20\x11", b"\x21\x00", b"\x21\x31", b"\x21\x12"):
        data = SIGNATURE + head + b"\x00\x05" + b"12345"
        assert decode(data) == (UNKNOWN, len(data))
    line = b"PROXY UNKNOWN ffff:: whatever 7\r\n"
    assert decode(line) == (UNKNOWN, len(line))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\r\n\r\n\x00\r\nQUIX",
        b"PROXY TCP4 192.0.2.7 192.0.2.11 1\r\n",
        b"PROXY TCP4 192.0.2.7  192.0.2.11 1 2\r\n",
        b"PROXY TCP4 fd00::1 fd00::2 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 fd00::2 1 2\r\n",
        b"PROXY TCP4 192.0.2.07 192.0.2.11 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.11 01 2\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.11 1 65536\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.11 +1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 fd00::2 1 2\r\n",
        b"PROXY UDP4 192.0.2.7 192.0.2.11 1 2\r\n",
        b"PROXY TCP4 " + b"1" * MOST_V1,
        SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
        SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
    ],
)
def test_what_the_specification_forbids_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode(data)


@pytest.mark.parametrize(
    "header",
    [
        Header(source="192.0.2.7", destination="fd00::1"),
        Header(source="192.0.2.7", destination="192.0.2.8", source_port=65536),
        Header(source="web", destination="192.0.2.8"),
        Header(source="fe80::1%eth0", destination="fe80::2"),
    ],
)
def test_header_that_can_not_be_is_not_written(header: Header) -> None:
    with pytest.raises(InvalidInput):
        encode(header, "v2")
