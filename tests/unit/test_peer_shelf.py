"""What this host keeps for others, where it can't."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from image.blobs import BlobStore
from image.catalog import Catalog
from image.layers import LayerStore
from image.peers.shelf import Shelf
from image.trash import Trash
from model.errors import Exhausted


class FullStore(BlobStore):
    def put(self, data: bytes) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_index_that_the_disk_has_no_room_for_is_told_in_words(tmp_path: Path) -> None:
    layers = LayerStore(tmp_path / "layers", Trash(tmp_path / "trash"))
    catalog, configs = Catalog(tmp_path / "images.json"), BlobStore(tmp_path / "configs")
    shelf = Shelf(catalog, configs, layers, FullStore(tmp_path / "indexes"))
    with pytest.raises(Exhausted, match="no space is left on the disk for the image's index") as raised:
        shelf.keep_indexes((b"{}",))
    assert raised.value.hint
