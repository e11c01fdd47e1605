"""`/grpc` and `/session` over a fleet of fakes: a client as buildx is one, and hostile ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import pytest

from api.docker.buildkit.control import (
    BridgeSolve,
    BridgeSolved,
    Definition,
    DiskUsage,
    Pong,
    PruneRequest,
    Ref,
    Return,
    Solve,
    Solved,
    Status,
    Typed,
    Usage,
    UsageRequest,
    Workers,
)
from api.docker.buildkit.grpc import Channel
from api.docker.buildkit.messages import Empty, StatusResponse
from api.docker.buildkit.services import BRIDGE, BUILD_ID, CONTROL
from api.docker.buildkit.wire import Message
from model.buildcache import CacheEntry, CachePrune
from model.errors import FlotaError, InvalidInput, Unavailable, Unsupported
from tests.support.buildkitclient import DIFFCOPY, gives, grpc, session, upgraded
from tests.support.dockerbuilds import TEXT, Ground, build_ground
from tests.support.fakehost import IMAGE_ID
from tests.support.waiting import until

PATIENCE = 60
M = TypeVar("M", bound=Message)
FILES = {"dockerfile": {"Dockerfile": TEXT}, "context": {"Dockerfile": TEXT, "a": b"a" * 90_000}}
SOLVE = Solve(ref="r1", session="s1", exporters=(Typed(type="moby", attrs={"name": "app:1"}),))


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with build_ground(tmp_path) as made:
        yield made


async def bridged(channel: Channel, method: str, question: Message, type_: type[M]) -> M:
    async with channel.call(f"{BRIDGE}{method}", [(BUILD_ID, "r1")]) as call:
        await call.send(question)
        await call.sent()
        answer = await call.receive(type_)
        assert answer is not None
        await call.receive(type_)
        return answer


async def watched(channel: Channel, ref: str = "r1") -> list[StatusResponse]:
    """All that is told of a build, to its end."""
    found: list[StatusResponse] = []
    async with channel.call(f"{CONTROL}Status") as call:
        await call.send(Ref(ref=ref))
        await call.sent()
        while (status := await call.receive(StatusResponse)) is not None:
            found.append(status)
    return found


async def failed(channel: Channel, wanted: Solve) -> FlotaError:
    try:
        await channel.ask(f"{CONTROL}Solve", wanted, Solved, within=PATIENCE)
    except FlotaError as error:
        return error
    raise AssertionError("it did not fail")


async def test_client_that_solves_by_its_own_function_gets_an_image_and_its_progress(ground: Ground) -> None:
    path = ground.docker.path
    async with session(path, "s1", {DIFFCOPY: gives(FILES)}), grpc(path) as channel:
        workers = await channel.ask(f"{CONTROL}ListWorkers", Empty(), Workers, within=PATIENCE)
        assert workers.workers[0].platforms[0].os == "linux"
        async with asyncio.TaskGroup() as group:
            told = group.create_task(watched(channel))  # before there is a build
            solving = group.create_task(channel.ask(f"{CONTROL}Solve", SOLVE, Solved, within=PATIENCE))
            pong = await bridged(channel, "Ping", Empty(), Pong)
            assert "return" in {one.id for one in pong.capabilities}
            options = {"filename": "Dockerfile", "build-arg:A": "b"}
            solved = await bridged(
                channel, "Solve", BridgeSolve(frontend="dockerfile.v0", options=options), BridgeSolved
            )
            assert solved.result is not None
            await bridged(channel, "Return", Return(result=solved.result), Empty)
        response = solving.result().response
        assert response["containerimage.digest"] == response["containerimage.config.digest"] == IMAGE_ID
        names = [vertex.name for status in told.result() for vertex in status.vertexes if vertex.completed]
        assert names[0] == "[internal] load build definition from Dockerfile" and "[2/2] RUN echo hi" in names
    [request] = ground.requests
    assert request.names == ("app:1",) and request.args == {"A": "b"} and request.dockerfile == TEXT


async def test_client_whose_function_fails_hears_that_from_its_solve(ground: Ground) -> None:
    async with grpc(ground.docker.path) as channel, asyncio.TaskGroup() as group:
        solving = group.create_task(failed(channel, SOLVE))
        error = Status(code=3, message="the function is wrong")
        await bridged(channel, "Return", Return(error=error), Empty)
        assert "the function is wrong" in str(await solving)


async def test_client_that_leaves_ends_its_build(ground: Ground) -> None:
    ground.builder.hold.clear()
    path = ground.docker.path
    wanted = Solve(ref="r1", session="s1", frontend="dockerfile.v0")
    async with session(path, "s1", {DIFFCOPY: gives(FILES)}):
        async with grpc(path) as channel, channel.call(f"{CONTROL}Solve") as call:
            await call.send(wanted)
            await until(lambda: bool(ground.requests), deadline=PATIENCE, what="a build")
        hosts = ground.docker.fleet.hosts.values()
        await until(lambda: any(host.broken for host in hosts), deadline=PATIENCE, what="its end")


async def test_client_whose_session_breaks_hears_so(ground: Ground) -> None:
    path = ground.docker.path
    async with grpc(path) as channel:
        asked = asyncio.Event()

        async def stuck(call: object) -> None:
            asked.set()
            await asyncio.Event().wait()

        async with asyncio.TaskGroup() as group:
            wanted = Solve(ref="r1", session="s1", frontend="dockerfile.v0")
            async with session(path, "s1", {DIFFCOPY: stuck}):
                solving = group.create_task(failed(channel, wanted))
                await asyncio.wait_for(asked.wait(), PATIENCE)
            assert isinstance(await solving, Unavailable)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Solve(ref="", session="s1", frontend="dockerfile.v0"), "without a ref"),
        (Solve(ref="r", session="s1", frontend="gateway.v0"), "gateway.v0"),
        (Solve(ref="r", session="s1", definition=Definition(operations=(b"x",))), "LLB"),
        (Solve(ref="r", session="", frontend="dockerfile.v0"), "session"),
        (Solve(ref="r", session="s1", frontend="dockerfile.v0", policy=b"\x08\x01"), "policy"),
        (Solve(ref="r", session="s1", frontend="dockerfile.v0", attrs={"odd": "1"}), "odd"),
        (Solve(ref="r", session="s1", frontend="dockerfile.v0", attrs={"filename": "x"}), "open x"),
    ],
)
async def test_build_that_can_not_be_done_is_refused_in_words(
    ground: Ground, wanted: Solve, words: str
) -> None:
    path = ground.docker.path
    async with session(path, "s1", {DIFFCOPY: gives(FILES)}), grpc(path) as channel:
        assert words in str(await failed(channel, wanted))
        with pytest.raises(Unsupported, match="not served"):
            await channel.ask(f"{CONTROL}UpdateBuildHistory", Empty(), Empty, within=PATIENCE)
    assert not ground.requests


async def test_build_cache_of_all_hosts_is_told_and_pruned(ground: Ground) -> None:
    hosts = ground.docker.fleet.hosts.values()
    for host in hosts:
        host.cached = [CacheEntry(id=f"{host.name}-1", source="RUN x", size=10, created=5, used=6)]
    async with grpc(ground.docker.path) as channel:
        usage = await channel.ask(f"{CONTROL}DiskUsage", UsageRequest(), DiskUsage, within=PATIENCE)
        assert {one.id: one.size for one in usage.records} == {"n1-1": 10, "n2-1": 10, "n3-1": 10}
        freed: list[Usage] = []
        async with channel.call(f"{CONTROL}Prune") as call:
            await call.send(PruneRequest(all=True, unused=60_000_000_000))
            await call.sent()
            while (one := await call.receive(Usage)) is not None:
                freed.append(one)
        assert sorted(one.id for one in freed) == ["n1-1", "n2-1", "n3-1"]
        assert sum(one.size for one in freed) == 30
        with pytest.raises(Unsupported, match="filter"):
            asked = UsageRequest(filters=("type==regular",))
            await channel.ask(f"{CONTROL}DiskUsage", asked, DiskUsage, within=PATIENCE)
    assert [host.prunes for host in hosts] == [[CachePrune(all=True, unused_for=60.0)]] * 3


async def test_second_session_of_one_id_is_refused_and_the_first_goes_on(ground: Ground) -> None:
    path = ground.docker.path
    async with session(path, "s1", {DIFFCOPY: gives(FILES)}):
        with pytest.raises(AssertionError, match="409"):
            async with session(path, "s1", {}):
                pass
        answer = await ground.docker.ask("POST", "/session")
        assert answer.status == 400 and "h2c" in answer.json["message"]
        with pytest.raises(AssertionError, match="names no session"):
            async with session(path, "", {}):
                pass
        async with grpc(path) as channel:
            wanted = Solve(ref="r1", session="s1", frontend="dockerfile.v0")
            await channel.ask(f"{CONTROL}Solve", wanted, Solved, within=PATIENCE)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + b"\xff\xff\xff\0\0\0\0\0\1",
        b"",
    ],
)
async def test_what_is_no_http2_ends_its_connection_alone(ground: Ground, data: bytes) -> None:
    async with upgraded(ground.docker.path, "/grpc") as (reader, writer):
        writer.write(data)
        if not data:
            writer.close()
        while await asyncio.wait_for(reader.read(1 << 16), PATIENCE):
            pass
    async with grpc(ground.docker.path) as channel:
        await channel.ask(f"{CONTROL}ListWorkers", Empty(), Workers, within=PATIENCE)


async def test_client_that_gives_up_calls_without_end_is_cut_off(ground: Ground) -> None:
    async with grpc(ground.docker.path) as channel:
        with pytest.raises(Unavailable):
            for _ in range(5000):
                async with channel.call(f"{CONTROL}Status"):
                    pass


async def test_message_that_is_none_is_refused(ground: Ground) -> None:
    async with grpc(ground.docker.path) as channel, channel.call(f"{CONTROL}Solve") as call:
        await call._stream.send(b"\0\0\0\0\1\x08")
        await call.sent()
        with pytest.raises(InvalidInput, match="malformed Solve"):
            await call.receive(Solved)
    async with grpc(ground.docker.path) as channel, channel.call(f"{CONTROL}Solve") as call:
        await call._stream.send(b"\0\xff\xff\xff\xff")
        with pytest.raises(InvalidInput, match="are the most"):
            await call.receive(Solved)
