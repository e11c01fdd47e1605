"""Fixtures of the kernel tier."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
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
    (tmp_path / "base").mkdir()
    place = LayerPlace(tmp_path / "base")
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
