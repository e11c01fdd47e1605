"""Builds of the stock docker command with DOCKER_BUILDKIT=1, over a fleet of fakes: sessions are real."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from image.build.base import Session
from image.context.find import find
from model.build import BuildRequest
from model.contexttree import Entry
from tests.support.dockerbuilds import TEXT, Ground, build_ground
from tests.support.dockersocket import Ended
from tests.support.fakehost import IMAGE_ID


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
