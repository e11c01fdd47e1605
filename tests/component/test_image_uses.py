"""When images were used last: noted on disk while they are used."""

from __future__ import annotations

from pathlib import Path

import msgspec

from aio.clock import VirtualClock
from image.catalog import Catalog, Entry
from image.digest import of
from image.drivers.vfs import VfsDriver
from image.layers import Layer
from image.registry.source import NoSource
from image.store import ImageStore
from image.uses import Uses
from model.image import ImageRecord

OLD = of(b"config")
CHAIN = of(b"layer")


def test_image_used_while_the_times_are_written_keeps_its_time(tmp_path: Path) -> None:
    uses = Uses(tmp_path / "used.json")
    uses.used("a", 5)
    uses.used("gone", 5)
    noted = uses.noted({"a", "b"}, 6)
    uses.used("b", 7)  # the loop goes on while a thread writes
    uses.write(noted)
    assert (uses.last("b", 0, 9), uses.last("gone", 0, 9)) == (7, 0)
    again = Uses(tmp_path / "used.json")
    again.open()
    assert (again.last("a", 0, 9), again.last("b", 0, 9)) == (5, 0)


def upgraded(root: Path) -> None:
    """An image as an older release left it, which did not note when it came."""
    (root / "layers/1/fs").mkdir(parents=True)
    layer = Layer(chain=CHAIN, diff=CHAIN, size=100, number=1)
    (root / "layers/1/link").write_bytes(msgspec.json.encode(layer))
    Catalog(root / "images.json").put(Entry(record=ImageRecord(id=OLD), chains=(CHAIN,)))
    (root / "configs").mkdir()
    (root / "configs" / OLD.removeprefix("sha256:")).write_bytes(b"config")


async def test_image_of_unknown_arrival_counts_as_new_when_it_is_first_seen(tmp_path: Path) -> None:
    upgraded(tmp_path)
    clock = VirtualClock()
    store = ImageStore(tmp_path, driver_choice=(VfsDriver(), "for tests"), source=NoSource(), clock=clock)
    await store.open()
    assert (await store.free(1, spare={}, unused_for=120)).deleted == ()
    await store.close()
    await clock.advance(121)
    store = ImageStore(tmp_path, driver_choice=(VfsDriver(), "for tests"), source=NoSource(), clock=clock)
    await store.open()  # an agent that starts again does not make it new again
    assert (await store.free(1, spare={}, unused_for=120)).deleted == (OLD,)
    await store.close()
