"""Bodies of the HTTP API about images at registries. Pure."""

from __future__ import annotations

from model.spec import (
    Struct,
)


class RemoteImage(Struct):
    """What a reference names at its registry."""

    ref: str
    digest: str
    media_type: str = ""
    size: int = 0
    document: str = ""
    """The manifest or index, as it came."""
    platforms: tuple[str, ...] = ()
    """`os/arch[/variant]` of an index; of an image where its configuration was asked for, too."""


class PushIndex(Struct):
    """An index to be pushed: `document` is its JSON; what it names lies in the repository already or in one
    of `origins`."""

    document: str
    origins: tuple[str, ...] = ()


class PushedIndex(Struct):
    digest: str
