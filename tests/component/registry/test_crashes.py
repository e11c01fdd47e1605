"""A registry that is killed at any step of a push, of a deletion or of collecting: what it confirmed is
there, whole; what it did not is there or isn't; the next start has no leftovers, the same push goes through.

A child does the work and is killed (SIGKILL) right before its Nth call of those that change files or the
index. Its files are in memory: the kernel keeps them, and waits for no disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aio.clock import VirtualClock
from image.digest import of
from image.registry.server.documents import parse
from image.registry.server.files import PREFIXES
from image.registry.server.limits import Limits
from image.registry.server.store import Content
from tests.support.fleetregistry import Client, serving
from tests.support.images import MANIFEST, digest, image, member, tar

LIMITS = Limits(reserve=0, grace=100.0, collect_every=1e9)
BASE = tar(member("base", b"base"))
OLD = image([BASE, tar(member("old", b"old"))])
NEW = image([BASE, tar(member("new", b"new" * 500_000))])
COUNTED = {"pwrite", "fsync", "rename", "ftruncate", "unlink", "execute", "executemany"}
Work = Callable[[Client, Callable[[str], None]], Awaitable[None]]


class Killer:
    """Counts calls of C functions in all threads; kills this process before the Nth."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._seen = 0

    def __call__(self, frame: Any, event: str, function: Any) -> None:
        changes = event == "c_call" and function.__name__ in COUNTED and frame.f_code.co_name != "rows"
        if changes:
            self._seen += 1
            if self._seen >= self._at:
                os.kill(os.getpid(), signal.SIGKILL)


