"""Container roots on disk: a writable layer each, over an image's layers.

    roots/<container>/root.json + what the driver makes

Invariant: a folder without root.json was half-made; it is removed at start.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from aio.supervisor import in_thread
from image.base import Root
from image.drivers.base import StorageDriver
from model.errors import NotFound
from model.spec import Struct


class _Meta(Struct):
    image: str
    layers: tuple[str, ...]
    """Directories, bottom first."""
    chains: tuple[str, ...]


class Roots:
    def __init__(self, folder: Path, driver: StorageDriver) -> None:
        self._folder = folder
        self._driver = driver
        self._known: dict[str, _Meta] = {}

    def open(self) -> None:
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        for entry in list(self._folder.iterdir()):
            try:
                self._known[entry.name] = msgspec.json.decode((entry / "root.json").read_bytes(), type=_Meta)
            except (FileNotFoundError, msgspec.DecodeError):
                self._driver.unmount(str(entry))
                shutil.rmtree(entry)

    async def prepare(
        self, container: str, image: str, layers: tuple[str, ...], chains: tuple[str, ...]
    ) -> Root:
        """`layers` are directories, `chains` their ids, bottom first."""
        if container not in self._known:
            meta = _Meta(image=image, layers=layers, chains=chains)
            await in_thread(self._make, container, meta)
            self._known[container] = meta
        return self._root(container)

    async def mount(self, container: str) -> Root:
        meta = self._meta(container)
        await in_thread(self._driver.mount, self._path(container), meta.layers)
        return self._root(container)

    async def unmount(self, container: str) -> None:
        if container in self._known:
            await in_thread(self._driver.unmount, self._path(container))

    async def remove(self, container: str) -> None:
        if container in self._known:
            await in_thread(self._drop, container)
            del self._known[container]

    def all(self) -> list[Root]:
        return [self._root(container) for container in self._known]

    def uses(self, chain: str) -> bool:
        return any(chain in meta.chains for meta in self._known.values())

    def of_image(self, image: str) -> list[str]:
        return [container for container, meta in self._known.items() if meta.image == image]

    async def usage(self, container: str) -> int:
        self._meta(container)
        upper = self._driver.upper(self._path(container)) or self._path(container)
        return int(await in_thread(_disk_usage, upper))

    # -- parts --------------------------------------------------------------------------------------
    def _make(self, container: str, meta: _Meta) -> None:
        path = self._path(container)
        self._driver.prepare(path, meta.layers)
        with open(os.path.join(path, "root.new"), "wb") as file:
            file.write(msgspec.json.encode(meta))
        os.rename(os.path.join(path, "root.new"), os.path.join(path, "root.json"))

    def _drop(self, container: str) -> None:
        path = self._path(container)
        self._driver.unmount(path)
        os.unlink(os.path.join(path, "root.json"))
        shutil.rmtree(path)

    def _meta(self, container: str) -> _Meta:
        if container not in self._known:
            raise NotFound(f"container {container[:12]} has no root file system")
        return self._known[container]

    def _path(self, container: str) -> str:
        return str(self._folder / container)

    def _root(self, container: str) -> Root:
        path = self._path(container)
        return Root(
            container=container,
            image=self._known[container].image,
            path=os.path.join(path, "root"),
            upper=self._driver.upper(path),
        )


def _disk_usage(folder: str) -> int:
    total = 0
    for base, names, files in os.walk(folder):
        for name in (*names, *files):
            total += os.lstat(os.path.join(base, name)).st_blocks * 512
    return total
