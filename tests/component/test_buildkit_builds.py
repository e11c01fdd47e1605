"""Builds of the stock docker command with DOCKER_BUILDKIT=1, over a fleet of fakes: sessions are real."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from image.build.base import Session
from image.context.find import find
from model.build import BuildRequest, CacheWay
from model.contexttree import Entry
from model.errors import InvalidInput
from model.registries import Login
from tests.support.dockerbuilds import TEXT, Ground, build_ground
from tests.support.dockersocket import CLIENT, Ended
from tests.support.fakehost import IMAGE_ID
from tests.support.images import folder as directory
from tests.support.images import link, member, tar
from tests.support.waiting import until


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with build_ground(tmp_path) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "app"
    (made / "src").mkdir(parents=True)
    (made / "Dockerfile").write_bytes(TEXT)
    (made / "src" / "a").write_bytes(b"a" * 3_000_000)
    (made / "src" / "empty").touch()
    (made / "kept").write_text("kept")
    (made / "left").write_text("left")
    (made / "link").symlink_to("kept")
    (made / "twin").hardlink_to(made / "kept")
    (made / "kept").chmod(0o4755)
    (made / ".dockerignore").write_text("# no\nleft\n")
    return made


async def build(ground: Ground, *words: str, stdin: bytes = b"") -> Ended:
    return await ground.docker.command(
        "build", "--progress=plain", *words, stdin=stdin, home=str(Path(ground.docker.path).parent),
        DOCKER_BUILDKIT="1",
    )  # fmt: skip


async def test_build_with_buildkit_sends_its_folder_and_shows_each_step(ground: Ground, folder: Path) -> None:
    roots: list[str] = []

    async def scan(request: BuildRequest, session: Session) -> None:
        roots.append(await session.scan("", ()))

    ground.builder.during = scan
    ended = await build(ground, "-t", "app", "--iidfile", str(folder.parent / "iid"), str(folder))
    assert ended.code == 0, ended.err
    assert "[2/2] RUN echo hi" in ended.err and "hé" in ended.err and "CACHED" in ended.err
    assert (folder.parent / "iid").read_text() == IMAGE_ID
    [request] = ground.requests
    assert request.names == ("app",) and request.dockerfile == TEXT
    tree = ground.builder.objects.tree

    def entry(path: str) -> Entry:
        return find(tree, roots[0], path)

    names = {one.name for one in tree(roots[0]).entries}
    assert names == {b"Dockerfile", b".dockerignore", b"src", b"kept", b"link", b"twin"}
    assert entry("src/a").size == 3_000_000 and entry("src/empty").size == 0
    assert entry("twin").digest == entry("kept").digest and entry("kept").mode == 0o4755


async def test_build_with_buildkit_says_all_that_its_flags_say(ground: Ground, folder: Path) -> None:
    ended = await build(
        ground, "-t", "a:1", "-t", "b:2", "--target", "t", "--build-arg", "A=b", "--label", "l=v",
        "--no-cache",
        "--pull", "--network", "none", "--add-host", "h:192.0.2.1", "--cache-from", "c:1",
        "--shm-size", "64m",
        "--ulimit", "nofile=10:20", "--platform", "linux/arm64", "--memory", "64m", "--cpu-quota", "50000",
        str(folder),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    [request] = ground.requests
    assert request.names == ("a:1", "b:2") and request.target == "t"
    assert request.args == {"A": "b"} and request.labels == {"l": "v"}
    assert request.no_cache and request.pull and request.network == "none"
    assert request.hosts == ("h:192.0.2.1",) and request.platforms == ("linux/arm64",)
    assert request.cache_from == (CacheWay(kind="registry", options={"ref": "c:1"}),)
    assert request.shm_size == request.resources.memory == 64 << 20
    assert request.ulimits == {"nofile": (10, 20)} and request.resources.nano_cpus == 500_000_000


async def test_build_with_buildkit_takes_its_dockerfile_from_anywhere(ground: Ground, folder: Path) -> None:
    roots: list[str] = []

    async def scan(request: BuildRequest, session: Session) -> None:
        roots.append(await session.scan("", ()))

    ground.builder.during = scan
    other = b"FROM other:1\nCMD sh\n"
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "My.dockerfile").write_bytes(other)
    (elsewhere / "My.dockerfile.dockerignore").write_text("src\nkept\n")
    ended = await build(ground, "-f", str(elsewhere / "My.dockerfile"), str(folder))
    assert ended.code == 0, ended.err
    names = {one.name for one in ground.builder.objects.tree(roots[0]).entries}
    assert b"left" in names and not names & {b"src", b"kept"}
    (folder / "Dockerfile").rename(folder / "dockerfile")
    ended = await build(ground, str(folder))
    assert ended.code == 0, ended.err
    assert sorted(one.dockerfile for one in ground.requests) == sorted((other, TEXT))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--squash",), "squash"),
        (("--cgroup-parent", "x"), "cgroupparent"),
        (("--output", "type=image,compression=zstd"), "compression"),
    ],
)
async def test_build_with_buildkit_that_can_not_be_is_refused_by_name(
    ground: Ground, folder: Path, words: tuple[str, ...], told: str
) -> None:
    ended = await build(ground, *words, str(folder))
    assert ended.code != 0 and told in ended.err, ended.err
    assert not ground.requests


async def test_build_with_buildkit_gives_secrets_and_logins_that_are_asked_for(
    ground: Ground, folder: Path
) -> None:
    (folder / "Dockerfile").write_bytes(b"FROM r.example:5000/box:1\nRUN --mount=type=secret,id=s true\n")
    (folder / "s").write_bytes(b"hush")
    auth = base64.b64encode(b"u:p").decode()
    (folder.parent / ".docker").mkdir()
    (folder.parent / ".docker/config.json").write_text(
        json.dumps({"auths": {"r.example:5000": {"auth": auth}}})
    )
    values: list[bytes | None] = []

    async def ask(request: BuildRequest, session: Session) -> None:
        values.extend([await session.secret("s"), await session.secret("other")])

    ground.builder.during = ask
    ended = await build(ground, "--secret", f"id=s,src={folder}/s", str(folder))
    assert ended.code == 0, ended.err
    assert values == [b"hush", None]
    assert ground.requests[0].logins == {"r.example:5000": Login(user="u", password="p")}


async def test_build_with_buildkit_lends_the_clients_ssh_agent(ground: Ground, folder: Path) -> None:
    heard: list[bytes] = []

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(4), "big")
        heard.append(await reader.readexactly(size))
        writer.write((5).to_bytes(4, "big") + b"\x0c" + (0).to_bytes(4, "big"))  # it has no identities
        await reader.read(1)
        writer.close()

    answers: list[bytes] = []

    async def ask(request: BuildRequest, session: Session) -> None:
        async with session.ssh("default") as path:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write((1).to_bytes(4, "big") + b"\x0b")
            answers.append(await reader.readexactly(9))
            writer.close()

    ground.builder.during = ask
    socket = str(folder.parent / "agent")
    async with await asyncio.start_unix_server(agent, socket):
        ended = await build(ground, "--ssh", f"default={socket}", str(folder))
    assert ended.code == 0, ended.err
    assert heard == [b"\x0b"] and answers == [b"\0\0\0\x05\x0c\0\0\0\0"]


async def test_build_with_buildkit_writes_its_output_to_the_client(ground: Ground, folder: Path) -> None:
    data = bytes(range(256)) * 20_000

    async def export(request: BuildRequest, session: Session) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield data

        assert [one.kind for one in request.outputs] == ["tar"]
        await session.send(0, pieces())

    ground.builder.during = export
    ended = await build(ground, "--output", f"type=tar,dest={folder.parent}/out.tar", str(folder))
    assert ended.code == 0, ended.err
    assert (folder.parent / "out.tar").read_bytes() == data


async def test_build_with_buildkit_of_a_dockerfile_on_stdin_has_an_empty_context(ground: Ground) -> None:
    ended = await build(ground, "-q", "-", stdin=TEXT)
    assert (ended.code, ended.out.strip()) == (0, IMAGE_ID), ended.err
    assert ground.requests[0].dockerfile == TEXT


async def test_build_with_buildkit_that_fails_says_why_and_ends_its_step(
    ground: Ground, folder: Path
) -> None:
    ground.builder.fails = InvalidInput("the step is wrong")
    ended = await build(ground, str(folder))
    assert ended.code == 1 and "the step is wrong" in ended.err
    (folder / "Dockerfile").unlink()
    ended = await build(ground, str(folder))
    assert ended.code != 0 and "failed to read dockerfile: open Dockerfile" in ended.err


async def test_build_with_buildkit_that_is_interrupted_ends_on_its_host(ground: Ground, folder: Path) -> None:
    ground.builder.hold.clear()
    process = await asyncio.create_subprocess_exec(
        CLIENT, "-H", f"unix://{ground.docker.path}", "build", "--progress=plain", str(folder),
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": str(folder.parent), "DOCKER_BUILDKIT": "1"},
    )  # fmt: skip
    try:
        await until(lambda: bool(ground.requests), deadline=60, what="a build")
        process.send_signal(signal.SIGINT)
        hosts = ground.docker.fleet.hosts.values()
        await until(lambda: any(host.broken for host in hosts), deadline=60, what="its end")
        assert await asyncio.wait_for(process.wait(), 60) != 0
    finally:
        if process.returncode is None:
            process.kill()


async def test_build_with_buildkit_writes_a_tree_into_a_folder_of_the_client(
    ground: Ground, folder: Path
) -> None:
    made = tar(
        directory("a", mode=0o750), member("a/b", b"b" * 700_000, mode=0o640), member("a/empty"),
        link("a/to", "b"),
        member("twin", type=tarfile.LNKTYPE, linkname="a/b", mode=0o640), member("z" * 200, b"long"),
    )  # fmt: skip

    async def export(request: BuildRequest, session: Session) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(made), 50_001):
                yield made[at : at + 50_001]

        await session.send(0, pieces())

    ground.builder.during = export
    out = folder.parent / "out"
    ended = await build(ground, "--output", f"type=local,dest={out}", str(folder))
    assert ended.code == 0, ended.err
    assert (out / "a/b").read_bytes() == b"b" * 700_000 and (out / "a/b").stat().st_mode & 0o777 == 0o640
    assert (out / "a").stat().st_mode & 0o777 == 0o750 and (out / "a/empty").read_bytes() == b""
    assert os.readlink(out / "a/to") == "b" and (out / ("z" * 200)).read_bytes() == b"long"
    assert (out / "twin").stat().st_ino == (out / "a/b").stat().st_ino


async def test_build_with_buildkit_of_a_tar_on_stdin_is_built_of_that_tar(ground: Ground) -> None:
    context = tar(member("Dockerfile", TEXT), member("big", b"x" * 2_000_000))
    ended = await build(ground, "-t", "app", "-", stdin=context)
    assert ended.code == 0, ended.err
    assert find(ground.builder.objects.tree, ground.builder.root, "big").size == 2_000_000