def killed_at(step: int, folder: Path, work: Work) -> tuple[bool, list[str]]:
    """(was it killed, what was confirmed before)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            killer = Killer(step)
            threading.setprofile(killer)
            sys.setprofile(killer)
            asyncio.run(_serve(folder, work, lambda word: os.write(writing, f"{word}\n".encode()) and None))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read().split()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), code
    return code != 0, said


async def _serve(folder: Path, work: Work, confirm: Callable[[str], None]) -> None:
    async with serving(folder, limits=LIMITS, clock=VirtualClock(2_000_000.0)) as served:
        await work(served.client, confirm)
        await served.registry.tidy()


async def push_new(client: Client, confirm: Callable[[str], None]) -> None:
    """In chunks, over the tag of the old one."""
    for found, blob in NEW.blobs.items():
        where = await client.begin("app")
        await client.ask("PATCH", where, blob[:1000])
        reply = await client.ask("PUT", f"{where}?digest={found}", blob[1000:])
        assert reply.status == 201
        confirm(found)
    assert (await client.push_manifest("app", "1", NEW.manifest)).status == 201
    confirm("new")


async def delete_old(client: Client, confirm: Callable[[str], None]) -> None:
    reply = await client.ask("DELETE", f"/v2/app/manifests/{OLD.digest}")
    assert reply.status == 202
    confirm("deleted")


async def nothing(client: Client, confirm: Callable[[str], None]) -> None:
    """Collecting alone follows."""


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def before(memory: Path) -> Path:
    """A registry with the old image, and a blob that nobody holds."""
    folder = memory / "before"

    async def fill() -> None:
        async with serving(folder, limits=LIMITS, clock=VirtualClock(1_000_000.0)) as served:
            await served.client.push("app", OLD, "1")
            await served.client.push_blob("app", b"alone")

    asyncio.run(fill())
    return folder


def steps(before: Path, folder: Path, work: Work) -> Iterator[tuple[Path, list[str], bool]]:
    """The folder after a kill at each step in turn, what had been confirmed, and whether it was the last."""
    for step in range(1, 1000):
        copy = folder / f"step{step}"
        shutil.copytree(before, copy)
        killed, said = killed_at(step, copy, work)
        yield copy, said, not killed
        shutil.rmtree(copy)
        if not killed:
            assert step > 10
            return
    raise AssertionError("it never came to its end")


def opened(folder: Path) -> Content:
    return Content.open(folder, LIMITS, lambda: 2_000_000.0)


def check(content: Content) -> None:
    """What there is, is whole, and there is nothing beside it."""
    files = {found for prefix in PREFIXES for found in content.files.blobs(prefix)}
    recorded = {found for prefix in PREFIXES for found in content.index.blobs(prefix)}
    assert files == recorded
    for found in files:
        assert of(content.files.blob(found).read_bytes()) == found
    assert set(content.files.uploads()) <= {begun.id for begun in content.index.begun()}
    for (reference,) in content.index.rows("SELECT digest FROM manifests"):
        stored = content.index.manifest("app", "", reference)
        assert stored is not None and of(stored.data) == reference
        for found in parse(stored.data, stored.media_type).blobs:
            assert content.find("app", found) is not None, (reference, found)


def tagged(content: Content) -> str:
    stored = content.index.manifest("app", "1", "")
    return stored.digest if stored else ""


async def push_again(folder: Path) -> None:
    async with serving(folder, limits=LIMITS, clock=VirtualClock(2_000_000.0)) as served:
        await push_new(served.client, lambda _: None)
        for found, blob in NEW.blobs.items():
            assert (await served.client.ask("GET", f"/v2/app/blobs/{found}")).body == blob
        reply = await served.client.ask("GET", "/v2/app/manifests/1", Accept=MANIFEST)
        assert reply.body == NEW.manifest


@pytest.mark.timeout(600)
def test_registry_killed_at_any_step_of_a_push_keeps_what_it_confirmed(before: Path, memory: Path) -> None:
    for folder, said, last in steps(before, memory, push_new):
        content = opened(folder)
        try:
            check(content)
            for found in NEW.blobs:
                assert found not in said or content.find("app", found) == len(NEW.blobs[found])
            if "new" in said or last:
                assert tagged(content) == NEW.digest
            assert tagged(content) in (OLD.digest, NEW.digest)
            assert content.index.manifest("app", "", OLD.digest) is not None
        finally:
            content.close()
        asyncio.run(push_again(folder))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("work", [delete_old, nothing])
def test_registry_killed_at_any_step_of_collecting_loses_nothing_that_is_held(
    before: Path, memory: Path, work: Work
) -> None:
    for folder, said, last in steps(before, memory, work):
        content = opened(folder)
        try:
            check(content)
            kept = content.index.manifest("app", "", OLD.digest) is not None
            assert kept or work is delete_old
            assert not kept or not said
            assert tagged(content) == (OLD.digest if kept else "")
            content.collect()
            files = {found for prefix in PREFIXES for found in content.files.blobs(prefix)}
            assert files == (set(OLD.blobs) if kept else set())
            assert not last or kept == (work is nothing)
        finally:
            content.close()


def test_upload_broken_by_a_kill_is_gone_on_with_from_what_was_confirmed(before: Path, memory: Path) -> None:
    data = os.urandom(3_000_000)
    folder = memory / "broken"
    shutil.copytree(before, folder)
    places: list[str] = []

    async def half(client: Client, confirm: Callable[[str], None]) -> None:
        where = await client.begin("app")
        reply = await client.ask("PATCH", where, data[:2_500_000])
        confirm(f"{where} {reply.headers['Range']}")
        os.kill(os.getpid(), signal.SIGKILL)

    killed, places = killed_at(10_000, folder, half)
    assert killed

    async def rest() -> None:
        async with serving(folder, limits=LIMITS, clock=VirtualClock(2_000_000.0)) as served:
            where, said = places
            assert (await served.client.ask("GET", where)).headers["Range"] == said == "0-2499999"
            reply = await served.client.ask("PUT", f"{where}?digest={digest(data)}", data[2_500_000:])
            assert reply.status == 201

    asyncio.run(rest())
