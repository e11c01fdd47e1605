"""Container roots on disk: a writable layer each, over an image's layers.

    roots/<container>/root.json + what the driver makes

Invariants: a folder without root.json was half-made; it is removed at start. A root that somebody borrowed
stays mounted until the last one has given it back, whatever the container does meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec

from aio.supervisor import in_thread
from aio.together import to_its_end
from image.base import Root
from image.drivers.base import StorageDriver
from image.drivers.mounts import is_mounted
from image.layertar import Changed
from image.trash import Trash
from model.codec import UNREADABLE
from model.errors import Damaged, FlotaError, NotFound
from model.spec import Struct


class _Meta(Struct):
    image: str
    chains: tuple[str, ...]
    """Of the image's layers, bottom first."""


class Roots:
    """`layer_path` is where a layer of a chain id lies; it raises Damaged for one that is gone."""

    def __init__(
        self, folder: Path, *, driver: StorageDriver, trash: Trash, layer_path: Callable[[str], str]
    ) -> None:
        self._folder = folder
        self._driver = driver
        self._trash = trash
        self._layer_path = layer_path
        self._known: dict[str, _Meta] = {}
        self._making: dict[str, _Meta] = {}
        self._standing: set[str] = set()
        """Mounted for their containers."""
        self._borrowed: Counter[str] = Counter()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def open(self) -> None:
        """Read what there is; what is half-made goes. Raises Damaged for a record that can't be read: what a
        container wrote is not thrown away on a guess."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in list(self._folder.iterdir()):
            try:
                data = (entry / "root.json").read_bytes()
            except FileNotFoundError:
                data = b""
            if not data:
                self._driver.unmount(str(entry))
                self._trash.put(entry)
                continue
            try:
                self._known[entry.name] = msgspec.json.decode(data, type=_Meta)
            except UNREADABLE as error:
                raise Damaged(
                    f"{entry}/root.json can't be read: {error}", hint=f"Move {entry} away, then start again"
                ) from error
            if is_mounted(str(entry / "root")):
                self._standing.add(entry.name)

    async def prepare(self, container: str, image: str, chains: tuple[str, ...]) -> Root:
        """`chains` are the ids of the image's layers, bottom first."""
        if container not in self._known:
            meta = self._making[container] = _Meta(image=image, chains=chains)
            try:
                await in_thread(self._make, container, meta)
            finally:
                del self._making[container]
        return self._root(container)

    async def mount(self, container: str) -> Root:
        self._meta(container)
        self._standing.add(container)
        return await self._mount(container)

    async def _mount(self, container: str) -> Root:
        layers = self._layers(container)
        async with self._turn(container):
            await in_thread(self._driver.mount, self._path(container), layers)
        return self._root(container)

    def _turn(self, container: str) -> asyncio.Lock:
        """One at a time mounts or unmounts; ends with the last who holds it."""
        return self._turns.setdefault(container, asyncio.Lock())

    async def unmount(self, container: str) -> None:
        self._standing.discard(container)
        await self._unmount(container)

    async def _unmount(self, container: str) -> None:
        async with self._turn(container):
            wanted = container in self._standing or self._borrowed[container]
            if container in self._known and not wanted:
                await in_thread(self._driver.unmount, self._path(container))

    @contextlib.asynccontextmanager
    async def borrow(self, container: str) -> AsyncIterator[Root]:
        """Mounted until the block ends, also where nothing runs in it."""
        self._meta(container)
        self._borrowed[container] += 1
        try:
            yield await self._mount(container)
        finally:
            self._borrowed[container] -= 1
            self._borrowed += Counter()  # drops what nobody has
            await to_its_end(self._unmount(container))

    def changed(self, container: str) -> tuple[Changed, tuple[str, ...]]:
        """Where the container's changes lie, and the directories of the layers below, top first."""
        path = self._path(container)
        layers = tuple(reversed(self._layers(container)))
        upper = self._driver.upper(path)
        return Changed(path=upper or os.path.join(path, "root"), whole=not upper), layers

    @contextlib.contextmanager
    def there(self, container: str) -> Iterator[None]:
        """Work on a root: where it fails and the root was removed meanwhile, that is the reason. Raises
        NotFound then."""
        try:
            yield
        except FlotaError:
            self._meta(container)
            raise

    def of(self, container: str) -> tuple[str, tuple[str, ...]]:
        """(its image's id, chain ids of the layers below, bottom first)."""
        meta = self._meta(container)
        return meta.image, meta.chains

    async def remove(self, container: str) -> None:
        if container in self._known:
            try:
                await in_thread(self._drop, container)
            finally:
                self._trash.wake()

    def all(self) -> list[Root]:
        return [self._root(container) for container in self._known]

    def chains(self) -> set[str]:
        """Of all layers that a root stands on."""
        metas = (*self._known.values(), *self._making.values())
        return {chain for meta in metas for chain in meta.chains}

    def images(self) -> set[str]:
        """Ids of those that a root stands on."""
        return {meta.image for meta in (*self._known.values(), *self._making.values())}

    def of_image(self, image: str) -> list[str]:
        """Containers whose root stands on the image."""
        return [c for c, meta in (*self._known.items(), *self._making.items()) if meta.image == image]

    async def usage(self, container: str) -> int:
        self._meta(container)
        path = self._path(container)
        upper = self._driver.upper(path) or os.path.join(path, "root")
        return int(await in_thread(_disk_usage, upper))

    # -- parts --------------------------------------------------------------------------------------
    def _make(self, container: str, meta: _Meta) -> None:
        path = self._path(container)
        self._driver.prepare(path, [self._layer_path(chain) for chain in meta.chains])
        with open(os.path.join(path, "root.new"), "wb") as file:
            file.write(msgspec.json.encode(meta))
        os.rename(os.path.join(path, "root.new"), os.path.join(path, "root.json"))
        self._known[container] = meta  # here, as a cancelled caller would forget what is on disk

    def _drop(self, container: str) -> None:
        path = self._path(container)
        self._driver.unmount(path)
        self._driver.discard(path)
        self._trash.put(Path(path))
        self._known.pop(container, None)
        self._standing.discard(container)

    def _layers(self, container: str) -> list[str]:
        return [self._layer_path(chain) for chain in self._meta(container).chains]

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
            try:
                total += os.lstat(os.path.join(base, name)).st_blocks * 512
            except FileNotFoundError:  # the container runs, and removed it just now
                continue
    return total
