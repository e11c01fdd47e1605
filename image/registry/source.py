"""Where images are pulled from: the Source seam, and the answer of a host that may not pull.

A pull is two steps, so that only layers that are not here yet are moved: `resolve` fetches the documents,
`download` one layer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from image.manifest import Configuration, Descriptor
from image.reference import Reference
from model.errors import NotFound
from model.spec import Struct
from model.status import Platform


class Remote(Struct):
    """An image at its registry, its documents verified: `layers` are blobs, bottom first, one per diff id."""

    reference: Reference
    config: bytes
    parsed: Configuration
    layers: tuple[Descriptor, ...]
    pinned: str
    """`repository@digest` of the manifest (or index) that the reference named."""


class Source(Protocol):
    async def resolve(self, reference: Reference, platform: Platform) -> Remote:
        """Raises NotFound, Unavailable, Unauthenticated, Damaged, Unsupported."""
        ...

    async def download(
        self, remote: Remote, layer: Descriptor, path: Path, progress: Callable[[int], None]
    ) -> None:
        """The layer's blob into the file `path`, verified; `progress` hears the bytes so far. Raises as
        `resolve`, and Exhausted without space."""
        ...

    async def close(self) -> None: ...


class NoSource:
    """For hosts and tests without any registry."""

    async def resolve(self, reference: Reference, platform: Platform) -> Remote:
        raise NotFound(f"no such image: {reference.familiar}", hint="This host pulls from no registry")

    async def download(
        self, remote: Remote, layer: Descriptor, path: Path, progress: Callable[[int], None]
    ) -> None:
        raise NotFound(f"no such layer: {layer.digest}")

    async def close(self) -> None:
        return
