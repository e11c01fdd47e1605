"""The configuration of an image made of a container: its base's, one more layer, one more line of history.
Pure."""

from __future__ import annotations

from msgspec.structs import replace

from image.config_blob import timestamp
from image.manifest import Configuration
from model.image import HistoryEntry, ImageConfig, Origin
from model.spec import Struct


class Commit(Struct):
    """What an image is to be made of besides a container's files."""

    config: ImageConfig
    ref: str = ""
    """Its name; empty: none."""
    author: str = ""
    message: str = ""
    created_by: str = ""
    """The container's command, for the history."""
    origin: Origin = Origin()
    at: float = 0.0
    """Unix seconds."""
    quiet: tuple[str, ...] = ()
    """See `image.layertar.Changed`."""


def committed(base: Configuration, wish: Commit, diff_id: str) -> Configuration:
    entry = HistoryEntry(
        created=timestamp(wish.at), created_by=wish.created_by, comment=wish.message, author=wish.author
    )
    return replace(
        base,
        diff_ids=(*base.diff_ids, diff_id),
        config=wish.config,
        created=wish.at,
        author=wish.author,
        origin=wish.origin,
        history=(*base.history, entry),
        cache="",
    )
