"""Documents of an image that came from another host: whether each is what the one before it names. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from image.digest import of
from image.manifest import (
    Configuration,
    Index,
    Manifest,
    choose,
    parse_configuration,
    parse_document,
)
from model.errors import Damaged
from model.spec import Struct
from model.status import Platform

MAX_DOCUMENTS = 4


class Chain(Struct):
    """What they say, verified: `data` is the manifest's own bytes."""

    manifest: Manifest
    data: bytes
    configuration: Configuration
    indexes: tuple[bytes, ...] = ()


def checked(documents: Sequence[bytes], config: bytes, digest: str, platform: Platform) -> Chain:
    """`digest` is that of the first document, or of the configuration. Raises Damaged; Unsupported for a
    platform that an index has not."""
    if not 1 <= len(documents) <= MAX_DOCUMENTS:
        raise Damaged(f"an image has {len(documents)} documents")
    by_config = of(config) == digest
    wanted = of(documents[-1]) if by_config else digest
    indexes: list[bytes] = []
    for data in documents[-1:] if by_config else documents:
        if of(data) != wanted:
            raise Damaged(f"a document does not match its digest {wanted[:19]}")
        parsed = parse_document(data)
        if isinstance(parsed, Manifest):
            return _whole(parsed, data, config, tuple(indexes))
        assert isinstance(parsed, Index)
        indexes.append(data)
        wanted = choose(parsed, platform).digest
    raise Damaged("the documents lead to no manifest")


def _whole(manifest: Manifest, data: bytes, config: bytes, indexes: tuple[bytes, ...]) -> Chain:
    if of(config) != manifest.config.digest:
        raise Damaged("the configuration does not match its digest")
    parsed = parse_configuration(config)
    if len(parsed.diff_ids) != len(manifest.layers):
        raise Damaged(f"{len(manifest.layers)} layers, but {len(parsed.diff_ids)} in the configuration")
    return Chain(manifest=manifest, data=data, configuration=parsed, indexes=indexes)
