"""A step's result as hosts of the fleet give it to each other: the layers that it comes to, by their digests.
Pure.

Nothing here is proof that the step gives these files: that, a host believes another host of its fleet. What
the layers' digests say is checked as with any layer.
"""

from __future__ import annotations

from model.spec import Struct

MAX_LAYERS = 500
MAX_SOURCE = 1000
"""Characters of an instruction that are told."""


class SharedLayer(Struct):
    diff: str
    """Digest of its content, uncompressed."""
    blob: str
    """Of it as it travels."""
    size: int
    """Bytes of the blob."""


class SharedRecord(Struct):
    """`key` is the step's; `ident` names the files in the keys of steps that stand on it. Layers are bottom
    first, the step's own last."""

    key: str
    ident: str
    layers: tuple[SharedLayer, ...]
    created: float = 0.0
    """Unix seconds of when the step was done."""
    source: str = ""
    kind: str = ""
    size: int = 0
    """Bytes on disk of the step's own layer."""
    seconds: float = 0.0
    """That the step took."""
    host: str = ""
    """As the host that gives it is called."""
