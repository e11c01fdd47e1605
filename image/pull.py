"""An image's missing layers from its registry: several at a time, unpacked bottom first while others come."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from aio.supervisor import in_thread
from image.digest import chain_ids
from image.layers import LayerStore
from image.manifest import Descriptor
from image.packed import Packed
from image.part import Part
from image.registry.source import Remote, Source
from model.errors import FlotaError
from model.image import Progress

PARALLEL = 3
"""Layers on their way at once, as Docker does; more seldom makes one registry faster."""
Say = Callable[[Progress], None]


class LayerPull:
    """One pull. `tmp` is where blobs wait to be unpacked."""

    def __init__(self, source: Source, layers: LayerStore, tmp: Path, say: Say) -> None:
        self._source = source
        self._layers = layers
        self._tmp = tmp
        self._say = say
        self._slots = asyncio.Semaphore(PARALLEL)
        self._arrived: dict[str, asyncio.Event] = {}

    async def run(self, remote: Remote) -> None:
        """All layers of the image are on this host when this returns. Raises as `Source` and `LayerStore`."""
        chains = chain_ids(remote.parsed.diff_ids)
        missing = []
        for layer, chain in zip(remote.layers, chains, strict=True):
            if self._layers.blob(chain) is None:
                missing.append(layer)
            else:
                self._say(Progress(status="Already exists", id=layer.digest[7:19]))
        folder = self._tmp / f"pull-{secrets.token_hex(8)}"
        try:  # named before it is made: whoever is cut short while it is made takes it away
            await in_thread(folder.mkdir, 0o700)
            async with asyncio.TaskGroup() as group:
                for layer in {layer.digest: layer for layer in missing}.values():
                    self._arrived[layer.digest] = asyncio.Event()
                    group.create_task(self._download(remote, layer, folder))
                await self._unpack(remote, chains, folder)
        except ExceptionGroup as failures:
            raise _first(failures) from failures
        finally:
            await in_thread(shutil.rmtree, folder, True)

    async def _download(self, remote: Remote, layer: Descriptor, folder: Path) -> None:
        short = layer.digest[7:19]

        def hear(size: int) -> None:
            self._say(Progress(status="Downloading", id=short, current=size, total=layer.size))

        async with self._slots:
            await self._source.download(remote, layer, _blob(folder, layer), hear)
        self._say(Progress(status="Download complete", id=short))
        self._arrived[layer.digest].set()

    async def _unpack(self, remote: Remote, chains: tuple[str, ...], folder: Path) -> None:
        left = [layer.digest for layer in remote.layers]
        for number, (layer, chain) in enumerate(zip(remote.layers, chains, strict=True)):
            left.remove(layer.digest)
            if layer.digest not in self._arrived:
                continue
            await self._arrived[layer.digest].wait()
            short = layer.digest[7:19]
            self._say(Progress(status="Extracting", id=short, total=layer.size))
            diff = remote.parsed.diff_ids[number]
            blob = Part(path=str(_blob(folder, layer)))
            packed = Packed(digest=layer.digest, size=layer.size)
            await self._layers.unpack(blob, chain, diff, below=chains[:number], packed=packed)
            self._say(Progress(status="Pull complete", id=short))
            if layer.digest not in left:
                _blob(folder, layer).unlink()


def _blob(folder: Path, layer: Descriptor) -> Path:
    return folder / layer.digest.removeprefix("sha256:")


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error for people: what went wrong first on purpose, else the first bug."""
    flat: list[BaseException] = []
    pending: list[BaseException] = [failures]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            flat.append(error)
    return next((error for error in flat if isinstance(error, FlotaError)), flat[0])
