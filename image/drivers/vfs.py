"""A full copy of the image per container: works on any file system, costs the image's size each time.

Invariant: `root` exists only when the copy is complete; a half-made one is thrown away and begun again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from image.drivers.btrfs import is_subvolume
from image.drivers.copying import copy_layers
from model.errors import FlotaError


class VfsDriver:
    name = "vfs"

    def prepare(self, folder: str, layers: Sequence[str]) -> None:
        root, work = os.path.join(folder, "root"), os.path.join(folder, "building")
        if os.path.isdir(root):
            return
        shutil.rmtree(work, ignore_errors=True)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.mkdir(work, 0o755)
        try:
            copy_layers(layers, work, self.name)
        except FlotaError:
            shutil.rmtree(work, ignore_errors=True)
            raise
        os.rename(work, root)

    def made(self, folder: str) -> bool:
        root = os.path.join(folder, "root")
        return os.path.isdir(root) and not is_subvolume(root) and not os.path.isdir(f"{folder}/upper")

    def mount(self, folder: str, layers: Sequence[str]) -> str:
        del layers
        return os.path.join(folder, "root")

    def unmount(self, folder: str) -> None:
        del folder

    def discard(self, folder: str) -> None:
        del folder

    def upper(self, folder: str) -> str:
        del folder
        return ""
