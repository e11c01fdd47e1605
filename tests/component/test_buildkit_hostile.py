"""Sessions whose client does not do what it is asked: the build fails in words, the fleet goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from api.docker.buildkit.asking import CREDENTIALS
from api.docker.buildkit.control import Solve, Solved
from api.docker.buildkit.front import SECRETS
from api.docker.buildkit.grpc import Handler, ServerCall
from api.docker.buildkit.messages import (
    DATA,
    ERROR,
    FIN,
    Credentials,
    Host,
    Ident,
    Packet,
    Secret,
    Stat,
)
from api.docker.buildkit.services import CONTROL
from image.build.base import Session
from model.build import BuildRequest
from model.errors import FlotaError, NotFound
from tests.support.buildkitclient import DIFFCOPY, gives, grpc, session, upgraded
from tests.support.dockerbuilds import TEXT, Ground, build_ground

PATIENCE = 60
FILES = {"dockerfile": {"Dockerfile": TEXT}, "context": {"Dockerfile": TEXT, "a": b"a" * 90_000}}
WANTED = Solve(ref="r1", session="s1", frontend="dockerfile.v0")


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with build_ground(tmp_path) as made:
        yield made


async def outcome(ground: Ground, handlers: Mapping[str, Handler], wanted: Solve = WANTED) -> str:
    """How the build failed; empty: not at all."""
    async with session(ground.docker.path, "s1", handlers), grpc(ground.docker.path) as channel:
        try:
            await channel.ask(f"{CONTROL}Solve", wanted, Solved, within=PATIENCE)
        except FlotaError as error:
            return str(error)
        return ""


async def works(ground: Ground) -> bool:
    return await outcome(ground, {DIFFCOPY: gives(FILES)}) == ""


def says(*packets: Packet) -> Handler:
    async def diffcopy(call: ServerCall) -> None:
        for packet in packets:
            await call.send(packet)
        await asyncio.Event().wait()

    return diffcopy


@pytest.mark.parametrize(
    ("packets", "words"),
    [
        ((Packet(type=DATA, id=0, data=b"x"),), "not asked for"),
        ((Packet(type=FIN),), "out of turn"),
        ((Packet(type=ERROR, data=b"open Dockerfile: permission denied"),), "permission denied"),
        ((Packet(stat=Stat(path=b"a" * 5000)),), "no possible name"),
        ((Packet(stat=Stat(path=b"Dockerfile", size=1 << 60)), Packet(), Packet(type=DATA)), "changed while"),
    ],
)
async def test_client_that_breaks_the_folders_protocol_fails_its_own_build(
    ground: Ground, packets: tuple[Packet, ...], words: str
) -> None:
    assert words in await outcome(ground, {DIFFCOPY: says(*packets)})
    assert await works(ground)


async def test_dockerfile_larger_than_any_is_refused(ground: Ground) -> None:
    files = {"dockerfile": {"Dockerfile": b"#" * (1 << 21)}, "context": {}}
    assert "more than" in await outcome(ground, {DIFFCOPY: gives(files)})
    assert await works(ground)


async def test_client_that_serves_no_folder_is_told_so(ground: Ground) -> None:
    assert "gives no folders" in await outcome(ground, {})
    assert not ground.requests


@pytest.mark.parametrize("size", [100, 600_000])
async def test_secret_of_a_client_is_bounded(ground: Ground, size: int) -> None:
    got: list[bytes | None] = []

    async def ask(request: BuildRequest, session: Session) -> None:
        got.append(await session.secret("s"))

    async def secret(call: ServerCall) -> None:
        await call.asked(Ident)
        await call.send(Secret(data=b"x" * size))

    ground.builder.during = ask
    said = await outcome(ground, {DIFFCOPY: gives(FILES), SECRETS: secret})
    assert said == "" and got == [b"x" * size] if size == 100 else "are the most" in said and not got


async def test_login_that_the_client_refuses_is_none(ground: Ground) -> None:
    async def credentials(call: ServerCall) -> None:
        if (await call.asked(Host)).host == "registry-1.docker.io":
            raise NotFound("there is none")
        await call.send(Credentials(user="u", secret="p"))

    files = {"dockerfile": {"Dockerfile": b"FROM r.example/a\n"}, "context": {}}
    assert await outcome(ground, {DIFFCOPY: gives(files), CREDENTIALS: credentials}) == ""
    assert list(ground.requests[0].logins) == ["r.example"]


async def test_messages_of_a_session_that_are_none_fail_the_build(ground: Ground) -> None:
    async def noise(call: ServerCall) -> None:
        await call._stream.send(b"\0\0\0\0\2\x0a\xff")
        await asyncio.Event().wait()

    assert "malformed Packet" in await outcome(ground, {DIFFCOPY: noise})
    assert await works(ground)


@pytest.mark.parametrize("where", ["/session", "/grpc"])
async def test_flood_of_frames_that_ask_for_nothing_ends_the_connection(ground: Ground, where: str) -> None:
    ident = "X-Docker-Expose-Session-Uuid: s9"
    async with upgraded(ground.docker.path, where, ident) as (reader, writer):
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" if where == "/grpc" else b"")
        writer.write(b"\0\0\0\4\0\0\0\0\0")
        reading = asyncio.create_task(_ended(reader))
        try:
            for _ in range(1000):
                writer.write(b"\0\0\x08\6\0\0\0\0\0ping-now" * 100)
                await asyncio.wait_for(writer.drain(), PATIENCE)
        except OSError:
            pass
        await asyncio.wait_for(reading, PATIENCE)
    assert await works(ground)


async def _ended(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(1 << 16):
            pass
    except OSError:
        pass
