"""Protocol Buffers as BuildKit's clients write them, held against bytes that others made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.docker.buildkit.control import Solve, Typed
from api.docker.buildkit.messages import Packet, Stat, StatusResponse, Timestamp, Vertex
from api.docker.buildkit.wire import MAX_DEPTH, MAX_FIELDS, Message, decode, encode, fields, varint
from model.errors import InvalidInput


class Nested(Message):
    below: Message | None = None


Nested.FIELDS = fields((1, "below", Nested))


def test_message_has_the_bytes_of_the_format() -> None:
    assert encode(Packet(type=2, id=300, data=b"hi")) == b"\x08\x02\x18\xac\x02\x22\x02hi"
    assert encode(Packet()) == b""
    stat = Stat(path=b"a/b", mode=0o100644, size=-1, xattrs={"user.a": b"\xff"})
    assert encode(stat) == (
        b"\x0a\x03a/b\x10\xa4\x83\x02\x28" + b"\xff" * 9 + b"\x01" + b"\x52\x0b\x0a\x06user.a\x12\x01\xff"
    )
    vertex = Vertex(digest="d", cached=True, started=Timestamp(seconds=1))
    assert encode(StatusResponse(vertexes=(vertex,))) == b"\x0a\x09\x0a\x01d\x20\x01\x2a\x02\x08\x01"


def test_field_that_no_table_has_is_skipped_and_the_last_of_one_counts() -> None:
    unknown = b"\xf8\x01\x05" + b"\xfa\x01\x03abc" + b"\xfd\x01abcd" + b"\xf9\x01abcdefgh"
    assert decode(unknown + b"\x18\x01" + unknown + b"\x18\x02", Packet) == Packet(id=2)
    assert decode(b"\x32\x05\x0a\x01k\x1a\x00", Solve) == Solve(frontend="\n\x01k\x1a\x00")
    assert decode(b"\x3a\x00", Solve) == Solve(attrs={"": ""})  # an entry that leaves out both


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",  # a number that is not there
        b"\x08" + b"\xff" * 10 + b"\x01",  # of more than 64 bits
        b"\x22\x05abc",  # longer than its message
        b"\x22\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x0b\x0c",  # groups
        b"\x00\x01",  # field 0
        b"\x0a\x01a",  # a text where a number is to be
        b"\x20\x01",  # a number where bytes are to be
        b"\x12\x02\x0a\x05",  # broken within
    ],
)
def test_what_is_no_message_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="malformed Packet"):
        decode(data, Packet)


def test_message_deeper_or_of_more_fields_than_honest_ones_is_refused() -> None:
    data = b""
    for _ in range(MAX_DEPTH + 1):
        data = b"\x0a" + varint(len(data)) + data
    with pytest.raises(InvalidInput, match="deeper"):
        decode(data, Nested)
    with pytest.raises(InvalidInput, match="fields"):
        decode(b"\x18\x01" * (MAX_FIELDS + 1), Packet)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    st.builds(
        Solve,
        ref=TEXTS,
        attrs=st.dictionaries(TEXTS, TEXTS, max_size=5),
        entitlements=st.lists(TEXTS, max_size=3).map(tuple),
        exporters=st.lists(
            st.builds(Typed, type=TEXTS, attrs=st.dictionaries(TEXTS, TEXTS, max_size=3)), max_size=3
        ).map(tuple),
    )
)
def test_message_that_was_encoded_is_decoded_to_itself(message: Solve) -> None:
    assert decode(encode(message), Solve) == message


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=50), st.integers(0, (1 << 32) - 1))
def test_numbers_and_bytes_come_back(size: int, path: bytes, mode: int) -> None:
    stat = Stat(path=path, size=size, mode=mode)
    assert decode(encode(stat), Stat) == stat
