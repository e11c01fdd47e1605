"""Where images are pulled from: the Source seam, and the answer of a host that may not pull."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from image.manifest import Configuration
from image.reference import Reference
from model.errors import NotFound
from model.image import Progress
from model.spec import Struct
from model.status import Platform


class Pulled(Struct):
    """A fetched image: everything verified, blobs in files below `folder` (which the caller removes)."""

    config: bytes
    parsed: Configuration
    blobs: tuple[str, ...]
    pinned: str
    """`repository@digest` of the manifest (or index) that the reference named."""
    folder: Path


class Source(Protocol):
    async def fetch(
        self, reference: Reference, platform: Platform, tmp: Path, say: Callable[[Progress], None]
    ) -> Pulled:
        """Raises NotFound, Unavailable, Unauthenticated, Damaged, Unsupported."""
        ...

    async def close(self) -> None: ...


class NoSource:
    """For hosts and tests without any registry."""

    async def fetch(
        self, reference: Reference, platform: Platform, tmp: Path, say: Callable[[Progress], None]
    ) -> Pulled:
        raise NotFound(f"no such image: {reference.familiar}", hint="This host pulls from no registry")

    async def close(self) -> None:
        return
