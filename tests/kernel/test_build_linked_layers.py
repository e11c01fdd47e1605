"""Layers of COPY --link on a real store: made on nothing, shown over anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from image.store import ImageStore
from model.buildcache import CachePrune
from tests.kernel.test_build_snapshots import files_of, lab, put, settled
from tests.support.buildstore import StoreLab
from tests.support.imagestores import reopened

pytestmark = pytest.mark.kernel

TEXT = "FROM scratch\nRUN {}\nCOPY --link a /etc/a\nRUN last\n"


@pytest.fixture
def it(store: ImageStore) -> StoreLab:
    made = lab(store)
    made.runner.commands = {**made.runner.commands, "last": lambda root: put(f"{root}/etc/last", "l")}
    made.runner.context["a"] = b"content"
    return made


async def test_linked_layer_lies_over_any_other(store: ImageStore, it: StoreLab) -> None:
    one = await it.image(TEXT.format("one"), names=("one",))
    assert it.ran() == ["one", "copy a", "last"]
    two = await it.image(TEXT.format("two"), names=("two",))
    assert it.ran() == ["two", "last"]
    assert await files_of(store, one.id) == {"one": b"1", "etc/a": b"content", "etc/last": b"l"}
    assert await files_of(store, two.id) == {"etc/two": b"2", "etc/a": b"content", "etc/last": b"l"}
    assert one.layers[1] == two.layers[1]


async def test_image_with_linked_layers_is_the_same_elsewhere_and_again(
    store: ImageStore, it: StoreLab, tmp_path: Path
) -> None:
    one = await it.image(TEXT.format("one"), names=("one",))
    it.ran()
    assert (await it.image(TEXT.format("one"))).id == one.id and it.ran() == []
    async with reopened(tmp_path / "other") as other:
        (loaded,) = await other.load(store.save(["one"]))
        assert loaded.id == one.id
        assert await files_of(other, loaded.id) == await files_of(store, one.id)


async def test_linked_copy_that_stands_twice_is_mounted(store: ImageStore, it: StoreLab) -> None:
    """overlayfs takes no directory twice."""
    for first in ("FROM scratch\n", "FROM scratch\nRUN one\n"):
        image = await it.image(f"{first}COPY --link a /etc/a\nRUN two\nCOPY --link a /etc/a\nRUN last\n")
        found = await files_of(store, image.id)
        assert (found["etc/a"], found["etc/two"], found["etc/last"]) == (b"content", b"2", b"l")
    assert it.ran().count("copy a") == 1


async def test_nothing_stays_of_linked_layers_when_cache_and_image_go(
    store: ImageStore, it: StoreLab, tmp_path: Path
) -> None:
    image = await it.image(TEXT.format("one"))
    await settled(store)
    await store.remove(image.id)
    await store.build_cache.prune(CachePrune(all=True))
    await store.deleted()
    assert os.listdir(tmp_path / "images/layers") == []
    assert store.builds._pending == {}


async def test_linked_layer_is_found_after_a_restart(tmp_path: Path) -> None:
    async with reopened(tmp_path / "images") as store:
        made = lab(store)
        made.runner.context["a"] = b"content"
        await made.image("FROM scratch\nRUN one\nCOPY --link a /etc/a\n")
        await settled(store)
    async with reopened(tmp_path / "images") as store:
        again = lab(store)
        again.runner.context["a"] = b"content"
        image = await again.image("FROM scratch\nRUN two\nCOPY --link a /etc/a\n")
        assert again.ran() == ["two"]
        assert await files_of(store, image.id) == {"etc/two": b"2", "etc/a": b"content"}
