"""Bytes from an enemy where BuildKit's clients speak: values or a refusal of ours, never anything else."""

from __future__ import annotations

import asyncio
import io
import os
import random
import tarfile
import time
from collections.abc import Callable

import h2.config
import h2.connection

from api.docker.buildkit.control import (
    BridgeSolve,
    CacheOptions,
    Definition,
    PruneRequest,
    Return,
    Solve,
    Typed,
)
from api.docker.buildkit.diffcopy import AHEAD, DiffCopy
from api.docker.buildkit.framing import MAX_MESSAGE, Unframer, frame
from api.docker.buildkit.http2 import Http2, Http2Stream
from api.docker.buildkit.messages import DATA, FIN, REQUEST, STAT, Credentials, Packet, Secret, Stat
from api.docker.buildkit.untar import Untar
from api.docker.buildkit.wire import Message, decode, encode
from model.errors import Damaged, Exhausted, FlotaError, InvalidInput, Unavailable
from tests.support.images import folder, link, member, tar

SECONDS = 60.0 if os.environ.get("FLOTA_FULL") == "1" else 1.5
MESSAGES: tuple[Message, ...] = (
    Solve(
        ref="r",
        session="s",
        frontend="dockerfile.v0",
        attrs={"filename": "F", "build-arg:A": "b"},
        cache=CacheOptions(imports=(Typed(type="registry", attrs={"ref": "c"}),)),
        inputs={"a": Definition(operations=(b"x" * 20,))},
        exporters=(Typed(type="moby", attrs={"name": "n"}),),
    ),
    Packet(type=STAT, stat=Stat(path=b"a/b", mode=0o644, size=300, modified=1, xattrs={"user.x": b"v"})),
    Packet(type=DATA, id=3, data=b"d" * 90),
    BridgeSolve(frontend="dockerfile.v0", options={"a": "b"}),
    Return(),
    PruneRequest(all=True, unused=5),
    Credentials(user="u", secret="p"),
    Secret(data=b"s"),
)


def repeated(once: Callable[[random.Random], int]) -> None:
    """So long as there is time; at least one of them must have come to something."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng, end, read = random.Random(seed), time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        read += once(rng)
    assert read


def damaged(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(300))
    changed = bytearray(data)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(changed) + 1)
        changed[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(4))
    return bytes(changed[: rng.randrange(len(changed) + 1)]) if rng.random() < 0.2 else bytes(changed)


def test_messages_are_decoded_or_refused_in_one_line() -> None:
    def once(rng: random.Random) -> int:
        message = rng.choice(MESSAGES)
        try:
            found = decode(damaged(rng, encode(message)), type(rng.choice((message, rng.choice(MESSAGES)))))
        except InvalidInput as error:
            assert "\n" not in str(error) and len(str(error)) < 300
            return 0
        assert decode(encode(found), type(found)) == found
        return 1

    repeated(once)


def test_frames_of_calls_give_messages_or_a_refusal_and_keep_one_at_most() -> None:
    def once(rng: random.Random) -> int:
        unframer, read = Unframer(), 0
        whole = b"".join(frame(encode(rng.choice(MESSAGES))) for _ in range(rng.randrange(1, 5)))
        data = damaged(rng, whole)
        try:
            for at in range(0, len(data), 23):
                read += len(unframer.feed(data[at : at + 23]))
        except FlotaError as error:
            assert "\n" not in str(error)
        assert len(unframer._buffer) <= MAX_MESSAGE + 28
        return read

    repeated(once)


def test_folder_of_a_client_becomes_a_whole_tar_or_is_refused() -> None:
    def packet(rng: random.Random, asked: list[int]) -> Packet:
        kind = rng.choices((STAT, DATA, FIN, rng.randrange(9)), (5, 8, 1, 1))[0]
        if kind == STAT and rng.random() < 0.8:
            path = rng.choice((b"a", b"a/b", b"../x", b"/etc", b"\xff", b"", b"n\0l", b"p" * 200))
            mode = rng.choice((0o644, 0o4755, 1 << 31 | 0o755, 1 << 27, 1 << 26, 1 << 25, 1 << 24, 0))
            stat = Stat(
                path=path, mode=mode, size=rng.choice((0, 1, 5, 1 << 40, -1)), link=rng.choice((b"", b"a"))
            )
            return Packet(type=STAT, stat=stat)
        if kind == DATA and asked and rng.random() < 0.95:
            return Packet(type=DATA, id=rng.choice(asked), data=rng.choice((b"", b"x", b"12345")))
        return Packet(type=kind, id=rng.randrange(4), data=rng.randbytes(rng.randrange(3)))

    def once(rng: random.Random) -> int:
        copy, out, asked = DiffCopy(), bytearray(), list[int]()
        try:
            for _ in range(rng.randrange(60)):
                for made in copy.take(packet(rng, asked)):
                    if isinstance(made, bytes):
                        out += made
                    elif made.type == REQUEST:
                        asked.append(made.id)
                assert sum(len(part) for file in copy._waiting for part in file.held) <= AHEAD
        except (Damaged, Exhausted, InvalidInput) as error:
            assert "\n" not in str(error)
        if copy.done:
            with tarfile.open(fileobj=io.BytesIO(bytes(out)), mode="r:") as whole:
                whole.getmembers()
        return copy.done

    repeated(once)


def test_tar_of_an_output_is_taken_apart_or_refused() -> None:
    good = tar(folder("a"), member("a/b", b"b" * 2000), link("a/to", "b"), member("z" * 200, b"long"))

    def once(rng: random.Random) -> int:
        untar, left = Untar(), 0
        data = damaged(rng, good)
        size = rng.choice((100, 512, 5000))
        try:
            for at in range(0, len(data), size):
                for made in untar.feed(data[at : at + size]):
                    if isinstance(made, bytes):
                        left -= len(made)
                    else:
                        left = made.size
                    assert left >= 0
            untar.end()
        except (Damaged, Exhausted, InvalidInput) as error:
            assert "\n" not in str(error)
            return 0
        return 1

    repeated(once)


class _Nowhere(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def _conversation() -> bytes:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    for ident in (1, 3, 5):
        head = [
            (":method", "POST"),
            (":path", "/a"),
            (":scheme", "http"),
            (":authority", "x"),
            ("te", "trailers"),
        ]
        client.send_headers(ident, head)
        client.send_data(ident, frame(encode(MESSAGES[0])))
        client.ping(b"12345678")
        client.send_data(ident, b"", end_stream=True)
    client.reset_stream(1)
    return client.data_to_send()


async def test_connection_that_is_no_http2_ends_and_does_nothing_else() -> None:
    good = _conversation()

    async def fed(rng: random.Random) -> int:
        streams: list[Http2Stream] = []
        reader, transport = asyncio.StreamReader(), _Nowhere()
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
        writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
        reader.feed_data(damaged(rng, good))
        reader.feed_eof()
        await Http2(reader, writer, client=False, opened=streams.append).run()
        assert transport.closed
        for stream in streams:
            try:
                while await stream.read():
                    pass
            except Unavailable as error:
                assert "\n" not in str(error)
        return len(streams)

    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng, end, read = random.Random(seed), time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        read += await fed(rng)
    assert read
