"""The build cache of a host with records that come from elsewhere, honest ones and others."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from aio.supervisor import Supervisor
from image.build.base import Files
from image.build.cache import Record
from image.build.fake import FakeSnapshots
from image.build.journal import MAX_FRAME, Journal, Noted
from image.build.stored import TRIM, BuildCache
from image.collection import Disk
from image.digest import chain_ids, of
from image.layers import Layer
from model.buildcache import CacheKeeping
from tests.support.waiting import until

DIFF = of(b"layer")
CHAIN = chain_ids((DIFF,))[0]


def layer(chain: str) -> Layer | None:
    return Layer(chain=chain, diff=DIFF, size=6) if chain == CHAIN else None


def made(
    snapshots: FakeSnapshots,
    supervisor: Supervisor,
    folder: Path,
    *,
    now: Callable[[], float] = lambda: 100.0,
    disk: Callable[[], Disk] | None = None,
) -> BuildCache:
    cache = BuildCache(
        folder,
        layer=layer,
        imaged=tuple,
        collect=lambda: 0,
        snapshots=snapshots,
        supervisor=supervisor,
        now=now,
        disk=disk,
    )
    cache.open()
    cache.start()
    return cache


@pytest.fixture
def snapshots() -> FakeSnapshots:
    found = FakeSnapshots()
    found.diffs[CHAIN] = DIFF
    return found


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    async with Supervisor("test") as one:
        yield one


def record(name: str, ident: str, source: str = "RUN x") -> Record:
    return Record(key=of(name.encode()), files=Files(id=ident, layers=(CHAIN,)), source=source)


async def test_records_of_the_same_files_are_all_kept_and_hold_nothing_afterwards(
    snapshots: FakeSnapshots, supervisor: Supervisor, tmp_path: Path
) -> None:
    cache = made(snapshots, supervisor, tmp_path)
    same = "1" * 64
    for name in ("a", "b", "a"):
        cache.put(record(name, same))
    await until(lambda: not cache.settling, deadline=10, what="all are settled")
    assert set(cache.records) == {of(b"a"), of(b"b")} and not snapshots.held
    await cache.written()
    assert list(cache.chains()) == [CHAIN]
    cache.remove([of(name).removeprefix("sha256:") for name in (b"a", b"b")])
    assert not cache.records and not cache.chains(), "nothing keeps its layer"


async def test_record_of_a_very_long_instruction_costs_no_other_record(
    snapshots: FakeSnapshots, supervisor: Supervisor, tmp_path: Path
) -> None:
    cache = made(snapshots, supervisor, tmp_path)
    cache.put(record("long", "1" * 64, "RUN " + "x" * MAX_FRAME))
    cache.put(record("next", "2" * 64))
    await until(lambda: not cache.settling, deadline=10, what="all are settled")
    await cache.written()
    assert len(Journal(tmp_path / "journal").read()) == 2


async def test_limits_hold_at_once_and_the_disk_is_looked_at_by_and_by(
    snapshots: FakeSnapshots, supervisor: Supervisor, tmp_path: Path
) -> None:
    now, free = [100.0], [10]
    cache = made(
        snapshots, supervisor, tmp_path, now=lambda: now[0], disk=lambda: Disk(capacity=100, free=free[0])
    )
    keys = [of(name).removeprefix("sha256:") for name in (b"a", b"b", b"c", b"d")]
    for name in "abcd":
        cache.put(record(name, name * 64))
        await until(lambda: not cache.settling, deadline=10)
        now[0] += 1
    assert [entry.size for entry in cache.entries()] == [6] * 4
    assert cache.keep(CacheKeeping(max_size=20)).entries == (keys[0],)
    limits = CacheKeeping(min_free=15)
    assert cache.keep(limits).entries == (keys[1],)
    assert cache.keep(limits).entries == (), "what goes is not gone at once"
    now[0] += TRIM
    free[0] = 16
    assert cache.keep(limits).entries == ()
    now[0] += TRIM
    free[0] = 0
    assert cache.keep(limits).entries == (keys[2], keys[3])


def test_journal_that_found_the_disk_full_is_written_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    first, lost, last = (Noted(guess=name, content="c" * 100) for name in ("first", "lost", "last"))
    journal.append([first])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "journal").stat().st_size + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            journal.append([lost])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    journal.append([last])
    assert Journal(tmp_path / "journal").read() == [first, last]
