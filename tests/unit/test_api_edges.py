"""Where a stream that is passed on may end in a frame of ours: however its bytes are cut."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.channels import Dropped
from api.edges import ChunkEdges, Edges, FrameEdges, NoEdges
from api.hijack import Connection
from api.proxy import join
from model.codec import decode_json
from model.errors import ErrorBody
from model.streams import ERROR, STDOUT, Unframer, pack
from tests.support.pipes import Offered, Transport
from tests.support.waiting import until

LAST = pack(5, b"host one was lost")
PAYLOADS = st.lists(st.binary(max_size=40), max_size=6)


def fed(edges: Edges, data: bytes, cuts: list[int]) -> Edges:
    """After these bytes, in pieces."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for begin, end in pairwise(places):
        edges.feed(data[begin:end])
    return edges


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@given(PAYLOADS, st.lists(st.integers(0, 400)), st.integers(0, 400))
def test_last_frame_of_a_broken_stream_is_understood_or_left_out(
    payloads: list[bytes], cuts: list[int], broken: int
) -> None:
    whole = b"".join(pack(STDOUT, p) for p in payloads)
    passed = whole[: broken % (len(whole) + 1)]
    last = fed(FrameEdges(), passed, cuts).last(LAST)
    frames = Unframer().feed(passed)
    between = sum(8 + len(payload) for _, payload in frames) == len(passed)
    assert last == (LAST if between else b"")


@given(PAYLOADS, st.lists(st.integers(0, 600)), st.integers(0, 600))
def test_last_chunk_of_a_broken_body_is_understood_or_left_out(
    payloads: list[bytes], cuts: list[int], broken: int
) -> None:
    chunks = [chunk(pack(STDOUT, p)) for p in payloads]
    ends = {sum(map(len, chunks[:n])) for n in range(len(chunks) + 1)}
    whole = b"".join(chunks)
    at = broken % (len(whole) + 1)
    last = fed(ChunkEdges(), whole[:at], cuts).last(LAST)
    assert last == (chunk(LAST) + b"0\r\n\r\n" if at in ends else b"")


def test_body_that_is_over_or_no_chunks_gets_no_more() -> None:
    for said in (b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n", b"-5\r\n", b"hello", b"x" * 10_000, b"\r\n"):
        assert fed(ChunkEdges(), said, []).last(LAST) == b""
    assert fed(NoEdges(), b"", []).last(LAST) == b""


async def passed_on(edges: Edges, said: bytes) -> bytes:
    """What a client has when its host is given up after it said this."""
    client, host = Offered(), Offered()
    joined = asyncio.create_task(join(Connection(client.reader, client.writer), host, edges))
    host.reader.feed_data(said)
    await until(lambda: client.transport.said == said, deadline=5)
    host.reader.set_exception(Dropped("host one was lost"))
    host.transport.abort()
    await asyncio.wait_for(joined, 5)
    assert client.transport.closed
    return client.transport.said.removeprefix(said)


async def test_client_of_a_host_that_is_given_up_is_told_in_a_last_frame() -> None:
    last = await passed_on(FrameEdges(), pack(STDOUT, b"line"))
    [(kind, payload)] = Unframer().feed(last)
    assert kind == ERROR and decode_json(payload, ErrorBody).message == "host one was lost"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert await passed_on(ChunkEdges(), chunk(pack(STDOUT, b"line"))) == chunk(last) + b"0\r\n\r\n"
    assert await passed_on(NoEdges(), head) == b""


@pytest.mark.parametrize("edges", [FrameEdges, ChunkEdges])
async def test_client_of_a_host_that_is_given_up_within_a_frame_gets_no_more(edges: type[Edges]) -> None:
    assert await passed_on(edges(), b"\x01\0\0\0\0\0\0\x05half") == b""


class Shut(Transport):
    """A TLS connection that was closed twice: what is written to it fails as nothing else does."""

    def can_write_eof(self) -> bool:
        return False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        raise AttributeError("'NoneType' object has no attribute '_write_appdata'")


async def test_last_words_of_a_host_reach_a_client_that_still_speaks() -> None:
    client, said = Offered(), asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    shut = Shut(protocol)
    shut.closed = True
    host = Connection(said, asyncio.StreamWriter(shut, protocol, said, asyncio.get_running_loop()))
    joined = asyncio.create_task(join(Connection(client.reader, client.writer), host, FrameEdges()))
    client.reader.feed_data(b"said too late")
    await asyncio.sleep(0)
    said.feed_data(pack(STDOUT, b"last words"))
    said.feed_eof()
    await asyncio.wait_for(joined, 5)
    assert client.transport.said == pack(STDOUT, b"last words")
