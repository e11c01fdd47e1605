"""`POST /build` over a fleet of fakes: what hosts are asked for, and what clients are told."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from image.build.base import Session
from model.build import (
    BuildRequest,
    Built,
    Context,
    Done,
)
from model.buildcache import CacheEntry, CachePrune
from model.errors import CommandFailed, InvalidInput
from model.registries import Login
from tests.support.dockerbuilds import TEXT, Ground, build_ground
from tests.support.fakehost import IMAGE_ID
from tests.support.images import member, tar
from tests.support.waiting import until

CONTEXT = tar(member("Dockerfile", TEXT), member("src/a", b"a" * 100_000))
SHORT = IMAGE_ID[7:19]


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with build_ground(tmp_path) as made:
        yield made


async def test_build_of_a_tar_is_told_in_the_classic_builders_lines(ground: Ground) -> None:
    answer = await ground.docker.ask("POST", "/build?t=app&t=app:2&rm=1", data=CONTEXT)
    assert answer.status == 200 and answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.lines == [
        {"stream": "Step 1/4 : FROM box:1\n"},
        {
            "status": "Downloading", "id": "0123456789ab", "progressDetail": {"current": 1, "total": 4},
            "progress": "[============>                                      ]       1B/4B",
        },
        {"stream": " ---> Using cache\n"},
        {"stream": "Step 2/4 : ENV A=b\n"},
        {"stream": "Step 3/4 : RUN echo hi\n"},
        {"stream": "h"},
        {"stream": "é\n"},
        {"stream": "\x1b[91moh\n\x1b[0m"},
        {"stream": "Step 4/4 : CMD sh\n"},
        {"stream": f" ---> {SHORT}\n"},
        {"aux": {"ID": IMAGE_ID}},
        {"stream": f"Successfully built {SHORT}\n"},
        {"stream": "Successfully tagged app:latest\n"},
        {"stream": "Successfully tagged app:2\n"},
    ]  # fmt: skip
    for host in ground.docker.fleet.hosts.values():
        assert {"app", "app:2"} <= host.images.keys()
    [request] = ground.requests
    assert request.names == ("app", "app:2") and request.contexts == (Context(kind="tar"),)


async def test_build_with_every_parameter_asks_a_host_for_it(ground: Ground) -> None:
    logins = {"https://index.docker.io/v1/": {"username": "u", "password": "p"}, "r:1": {"auth": ""}}
    query = {
        "dockerfile": "Dockerfile", "target": "x", "nocache": "1", "pull": "1", "networkmode": "host",
        "buildargs": '{"A": "1", "B": null}', "labels": '{"l": "v"}', "extrahosts": "h:1.2.3.4",
        "shmsize": 1 << 20, "ulimits": '[{"Name": "nofile", "Soft": 1, "Hard": 2}]', "memory": 1 << 28,
        "memswap": -1, "cpushares": 5, "cpusetcpus": "0-1", "cpuquota": 50_000, "cpuperiod": 0,
        "platform": "linux/amd64", "cachefrom": '["a"]', "version": "2", "forcerm": "1",
    }  # fmt: skip
    header = base64.urlsafe_b64encode(json.dumps(logins).encode()).decode()
    answer = await ground.docker.ask(
        "POST", "/build", query=query, data=gzip.compress(CONTEXT), headers={"X-Registry-Config": header}
    )
    assert "error" not in answer.lines[-1], answer.lines
    [request] = ground.requests
    assert (request.target, request.no_cache, request.pull, request.network) == ("x", True, True, "host")
    assert request.args == {"A": "1"} and request.labels == {"l": "v"} and request.allow == ("network.host",)
    assert request.hosts == ("h:1.2.3.4",) and request.ulimits == {"nofile": (1, 2)}
    assert request.resources.nano_cpus == 500_000_000 and request.resources.memory_swap == -1
    assert request.platforms == ("linux/amd64",) and request.shm_size == 1 << 20
    assert request.logins == {"docker.io": Login(user="u", password="p")}


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"squash": "1"}, 400, "squash"),
        ({"cgroupparent": "x"}, 400, "cgroupparent"),
        ({"outputs": "[{}]"}, 400, "outputs"),
        ({"buildargs": "{"}, 400, "buildargs"),
        ({"buildargs": '{"a": 1}'}, 400, "buildargs"),
        ({"ulimits": '[{"Soft": 1}]'}, 400, "ulimits"),
        ({"networkmode": "container:x"}, 400, "networkmode"),
        ({"remote": "/etc"}, 400, "remote"),
        ({"remote": "client-session", "version": "2"}, 400, "session"),
        ({"version": "9"}, 400, "version"),
        ({"memory": "-5"}, 400, "memory"),
        ({"shmsize": "1e12"}, 400, "shmsize"),
        ({"cpuquota": "9" * 30}, 400, "cpuquota"),
        ({"buildargs": "[" * 60_000}, 400, "buildargs"),
        ({"platform": "a b"}, 400, "platform"),
    ],
)
async def test_build_that_is_not_possible_is_refused_before_any_host_is_asked(
    ground: Ground, query: dict[str, str], status: int, words: str
) -> None:
    answer = await ground.docker.ask("POST", "/build", query=query, data=CONTEXT)
    assert answer.status == status and words in answer.json["message"]
    assert not ground.requests


async def test_build_with_a_header_that_holds_no_logins_is_refused(ground: Ground) -> None:
    for text in (b"[1]", b'{"a": {"auth": 5}}', b"no"):
        header = base64.b64encode(text).decode()
        answer = await ground.docker.ask(
            "POST", "/build", data=CONTEXT, headers={"X-Registry-Config": header}
        )
        assert answer.status == 400, header


async def test_quiet_build_says_the_id_alone(ground: Ground) -> None:
    answer = await ground.docker.ask("POST", "/build?q=1", data=CONTEXT)
    assert answer.lines == [{"stream": f"{IMAGE_ID}\n"}]


async def test_build_of_a_repository_leaves_its_context_to_the_host(ground: Ground) -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        return Done(images=(Built(image=IMAGE_ID),))

    for host in ground.docker.fleet.hosts.values():
        host.building = build
    for remote, kind in (
        ("https://h/a.git#main:sub", "git"),
        ("github.com/a/b", "git"),
        ("https://h/a.tar", "http"),
    ):
        await ground.docker.ask("POST", "/build", query={"remote": remote})
        assert ground.requests[-1].contexts == (Context(kind=kind, ref=remote),)  # type: ignore[arg-type]
        for host in ground.docker.fleet.hosts.values():
            host.requests.clear()


async def test_failed_command_is_the_streams_last_message(ground: Ground) -> None:
    failure = CommandFailed("Dockerfile:3: RUN echo hi: exit code 3")
    failure.exit_code, failure.line = 3, 3  # type: ignore[attr-defined]
    ground.builder.fails = failure
    answer = await ground.docker.ask("POST", "/build", data=CONTEXT)
    words = "The command '/bin/sh -c echo hi' returned a non-zero code: 3"
    assert answer.status == 200
    assert answer.lines[-1] == {"errorDetail": {"code": 3, "message": words}, "error": words}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no tar at all" * 100, "no tar"),
        (CONTEXT[:2000], "end"),
        (tar(member("other", b"")), "Dockerfile"),
        (tar(member("Dockerfile", b"FRM box\n")), "FRM"),
        (b"", "empty"),
    ],
)
async def test_build_of_no_context_fails_with_a_status(ground: Ground, data: bytes, words: str) -> None:
    answer = await ground.docker.ask("POST", "/build", data=data)
    assert answer.status == 400, answer.body
    assert words in answer.json["message"]


async def test_client_that_leaves_ends_its_build(ground: Ground) -> None:
    ground.builder.hold.clear()
    asking = asyncio.create_task(ground.docker.ask("POST", "/build", data=CONTEXT))
    await until(lambda: bool(ground.requests), deadline=20)
    asking.cancel()
    await until(lambda: any(host.broken for host in ground.docker.fleet.hosts.values()), deadline=20)
    await until(lambda: not any(ground.docker.fleet.builds.values()), deadline=20)


async def test_build_that_is_cancelled_by_its_id_ends(ground: Ground) -> None:
    ground.builder.hold.clear()
    asking = asyncio.create_task(ground.docker.ask("POST", "/build?buildid=b1", data=CONTEXT))
    await until(lambda: bool(ground.requests), deadline=20)
    assert (await ground.docker.ask("POST", "/build/cancel?id=b1")).status == 204
    answer = await asyncio.wait_for(asking, 20)
    assert b"the build was cancelled" in answer.body  # with a status, or in the stream
    assert (await ground.docker.ask("POST", "/build/cancel?id=b1")).status == 204
    assert (await ground.docker.ask("POST", "/build/cancel")).status == 400


async def test_build_with_very_many_arguments_is_done(ground: Ground) -> None:
    args = {f"NAME{n}": "x" * 100 for n in range(1000)}
    answer = await ground.docker.ask("POST", "/build", query={"buildargs": json.dumps(args)}, data=CONTEXT)
    assert answer.status == 200, answer.body
    assert ground.requests[0].args == args


async def test_large_context_goes_through_at_the_hosts_pace(ground: Ground) -> None:
    data = tar(member("Dockerfile", TEXT), member("big", bytes(64 << 20)))
    answer = await ground.docker.ask("POST", "/build", data=io.BytesIO(data))
    assert answer.lines[-1] == {"stream": f"Successfully built {SHORT}\n"}
    assert ground.builder.objects.size > 64 << 20


async def test_prune_of_builds_takes_age_and_size(ground: Ground) -> None:
    for host in ground.docker.fleet.hosts.values():
        host.cached = [CacheEntry(id=f"{host.name}-1", source="RUN x", size=10, created=5, used=6)]
    usage = (await ground.docker.ask("GET", "/system/df")).json
    assert [entry["ID"] for entry in usage["BuildCache"]] == ["n1-1", "n2-1", "n3-1"]
    query = {"all": 1, "keep-storage": 5, "filters": '{"until": {"24h": true}}'}
    answer = await ground.docker.ask("POST", "/build/prune", query=query)
    assert answer.json == {"CachesDeleted": ["n1-1", "n2-1", "n3-1"], "SpaceReclaimed": 30}
    [wish] = next(iter(ground.docker.fleet.hosts.values())).prunes
    assert wish.all and wish.keep == 5 and abs(wish.unused_for - 86400) < 60
    assert wish == CachePrune(all=True, keep=5, unused_for=wish.unused_for)


async def test_disk_usage_counts_layers_once(ground: Ground) -> None:
    usage = (await ground.docker.ask("GET", "/system/df")).json
    assert usage["LayersSize"] == 1 << 20 and usage["Images"][0]["Containers"] == 0
    assert usage["Containers"] == [] and usage["Volumes"] == []
    only = (await ground.docker.ask("GET", "/system/df?type=volume")).json
    assert list(only) == ["Volumes"]
    assert (await ground.docker.ask("GET", "/system/df?type=moon")).status == 400


async def test_stock_client_builds_a_folder(ground: Ground, tmp_path: Path) -> None:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_bytes(TEXT)
    (folder / "big").write_bytes(bytes(1 << 20))
    (folder / "left-out").write_text("x")
    (folder / ".dockerignore").write_text("left-out\n")
    built = await ground.docker.command(
        "build", "-t", "app:1", "--build-arg", "A=1", str(folder), DOCKER_BUILDKIT="0"
    )
    assert built.code == 0, built.err
    assert f"Successfully built {SHORT}\nSuccessfully tagged app:1\n" in built.out
    [request] = ground.requests
    assert request.names == ("app:1",) and request.args == {"A": "1"}
    piped = await ground.docker.command("build", "-q", "-", stdin=TEXT, DOCKER_BUILDKIT="0")
    assert piped.out == f"{IMAGE_ID}\n", piped.err
    ground.builder.fails = InvalidInput("no such thing")
    failed = await ground.docker.command("build", str(folder), DOCKER_BUILDKIT="0")
    assert failed.code == 1 and "no such thing" in failed.err
    pruned = await ground.docker.command("builder", "prune", "-f")
    assert pruned.code == 0 and "Total reclaimed space: 0B" in pruned.out, pruned.err
    usage = await ground.docker.command("system", "df")
    assert usage.code == 0 and "Build Cache" in usage.out, usage.err
