"""The build cache of a host with records that come from elsewhere, honest ones and others."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aio.supervisor import Supervisor
from image.build.base import Files
from image.build.cache import Record
from image.build.fake import FakeSnapshots
from image.build.journal import MAX_FRAME, Journal, Noted
from image.build.stored import BuildCache
from image.digest import chain_ids, of
from image.layers import Layer
from tests.support.waiting import until

DIFF = of(b"layer")
CHAIN = chain_ids((DIFF,))[0]


def layer(chain: str) -> Layer | None:
    return Layer(chain=chain, diff=DIFF) if chain == CHAIN else None


def made(snapshots: FakeSnapshots, supervisor: Supervisor, folder: Path) -> BuildCache:
    cache = BuildCache(
        folder,
        layer=layer,
        imaged=tuple,
        collect=lambda: 0,
        snapshots=snapshots,
        supervisor=supervisor,
        now=lambda: 100.0,
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
