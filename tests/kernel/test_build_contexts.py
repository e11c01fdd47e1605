"""Whole builds of contexts: folders, tars, URLs and repositories become layers of a real store."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from msgspec.structs import replace

from image.build.base import Bound, Session
from image.build.copying import Copying
from image.build.engine import build
from image.build.fake import FakeSession
from image.build.step import RunStep
from image.context.fetcher import BuildFetcher
from image.context.guard import Guard
from image.context.receive import received
from image.context.scan import Scanner
from image.context.serve import FolderSource
from image.dockerfile.ignore import Ignore
from image.store import ImageStore
from model.build import BuildRequest, Context, StepBegan, StepEnded
from model.errors import Exhausted, Forbidden
from model.image import ImageRecord
from tests.support.buildstore import StoreLab
from tests.support.contexts import grow, store, wire
from tests.support.gitserver import Repository, daemon, git
from tests.support.images import member, tar
from tests.support.imagestores import reopened

pytestmark = pytest.mark.kernel


class Files(Copying):
    """Steps that copy, by the processes that do it on a host; there is nobody who runs anything."""

    async def run(
        self, root: str, step: RunStep, bound: Sequence[Bound | None], session: Session, number: int
    ) -> int:
        raise NotImplementedError

    async def shell(
        self, root: str, step: RunStep, bound: Sequence[Bound | None], session: Session, number: int
    ) -> int:
        raise NotImplementedError


class Client(FakeSession):
    """With a folder, whose objects come over a wire that is counted."""

    def __init__(self, lab: Lab, top: Path | None, ignore: bytes = b"") -> None:
        super().__init__({})
        self._lab = lab
        rules = Ignore.parse(ignore) if ignore else None
        cache = os.fspath(lab.folder / "cache")
        self._source = FolderSource(Scanner(os.fspath(top), ignore=rules, cache=cache)) if top else None
        self.objects: list[str] = []

    async def scan(self, context: str, paths: Sequence[str]) -> str:
        assert self._source is not None and not context
        one = wire(self._source)
        root = await received(one, self._lab.objects, self._lab.lease, paths=paths)
        self.objects += one.objects
        return root


class Lab(StoreLab):
    def __init__(self, images: ImageStore, folder: Path) -> None:
        super().__init__(images)
        self.folder = folder
        self.objects = store(folder / "objects")
        self.lease = self.objects.lease()
        self.copying = Files(os.fspath(folder / "objects"))
        self.session = Client(self, None)

    async def made(
        self, text: str, top: Path | None = None, *, ignore: bytes = b"", **wishes: Any
    ) -> ImageRecord:
        """As one build after another: what the last one held may go."""
        self.lease.close()
        self.lease = self.objects.lease()
        fetcher = BuildFetcher(self.objects, self.lease, Guard())
        self.session = Client(self, top, ignore)
        parts = dataclasses.replace(self.parts, runner=self.copying, fetcher=fetcher)
        request = replace(BuildRequest(dockerfile=text.encode()), **wishes)
        done = await build(request, self.session, parts)
        return self.store.find(done.images[0].image)

    def cached(self) -> list[bool]:
        """Of the instructions of the last build."""
        heard = self.session.heard
        ended = {said.step: said.cached for said in heard if isinstance(said, StepEnded)}
        return [ended[said.step] for said in heard if isinstance(said, StepBegan) and said.line]

    async def content(self, image: ImageRecord) -> dict[str, str]:
        """Of its files and links."""
        async with self.store.builds.shown(self.store.builds.of_image(image)) as root:
            top = Path(root)
            return {
                path.relative_to(top).as_posix(): os.readlink(path) if path.is_symlink() else path.read_text()
                for path in sorted(top.rglob("*"))
                if path.is_symlink() or path.is_file()
            }


@contextlib.asynccontextmanager
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with reopened(tmp_path / "store") as images:
        one = Lab(images, tmp_path)
        try:
            yield one
        finally:
            await one.copying.close()


TWO = "FROM scratch\nCOPY a dir/ /a/\nCOPY b /b\n"


async def test_build_sends_and_does_again_only_what_changed(tmp_path: Path) -> None:
    top = grow(tmp_path / "top", {"a": b"a", "b": b"b", "dir/c": b"c", "dir/l": "c", "other": b"o" * 1000})
    async with lab(tmp_path) as one:
        first = await one.made(TWO, top)
        assert await one.content(first) == {"a/a": "a", "a/c": "c", "a/l": "c", "b": "b"}
        assert len(one.session.objects) == 5, "two trees and three files: nobody copies the other"
        assert await one.made(TWO, top) == first and not one.session.objects
        assert all(one.cached())
        (top / "b").write_bytes(b"B")
        second = await one.made(TWO, top)
        assert (await one.content(second))["b"] == "B" and len(one.session.objects) == 2
        assert one.cached().count(False) == 1
        os.utime(top / "a", ns=(1, 1))
        (top / "other").write_bytes(b"another")
        assert await one.made(TWO, top) == second and all(one.cached()), "times don't count"
        (top / "dir/c").chmod(0o755)
        assert await one.made(TWO, top) != second and one.cached().count(False) == 2, "modes do"


async def test_build_sees_what_is_not_ignored(tmp_path: Path) -> None:
    top = grow(tmp_path / "top", {"a": b"a", "secret/key": b"k", "secret/public": b"p", "x.log": b"x"})
    async with lab(tmp_path) as one:
        image = await one.made("FROM scratch\nCOPY . /\n", top, ignore=b"*.log\nsecret\n!secret/public\n")
        assert await one.content(image) == {"a": "a", "secret/public": "p"}


async def test_build_of_urls_and_repositories(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "served/a")
    repository.commit({"Dockerfile": b"FROM scratch\nCOPY sub /\n", "sub/f": b"f", "sub/l": "f"})
    git(repository.folder, "tag", "v1")
    repository.commit({"sub/f": b"later"})
    app = web.Application()

    async def file(request: web.Request) -> web.Response:
        return web.Response(body=b"fetched", headers={"ETag": '"1"'})

    async def context(request: web.Request) -> web.Response:
        return web.Response(body=tar(member("t", b"of a tar")))

    app.router.add_get("/file", file)
    app.router.add_get("/context.tar", context)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    try:
        async with lab(tmp_path) as one, daemon(tmp_path / "served") as host:
            url = str(server.make_url("/file"))
            text = f"FROM scratch\nADD {url} /d/\nADD {host}/a#v1:sub /git/\n"
            contexts = (Context(kind="none"),)
            image = await one.made(text, private_addresses=True, contexts=contexts)
            assert await one.content(image) == {"d/file": "fetched", "git/f": "f", "git/l": "f"}
            assert await one.made(text, private_addresses=True, contexts=contexts) == image
            assert all(one.cached())
            for place in (
                Context(kind="git", ref=f"{host}/a#:sub"),
                Context(kind="http", ref=str(server.make_url("/context.tar"))),
            ):
                image = await one.made("FROM scratch\nCOPY . /\n", private_addresses=True, contexts=(place,))
                assert await one.content(image) in ({"f": "later", "l": "f"}, {"t": "of a tar"})
            with pytest.raises(Forbidden, match="loopback"):
                await one.made(text + "COPY x /\n", contexts=contexts, no_cache=True)
    finally:
        await server.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


async def test_full_disk_ends_a_transfer_and_leaves_room_for_the_next_b36(disk: Path, tmp_path: Path) -> None:
    objects = store(disk / "objects")
    large = FolderSource(Scanner(os.fspath(grow(tmp_path / "large", {"a": b"a", "b": os.urandom(8 << 20)}))))
    small = FolderSource(Scanner(os.fspath(grow(tmp_path / "small", {"a": os.urandom(3 << 20)}))))
    for _ in range(2):
        with pytest.raises(Exhausted, match="no space for the build context"), objects.leased() as lease:
            await received(wire(large), objects, lease)
        assert not list((disk / "objects/new").glob("*/*"))
        objects.prune()
        with objects.leased() as lease:
            assert await received(wire(small), objects, lease)
        objects.prune()
