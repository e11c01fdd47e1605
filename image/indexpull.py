"""All images of an index, one platform after the other; layers that they share are moved once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from image import indexes
from image.digest import chain_ids
from image.incoming import Incoming
from image.layers import LayerStore
from image.manifest import Index, shown
from image.pull import LayerPull, Say
from image.reference import Reference
from image.registry.source import Document, Source
from model.image import Progress
from model.registries import Login


class IndexPull:
    """`document` is what `reference` means at its registry. `tmp` is where blobs wait to be unpacked."""

    def __init__(self, source: Source, layers: LayerStore, tmp: Path, say: Say) -> None:
        self._source = source
        self._layers = layers
        self._tmp = tmp
        self._say = say
        self._held = contextlib.ExitStack()

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Until the block ends the layers that `run` brought stay."""
        with self._held:
            yield

    async def run(
        self, reference: Reference, document: Document, index: Index, login: Login
    ) -> list[Incoming]:
        """Raises as `Source` and `LayerStore`, and Unsupported for an index of no images."""
        found = []
        text = indexes.kept(document.data)
        names = () if reference.digest else (reference.name,)
        for member in indexes.images_of(index):
            assert member.platform is not None
            self._say(Progress(status=f"Pulling {shown(member.platform)} from {reference.repository}"))
            one = replace(reference, digest=member.digest)
            remote = await self._source.resolve(one, member.platform, login)
            self._held.enter_context(self._layers.hold(chain_ids(remote.parsed.diff_ids)))
            await LayerPull(self._source, self._layers, self._tmp, self._say).run(remote)
            image = Incoming(
                config=remote.config,
                parsed=remote.parsed,
                names=names,
                digests=(f"{reference.repository}@{document.digest}",),
                manifest=remote.manifest,
                index=text,
            )
            found.append(image)
        return found
