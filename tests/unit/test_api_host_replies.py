"""A host's replies as the controller reads them: whatever a host says, what is kept of it is bounded."""

from __future__ import annotations

import asyncio

import pytest

from api.channels import Dropped
from api.hijack import Connection
from api.hostcall import MAX_LINE, MAX_REPLY, Reply, ask_for, read_head
from api.http1 import ProtocolError, body_size, chunk_size
from model.errors import Internal, Unavailable
from model.ids import HostId
from tests.support.fakeports import FakeFleet
from tests.support.pipes import Offered

CHUNKED = {"transfer-encoding": "chunked"}
SIZES = ["-5", "+5", "0x5", "1_0", " 5", "", "5 5", "5, 5", "٣", "1" * 17]


def reply(headers: dict[str, str], said: bytes, *, ended: bool = False) -> Reply:
    """What a host said so far; one that goes on is waited for."""
    reader = asyncio.StreamReader()
    reader.feed_data(said)
    if ended:
        reader.feed_eof()
    return Reply(reader, 200, headers)


@pytest.mark.parametrize("text", SIZES)
def test_length_that_is_no_digits_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="malformed length"):
        body_size(text)


@pytest.mark.parametrize("text", [*SIZES, "5g", ";x=y", "f f"])
def test_chunk_size_that_is_no_hex_digits_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="malformed chunk"):
        chunk_size(text.encode())


@pytest.mark.parametrize(
    ("line", "size"),
    [(b"0\r\n", 0), (b"1f\r\n", 31), (b"Aa", 170), (b"005", 5), (b"5;name=value\r\n", 5), (b"5 ;x\r\n", 5)],
)
def test_chunk_size_is_read_past_its_extensions(line: bytes, size: int) -> None:
    assert chunk_size(line) == size


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"content-length": "-5"}, b"x" * 100),
        ({"content-length": "five"}, b"x" * 100),
        (CHUNKED, b"-5\r\n" + b"x" * 100),
        (CHUNKED, b"2\r\nok\r\n-1\r\n" + b"x" * 100),
        (CHUNKED, b"\r\n" + b"x" * 100),
    ],
)
async def test_reply_of_a_malformed_size_is_refused_and_not_read_on(
    headers: dict[str, str], said: bytes
) -> None:
    with pytest.raises(Internal, match="a host's reply can't be read: the reply has a malformed"):
        await asyncio.wait_for(reply(headers, said).body(), 5)


@pytest.mark.parametrize(
    ("headers", "said"),
    [({"content-length": "5"}, b"four"), (CHUNKED, b"5\r\nfour"), (CHUNKED, b"4\r\nfour\r\n")],
)
async def test_reply_that_breaks_off_is_unavailable(headers: dict[str, str], said: bytes) -> None:
    with pytest.raises(Unavailable, match="broke off"):
        await reply(headers, said, ended=True).body()


async def test_reply_of_a_host_that_is_given_up_says_so() -> None:
    found = reply(CHUNKED, b"5\r\nfo")
    reading = asyncio.create_task(found.body())
    await asyncio.sleep(0)
    found._reader.set_exception(Dropped("host one was lost"))
    with pytest.raises(Unavailable, match="host one was lost"):
        await asyncio.wait_for(reading, 1)


async def test_call_on_a_host_that_is_given_up_before_its_answer_says_so() -> None:
    pipe = Offered()
    pipe.reader.feed_data(b"HTTP/1.1 200 OK\r\n")
    asking = asyncio.create_task(read_head(pipe))
    await asyncio.sleep(0)
    pipe.reader.set_exception(Dropped("host one was lost"))
    pipe.transport.abort()
    with pytest.raises(Unavailable, match="host one was lost"):
        await asyncio.wait_for(asking, 1)


async def test_lines_are_whole_whatever_the_chunks() -> None:
    chunks = (b"a", b"b\nc\n", b"\n", b"d\ne", b"f")
    said = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"
    assert [line async for line in reply(CHUNKED, said).lines()] == [b"ab", b"c", b"d", b"ef"]


async def test_line_without_end_is_refused_at_the_bound() -> None:
    said = bytes(MAX_REPLY + MAX_LINE)
    with pytest.raises(Internal, match="a line without end"):
        await anext(reply({"content-length": str(len(said))}, said).lines())


class Silent(FakeFleet):
    """Its hosts begin a reply and do not go on."""

    async def open_pipe(self, host: HostId) -> Connection:
        pipe = Offered()
        pipe.reader.feed_data(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[")
        return Connection(pipe.reader, pipe.writer)


async def test_list_of_a_host_that_does_not_finish_is_given_up() -> None:
    with pytest.raises(Unavailable, match=r"not here after 0\.01 s"):
        await asyncio.wait_for(ask_for(Silent(0), HostId("h"), "GET", "/", list[int], within=0.01), 5)
