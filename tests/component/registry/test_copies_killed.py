"""A host that is killed before any change that it makes to its copy of the registry: what it has is whole,
and it goes on from there."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from agent.registrycopies import CopyStore
from image.registry.server.copies import Head
from image.registry.server.files import append
from image.registry.server.limits import Limits
from model.registrycopies import CopyReport
from tests.support.images import digest
from tests.support.killedcalls import DiesBefore

OLD, NEW = Head(lineage="a" * 32, generation=1), Head(lineage="a" * 32, generation=2)
KEPT, COMING, GOING = b"kept" * 1000, os.urandom(300_000), b"going"
MOST = 80


def opened(folder: Path) -> CopyStore:
    store = CopyStore(folder, Limits(reserve=0))
    store.open()
    return store


def keep(store: CopyStore, data: bytes) -> None:
    path = store.begin(len(data))
    for at in range(0, len(data), 100_000):
        append(path, at, data[at : at + 100_000])
    store.keep(path, digest(data), len(data))


def orders(store: CopyStore) -> None:
    """One round of what a host is told to do."""
    store.files.remove_blob(digest(GOING))
    keep(store, COMING)
    store.keep_index(NEW, b"sealed new")


def killed(folder: Path, at: int) -> bool:
    """False: it came to its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store = opened(folder)
            sys.addaudithook(DiesBefore(at, None))
            orders(store)
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def told(folder: Path) -> CopyReport:
    """After a start, with everything that it says it has looked at."""
    store = opened(folder)
    report = store.report()
    assert all(store.whole(found) for found in report.have)
    assert store.files.uploads() == []
    assert set(os.listdir(folder)) <= {"blobs", "uploads", "index", ".index.new"}  # the latter is used again
    head, sealed = store.index()
    assert (head, sealed) in ((OLD, b"sealed old"), (NEW, b"sealed new"))
    return report


@pytest.mark.timeout(300)
def test_host_killed_before_any_change_of_its_copy_has_whole_blobs_alone(tmp_path: Path) -> None:
    before = tmp_path / "before"
    store = opened(before)
    for data in (KEPT, GOING):
        keep(store, data)
    store.keep_index(OLD, b"sealed old")
    seen = set()
    for at in range(MOST):
        folder = tmp_path / str(at)
        shutil.copytree(before, folder)
        ended = not killed(folder, at)
        report = told(folder)
        assert digest(KEPT) in report.have
        assert report.generation == 1 or digest(COMING) in report.have
        seen.add((report.generation, frozenset(report.have)))
        orders(opened(folder))  # as it would be told again
        assert told(folder).have and set(told(folder).have) == {digest(KEPT), digest(COMING)}
        shutil.rmtree(folder)
        if ended:
            break
    else:
        raise AssertionError("it has more changes than were tried")
    assert at > 4 and len(seen) == 4  # none of it, the blob gone, the other come, the state
