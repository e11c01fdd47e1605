"""Fixtures of the kernel tier."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from image.store import ImageStore
from tests.support.containers import Lab, network_namespace
from tests.support.copies import CopyPlace
from tests.support.imagestores import BUILT, made
from tests.support.layerplaces import LayerPlace
from tests.support.registry import FakeRegistry, serving


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """Real containers from a busybox root in a network namespace of their own."""
    with network_namespace() as netns:
        lab = Lab(tmp_path, netns)
        yield lab
        await lab.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    store = made(tmp_path)
    await store.open()
    yield store
    for root in store.roots():
        await store.remove_root(root.container)
    await store.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[LayerPlace]:
    with _watched(tmp_path / "base") as place:
        yield place


@pytest.fixture
def place_in_memory() -> Iterator[LayerPlace]:
    """For what is judged by the processor's time: what a disk adds is never the same."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, _watched(Path(folder, "base")) as place:
        yield place


@contextmanager
def _watched(base: Path) -> Iterator[LayerPlace]:
    base.mkdir()
    place = LayerPlace(base)
    before = place.census()
    yield place
    assert place.census() == before


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    fake = FakeRegistry()
    fake.push(BUILT, "1")
    async with serving(fake) as served:
        yield served


@pytest.fixture
async def copies(tmp_path: Path) -> AsyncIterator[CopyPlace]:
    place = CopyPlace(tmp_path)
    yield place
    await place.close()
