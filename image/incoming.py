"""An image whose layers are here, on its way into the catalog. Pure."""

from __future__ import annotations

from collections.abc import Callable

from image.catalog import Entry
from image.digest import chain_ids, of
from image.layers import Layer
from image.manifest import Configuration
from model.image import ImageRecord
from model.spec import Struct


class Incoming(Struct):
    """`manifest` is the one that it came with, as it came; empty: none."""

    config: bytes
    parsed: Configuration
    names: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    manifest: bytes = b""
    index: str = ""
    """See `image.catalog.Entry`."""
    attached: tuple[bytes, ...] = ()
    """Documents of the index's attestations."""


def entry_of(
    image: Incoming, old: Entry | None, layer: Callable[[str], Layer | None], now: float = 0.0
) -> Entry:
    """`old` is what the catalog has of the same image: names and digests add up."""
    names = (*(old.record.names if old else ()), *image.names)
    pinned = (*(old.record.digests if old else ()), *image.digests)
    parsed = image.parsed
    chains = chain_ids(parsed.diff_ids)
    sizes = tuple(found.size if (found := layer(chain)) else 0 for chain in chains)
    record = ImageRecord(
        id=of(image.config),
        names=tuple(dict.fromkeys(names)),
        digests=tuple(dict.fromkeys(pinned)),
        layers=parsed.diff_ids,
        size=sum(sizes),
        layer_sizes=sizes,
        created=parsed.created,
        platform=parsed.platform,
        config=parsed.config,
        history=parsed.history,
        author=parsed.author,
        origin=parsed.origin,
    )
    manifest = of(image.manifest) if image.manifest else old.manifest if old else ""
    index = image.index or (old.index if old else "")
    attached = tuple(map(of, image.attached)) if image.index else old.attached if old else ()
    return Entry(record=record, chains=chains, manifest=manifest, arrived=now, index=index, attached=attached)
