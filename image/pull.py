"""An image's missing layers from its registry: several at a time, each unpacked while it comes.

A layer is complete once its blob is verified, its content has its diff id, and the layers below are complete.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from aio.supervisor import in_thread
from image.arrival import Arrival
from image.digest import chain_ids
from image.layers import LayerStore
from image.manifest import Descriptor
from image.packed import Packed
from image.part import Part
from image.registry.source import Remote
from image.unpacking import Transit
from model.errors import FlotaError
from model.image import Progress

PARALLEL = 3
"""Layers on their way at once, as Docker does; more seldom makes one registry faster."""
PROCESSES = max(2, min(4, os.cpu_count() or 1))
"""Of one pull, that unpack at once: of some 30 MB each."""
Say = Callable[[Progress], None]


class Downloads(Protocol):
    """Where blobs come from; a `Source` is one."""

    async def download(
        self, remote: Remote, layer: Descriptor, path: Path, progress: Callable[[int], None]
    ) -> None: ...


class LayerPull:
    """One pull. `tmp` is where blobs wait to be unpacked."""

    def __init__(self, source: Downloads, layers: LayerStore, tmp: Path, say: Say) -> None:
        self._source = source
        self._layers = layers
        self._tmp = tmp
        self._say = say
        self._slots = asyncio.Semaphore(PARALLEL)
        self._processes = asyncio.Semaphore(PROCESSES)
        self._arrivals: dict[str, Arrival] = {}

    async def run(self, remote: Remote) -> None:
        """All layers of the image are on this host when this returns. Raises as `download`, `LayerStore`."""
        chains = chain_ids(remote.parsed.diff_ids)
        missing = [number for number, chain in enumerate(chains) if self._layers.blob(chain) is None]
        for number, layer in enumerate(remote.layers):
            if number not in missing:
                self._say(Progress(status="Already exists", id=layer.digest[7:19]))
        folder = self._tmp / f"pull-{secrets.token_hex(8)}"
        try:  # named before it is made: whoever is cut short while it is made takes it away
            await in_thread(folder.mkdir, 0o700)
            async with asyncio.TaskGroup() as group:
                wanted = [remote.layers[number] for number in missing]
                for layer in {layer.digest: layer for layer in wanted}.values():
                    self._arrivals[layer.digest] = Arrival(layer.size)
                    group.create_task(self._download(remote, layer, folder))
                done = {number: asyncio.Event() for number in missing}
                for number in missing:
                    group.create_task(self._unpack(remote, chains, number, folder, done))
        except ExceptionGroup as failures:
            raise _first(failures) from failures
        finally:
            await in_thread(shutil.rmtree, folder, True)

    async def _download(self, remote: Remote, layer: Descriptor, folder: Path) -> None:
        short, arrival = layer.digest[7:19], self._arrivals[layer.digest]

        def hear(size: int) -> None:
            arrival.hear(size)
            self._say(Progress(status="Downloading", id=short, current=size, total=layer.size))

        async with self._slots:
            await self._source.download(remote, layer, _blob(folder, layer), hear)
        self._say(Progress(status="Download complete", id=short))
        arrival.verified()

    async def _unpack(
        self,
        remote: Remote,
        chains: tuple[str, ...],
        number: int,
        folder: Path,
        done: dict[int, asyncio.Event],
    ) -> None:
        """Layer `number`; `done` says which of the missing ones are complete."""
        layer, chain, short = remote.layers[number], chains[number], remote.layers[number].digest[7:19]

        async def below() -> None:
            for lower in done:  # the one next below may be here, and one under that be missing
                if lower < number:
                    await done[lower].wait()

        arrival = self._arrivals[layer.digest]
        await arrival.begun()
        self._say(Progress(status="Extracting", id=short, total=layer.size))
        await self._layers.unpack(
            Part(path=str(_blob(folder, layer))),
            chain,
            remote.parsed.diff_ids[number],
            below=chains[:number],
            packed=Packed(digest=layer.digest, size=layer.size),
            transit=Transit(arrival, below, self._processes),
        )
        await below()
        done[number].set()
        self._say(Progress(status="Pull complete", id=short))


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
