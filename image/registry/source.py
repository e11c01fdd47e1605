"""Where images come from and go to: the Source seam, and the answer of a host that may not.

A pull is two steps, so that only layers that are not here yet are moved: `resolve` fetches the documents,
`download` one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from image.attestations import Attached
from image.manifest import Configuration, Descriptor, Index, Manifest
from image.reference import Reference
from model.api import FoundImage
from model.errors import NotFound
from model.image import Progress
from model.registries import NOBODY, Login
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
    manifest: bytes = b""
    """The platform's own, as it came."""
    indexes: tuple[bytes, ...] = ()
    """Those that led from the reference to it, in order, as they came."""
    login: Login = NOBODY
    access: object = None
    """The source's own: how it reached the image."""


class Document(Struct):
    """A manifest or an index at its registry, as it came."""

    data: bytes
    digest: str
    media_type: str
    parsed: Manifest | Index


class Blob(Struct):
    """A layer as it travels, in a file of ours."""

    descriptor: Descriptor
    path: Path


class Outgoing(Struct):
    """An image that is to be pushed as `reference`: `layers` bottom first."""

    reference: Reference
    manifest: bytes
    media_type: str
    config: bytes
    layers: tuple[Blob, ...]
    mounts: tuple[str, ...] = ()
    """Repositories of the same registry that may have its layers already."""


class IndexPush(Struct):
    """An index that is to be pushed as `reference`. What it names is there already, is among `attached`, or
    can be had from one of `origins`, which are repositories."""

    reference: Reference
    data: bytes
    media_type: str
    origins: tuple[Reference, ...] = ()
    attached: tuple[Attached, ...] = ()


class Source(Protocol):
    async def resolve(self, reference: Reference, platform: Platform, login: Login = NOBODY) -> Remote:
        """Raises NotFound, Unavailable, Unauthenticated, Damaged, Unsupported."""
        ...

    async def download(
        self, remote: Remote, layer: Descriptor, path: Path, progress: Callable[[int], None]
    ) -> None:
        """The layer's blob into the file `path`, verified; `progress` hears how many of its first bytes are
        there: fewer than before, before any of them changes. Raises as `resolve`, and Exhausted without
        space."""
        ...

    async def document(self, reference: Reference, login: Login = NOBODY, *, near: bool = False) -> Document:
        """What a reference names at its registry, with nothing else fetched; `near`: at the first of its
        mirrors that has it, as `resolve`. Raises as `resolve`."""
        ...

    async def artifact(self, reference: Reference, config: str, login: Login = NOBODY) -> Remote | None:
        """A manifest whose configuration has this media type: `Remote.config` are its bytes, `parsed` says
        nothing. None for anything else by that name. Raises as `resolve`."""
        ...

    async def push(
        self, outgoing: Outgoing, login: Login = NOBODY, say: Callable[[Progress], None] = ...
    ) -> str:
        """The digest of its manifest, once the registry has all of it. Raises as `resolve`."""
        ...

    async def push_index(
        self, index: IndexPush, login: Login = NOBODY, say: Callable[[Progress], None] = ...
    ) -> str:
        """Its digest, once the registry has it and all that it names. Raises as `resolve`."""
        ...

    async def push_referrers(
        self,
        subject: str,
        origin: Reference,
        target: Reference,
        login: Login = NOBODY,
        say: Callable[[Progress], None] = ...,
    ) -> int:
        """What refers to the manifest of that digest in the repository of `origin`, into that of `target`,
        which has the manifest; how many there are. The login goes to the target's registry alone. Raises as
        `resolve`."""
        ...

    async def check_login(self, registry: str, login: Login) -> None:
        """Raises Unauthenticated when the registry does not take it."""
        ...

    async def tags(self, reference: Reference, login: Login = NOBODY) -> Sequence[str]:
        """Of the reference's repository. Raises as `resolve`."""
        ...

    async def search(self, term: str, limit: int, login: Login = NOBODY) -> Sequence[FoundImage]:
        """Raises Unsupported where a registry can't be searched."""
        ...

    async def close(self) -> None: ...


class NoSource:
    """For hosts and tests without any registry."""

    async def resolve(self, reference: Reference, platform: Platform, login: Login = NOBODY) -> Remote:
        raise NotFound(f"no such image: {reference.familiar}", hint="This host pulls from no registry")

    async def download(
        self, remote: Remote, layer: Descriptor, path: Path, progress: Callable[[int], None]
    ) -> None:
        raise NotFound(f"no such layer: {layer.digest}")

    async def document(self, reference: Reference, login: Login = NOBODY, *, near: bool = False) -> Document:
        raise NotFound(f"no such image: {reference.familiar}", hint="This host knows no registry")

    async def artifact(self, reference: Reference, config: str, login: Login = NOBODY) -> Remote | None:
        raise NotFound(f"no such image: {reference.familiar}", hint="This host knows no registry")

    async def push(
        self, outgoing: Outgoing, login: Login = NOBODY, say: Callable[[Progress], None] = lambda _: None
    ) -> str:
        raise NotFound(f"no registry {outgoing.reference.host}", hint="This host knows no registry")

    async def push_index(
        self, index: IndexPush, login: Login = NOBODY, say: Callable[[Progress], None] = lambda _: None
    ) -> str:
        raise NotFound(f"no registry {index.reference.host}", hint="This host knows no registry")

    async def push_referrers(
        self,
        subject: str,
        origin: Reference,
        target: Reference,
        login: Login = NOBODY,
        say: Callable[[Progress], None] = lambda _: None,
    ) -> int:
        raise NotFound(f"no registry {target.host}", hint="This host knows no registry")

    async def check_login(self, registry: str, login: Login) -> None:
        raise NotFound(f"no registry {registry}", hint="This host knows no registry")

    async def tags(self, reference: Reference, login: Login = NOBODY) -> Sequence[str]:
        raise NotFound(f"no such repository: {reference.familiar}", hint="This host knows no registry")

    async def search(self, term: str, limit: int, login: Login = NOBODY) -> Sequence[FoundImage]:
        raise NotFound(f"no registry to search for {term}", hint="This host knows no registry")

    async def close(self) -> None:
        return
