"""A disk without space: the image store opens there, and what was set aside pays for what removes."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from image.blobs import BlobStore
from image.catalog import Catalog, Entry
from image.digest import of
from image.drivers.choice import try_out
from image.drivers.vfs import VfsDriver
from image.full import Ballast
from image.layers import LayerStore
from image.leases import Leases
from image.registry.source import NoSource
from image.removal import Parts, Removal
from image.roots import Roots
from image.store import ImageStore
from image.trash import Trash
from image.uses import Uses
from model.image import ImageRecord
from tests.support.waiting import until

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def made(root: Path) -> ImageStore:
    return ImageStore(root, driver_choice=(VfsDriver(), "for tests"), source=NoSource())


def no_room(path: Path) -> None:
    raise FULL


def test_ballast_for_which_no_file_can_be_made_is_laid_another_time(tmp_path: Path) -> None:
    path = tmp_path / "ballast"
    assert Ballast(path, no_room).lay() == "No space left on device"
    assert Ballast(path).lay() == "" and path.stat().st_size
    assert Ballast(path).lay() == ""


async def test_store_opens_without_a_folder_to_be_made(tmp_path: Path) -> None:
    """None can be made on a disk that is wholly full."""
    store = made(tmp_path)
    await store.open()
    await store.close()
    transfers = tmp_path / "tmp"
    (transfers / "pull-1").mkdir()
    (transfers / "spooled").touch()
    before = transfers.stat().st_ino
    await (again := made(tmp_path)).open()
    assert os.listdir(transfers) == [] and transfers.stat().st_ino == before
    await until(lambda: os.listdir(tmp_path / "trash") == [], deadline=10)
    await again.close()


class FullDriver(VfsDriver):
    """Has room once the ballast is given up."""

    def prepare(self, folder: str, layers: Sequence[str]) -> None:
        if (Path(folder).parent / "ballast").exists():
            raise FULL
        super().prepare(folder, layers)


def test_storage_driver_is_tried_with_the_ballast_s_room(tmp_path: Path) -> None:
    assert Ballast(tmp_path / "ballast").lay() == ""
    assert try_out(FullDriver(), tmp_path) == ""
    assert os.listdir(tmp_path) == []


class FullCatalog(Catalog):
    """Can be written once the ballast is given up."""

    ballast: Path

    def drop(self, *idents: str) -> None:
        if self.ballast.exists():
            raise FULL
        super().drop(*idents)


async def test_image_that_lost_a_layer_is_dropped_at_the_start_though_the_disk_is_full(
    tmp_path: Path,
) -> None:
    catalog, ballast = FullCatalog(tmp_path / "images.json"), Ballast(tmp_path / "ballast")
    catalog.put(Entry(record=ImageRecord(id=of(b"config")), chains=(of(b"lost"),)))
    catalog.ballast = tmp_path / "ballast"
    ballast.lay()
    trash = Trash(tmp_path / "trash")
    layers = LayerStore(tmp_path / "layers", trash)
    roots = Roots(tmp_path / "roots", driver=VfsDriver(), trash=trash, layer_path=layers.path)
    removal = Removal(
        Parts(catalog, BlobStore(tmp_path / "configs"), layers, roots),
        Leases(),
        Uses(tmp_path / "used.json"),
        changing=asyncio.Lock(),
        now=lambda: 0.0,
        ballast=ballast,
    )
    removal.drop_incomplete()
    assert catalog.entries == {}
