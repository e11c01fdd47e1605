"""A build's connection at its host: questions and answers, clients that vanish, dawdle or make things up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.build.link import Link
from agent.build.session import Build, serve
from image.build.base import Session
from image.dockerfile.faults import DockerfileFault
from image.dockerfile.instruction import Spot
from model.build import (
    WINDOW,
    AskSecret,
    BuildRequest,
    Context,
    Done,
    Exported,
    Failed,
    FromClient,
    Object,
    OpenSsh,
    Scan,
    Scanned,
    Secret,
    SendTar,
    ShellBegan,
    SshData,
    Start,
    StepSaid,
    Taken,
    Typed,
    Want,
)
from model.errors import ErrorBody, InvalidInput, NotFound
from tests.support.buildclient import BuildClient, connected
from tests.support.waiting import until

REQUEST = BuildRequest(dockerfile=b"FROM scratch\n", secrets=("key",), ssh=("default",))
DIGESTS = ("sha256:" + "1" * 64, "sha256:" + "2" * 64)


async def bring(link: Link, context: str, paths: Sequence[str]) -> str:
    """As a host does that has nothing: scan, then want two objects."""
    scanned = await link.scan(context, tuple(paths))
    if scanned.error is not None:
        raise scanned.error.to_error()
    got: dict[str, bytes] = dict.fromkeys(DIGESTS, b"")
    async for piece in link.want(context, DIGESTS):
        got[piece.digest] += piece.data
    return scanned.root + ":" + ",".join(f"{len(data)}" for data in got.values())


@contextlib.asynccontextmanager
async def served(
    build: Build, request: BuildRequest = REQUEST, sockets: Path | None = None
) -> AsyncIterator[BuildClient]:
    client, reader, writer = await connected()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(
            serve(reader, writer, build, bring, sockets=str(sockets) if sockets else None)
        )
        client.say(Start(request=request))
        yield client
        client.close()
        async with asyncio.timeout(20):
            await asyncio.wait((task,))
        writer.close()
        assert not task.cancelled()


async def test_build_that_is_done_is_told_last() -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        session.tell(StepSaid(step=1, data=b"hello"))
        return Done(names=request.names, host="n1")

    async with served(build, BuildRequest(dockerfile=b"", names=("a:1",))) as client:
        assert (await client.hear(Done)).names == ("a:1",)
        assert client.heard == [StepSaid(step=1, data=b"hello")]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InvalidInput("no", hint="do"), Failed(error=ErrorBody(
            code="invalid_input", message="no", hint="do"))),
        (ValueError("boom"), Failed(error=ErrorBody(
            message="internal error", hint="The log of the host's agent has the details"))),
    ],
)  # fmt: skip
async def test_build_that_fails_says_why(error: Exception, told: Failed) -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        raise error

    async with served(build) as client:
        assert await client.hear(Failed) == told


async def test_fault_of_a_dockerfile_has_its_line() -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        raise DockerfileFault("what is this", Spot(line=7, column=3))

    async with served(build) as client:
        failed = await client.hear(Failed)
        assert failed.line == 7 and failed.error.message == "Dockerfile:7:3: what is this"


async def test_context_is_scanned_and_its_objects_come_in_pieces() -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        return Done(digest=await session.scan("", ["src"]))

    async with served(build) as client:
        scan = await client.hear(Scan)
        assert scan.paths == ("src",)
        client.say(Scanned(ask=scan.ask, root="root"))
        want = await client.hear(Want)
        assert want.digests == DIGESTS
        first, second = DIGESTS
        client.say(Object(ask=want.ask, digest=first, data=b"x" * 100_000))
        client.say(Object(ask=want.ask, digest=first, data=b"y", last=True))
        client.say(Object(ask=want.ask, digest=second, gone="it is away"))
        assert (await client.hear(Done)).digest == "root:100001,0"


async def test_error_of_a_scan_is_the_builds() -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        await session.scan("", [])
        return Done()

    async with served(build) as client:
        scan = await client.hear(Scan)
        client.say(Scanned(ask=scan.ask, error=ErrorBody.of(NotFound("no such folder"))))
        assert (await client.hear(Failed)).error.message == "no such folder"


async def test_secret_is_asked_for_only_if_the_client_has_it() -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        assert await session.secret("other") is None
        value = await session.secret("key")
        return Done(digest=(value or b"").decode())

    async with served(build) as client:
        ask = await client.hear(AskSecret)
        assert ask.ident == "key"
        client.say(Secret(ask=ask.ask, value=b"s3cret"))
        assert (await client.hear(Done)).digest == "s3cret"


async def test_ssh_agent_is_reached_by_a_socket_and_its_end_is_passed_on(tmp_path: Path) -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        with pytest.raises(NotFound, match="was not given the SSH agent 'other'"):
            async with session.ssh("other"):
                pass
        async with session.ssh("default") as path:
            assert Path(path).parent.parent == tmp_path
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"ask")
            answer = await reader.readexactly(6)
            writer.close()
            assert await reader.read() == b""
        with pytest.raises(OSError):
            await asyncio.open_unix_connection(path)
        return Done(digest=answer.decode())

    async with served(build, sockets=tmp_path) as client:
        opened = await client.hear(OpenSsh)
        assert opened.ident == "default"
        assert (await client.hear(SshData)).data == b"ask"
        client.say(SshData(channel=opened.channel, data=b"answer"))
        assert (await client.hear(SshData)).data == b""
        client.say(SshData(channel=opened.channel))
        assert (await client.hear(Done)).digest == "answer"


async def test_output_is_sent_no_faster_than_it_is_taken() -> None:
    sent = 0

    async def data() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(40):
            sent += 1 << 20
            yield bytes(1 << 20)

    async def build(request: BuildRequest, session: Session) -> Done:
        await session.send(0, data())
        return Done()

    async with served(build) as client:
        got = 0
        while got < WINDOW:
            got += len((await client.hear(Exported)).data)
        await until(lambda: sent > WINDOW, deadline=20)
        assert sent <= WINDOW + (2 << 20)
        client.say(Taken(size=got))
        while not (piece := await client.hear(Exported)).last:
            got += len(piece.data)
            client.say(Taken(size=len(piece.data)))
        assert got == 40 << 20
        await client.hear(Done)


async def test_shell_hears_what_is_typed_until_its_end() -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        typed = [one.data async for one in await session.shell(3)]
        return Done(digest=b"".join(typed).decode())

    async with served(build) as client:
        assert (await client.hear(ShellBegan)).step == 3
        client.say(Typed(data=b"ls\n"), Typed(data=b"exit\n"), Typed())
        assert (await client.hear(Done)).digest == "ls\nexit\n"


async def test_host_ends_the_connection_after_its_client() -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        return Done()

    client, reader, writer = await connected()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(reader, writer, build, bring))
        client.say(Start(request=REQUEST))
        await client.hear(Done)
        client.say(Taken(size=5))  # on its way when the build was done
        done, _ = await asyncio.wait((task,), timeout=0.2)
        assert not done
        client.close()
        await asyncio.wait_for(task, 3)
    writer.close()


async def test_client_that_leaves_ends_its_build() -> None:
    ended = asyncio.Event()

    async def build(request: BuildRequest, session: Session) -> Done:
        session.tell(StepSaid(step=1, data=b"on"))
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return Done()

    async with served(build) as client:
        await client.hear(StepSaid)
        client.close()
        await asyncio.wait_for(ended.wait(), 20)


async def test_client_that_reads_no_more_hinders_no_build_and_is_told_what_it_missed() -> None:
    over = asyncio.Event()

    async def build(request: BuildRequest, session: Session) -> Done:
        for _ in range(500):
            session.tell(StepSaid(step=1, data=b"x" * 100_000))
            await asyncio.sleep(0)
        over.set()
        return Done()

    async with served(build) as client:
        await asyncio.wait_for(over.wait(), 20)  # nothing was read
        await client.hear(Done)
        said = [m for m in client.heard if isinstance(m, StepSaid)]
        assert sum(len(m.data) for m in said) < 8 << 20
        assert any(b"bytes of output were left out" in m.data for m in said)


@pytest.mark.parametrize(
    "said",
    [
        Scanned(ask=7, root="x"),
        Object(ask=9, digest="x"),
        Secret(ask=0),
        SshData(channel=3, data=b"x"),
        Typed(data=b"x"),
        Taken(size=1),
        Start(request=REQUEST),
    ],
    ids=lambda said: type(said).__name__,
)
async def test_client_that_says_what_it_was_not_asked_is_refused(said: FromClient) -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        await asyncio.Event().wait()
        return Done()

    async with served(build) as client:
        client.say(said)
        assert (await client.hear(Failed)).error.code == "invalid_input"


async def test_noise_is_refused_in_words() -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        raise AssertionError("nothing was asked for")

    client, reader, writer = await connected()
    client.writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await asyncio.wait_for(serve(reader, writer, build, bring), 20)
    assert "malformed stream of a build" in (await client.hear(Failed)).error.message
    client.close()
    writer.close()


async def test_client_that_says_nothing_is_sent_away() -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        raise AssertionError("nothing was asked for")

    client, reader, writer = await connected()
    await asyncio.wait_for(serve(reader, writer, build, bring, within=0.05), 20)
    assert "is to begin with" in (await client.hear(Failed)).error.message
    client.close()
    writer.close()


def test_request_of_a_local_context_is_the_default() -> None:
    assert BuildRequest(dockerfile=b"").contexts == (Context(kind="local"),)


async def as_tar(link: Link, context: str, paths: Sequence[str]) -> str:
    return f"{len(b''.join([piece async for piece in link.tar(context)]))} of {context}"


@contextlib.asynccontextmanager
async def sending(*pieces: Object) -> AsyncIterator[BuildClient]:
    """A client that was asked for a tar, and answers with these."""

    async def build(request: BuildRequest, session: Session) -> Done:
        return Done(digest=await session.scan("main", ()))

    client, reader, writer = await connected()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(reader, writer, build, as_tar))
        client.say(Start(request=REQUEST))
        asked = await client.hear(SendTar)
        assert asked.context == "main"
        client.say(*(replace(piece, ask=asked.ask) for piece in pieces))
        yield client
        client.close()
        async with asyncio.timeout(20):
            await asyncio.wait((task,))
        writer.close()


async def test_tar_comes_in_pieces_until_the_last() -> None:
    piece = Object(ask=0, digest="", data=b"x" * 100_000)
    async with sending(*[piece] * 50, Object(ask=0, digest="", last=True)) as client:
        assert (await client.hear(Done)).digest == "5000000 of main"


async def test_tar_that_breaks_off_fails_the_build_in_words() -> None:
    piece = Object(ask=0, digest="", data=b"x")
    async with sending(piece, Object(ask=0, digest="", gone="the client has gone")) as client:
        failed = await client.hear(Failed)
        assert failed.error.message == "the build context ended too early: the client has gone"
