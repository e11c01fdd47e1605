"""A container's changes as a layer's tar, as a list, or its whole tree as a tar.

Everything is read by directories that were opened before: these run on after the process has given up its
root. Invariant: the tar of a layer made here, packed again from the layer's directory, is the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from image.difference import Difference
from image.lower import LowerLayers
from image.pack import HIDE, Packer
from image.walk import Found, shown, visible, walk
from model.errors import Unsupported
from model.spec import Struct

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Changed(Struct):
    """A container's directory over its image: an overlay's upper one, or the `whole` tree."""

    path: str
    whole: bool = False
    quiet: tuple[str, ...] = ()
    """Places without a leading slash where the runtime makes mount points, which are nobody's change."""
    discarded: tuple[str, ...] = ()
    """Folders without a leading slash of a `whole` tree in which nothing counts as changed."""
    latest: int | None = None
    """Of a `whole` tree: times in the layer are no later, Unix seconds."""


def layer_of(changed: Changed, lower: LowerLayers, packer: Packer | None = None) -> Iterator[bytes]:
    """The layer that the container would add to its image. Opens what it needs at once. `packer` counts."""
    top = os.open(changed.path, _FOLDER)
    if changed.whole:
        difference = Difference(lower.fds, upper=False, times=True)
        found = _with_top(top, difference.run(top))
    else:
        found = walk(top, upper=True)
    if changed.discarded:
        found = _kept(found, changed.discarded, lower)
    found = _nameable(visible(found, _quiet(changed), _touched(lower)))
    return (packer or Packer(upper=not changed.whole, latest=changed.latest)).run(found)


def _kept(found: Iterator[Found], discarded: tuple[str, ...], lower: LowerLayers) -> Iterator[Found]:
    """Without what is in those folders; they themselves count where there was none before."""
    paths = [os.fsencode(path) for path in discarded]
    for item in found:
        if any(item.path.startswith(path + b"/") for path in paths):
            continue
        if item.path in paths and lower.find(b"/" + item.path) is not None:
            continue
        yield item


def _nameable(found: Iterator[Found]) -> Iterator[Found]:
    """In a layer a name of that kind means that another is hidden (OCI image-spec, layer.md)."""
    for item in found:
        if item.kind != "D" and item.name.startswith(HIDE):
            raise Unsupported(
                f"{shown(item.path)} has a name that no layer can hold: {HIDE.decode()} marks removed files",
                hint="Rename it or remove it in the container; `flota export` takes it as it is",
            )
        yield item


def packed(folder: str) -> Iterator[bytes]:
    """A layer's tar again, from its directory."""
    top = os.open(folder, _FOLDER)
    try:
        yield from Packer(upper=True).run(walk(top, upper=True))
    finally:
        os.close(top)


def tree_of(top: int, under: str = "") -> Iterator[bytes]:
    """All below an open directory, as if it were the folder `under`; what is mounted in it is left out. Times
    as Docker's export tells them: without fractions of seconds."""
    device = os.fstat(top).st_dev
    found = walk(top, upper=False, foreign=lambda other: other != device)
    return Packer(seconds=True).run(_below(os.fsencode(under), found) if under else found)


def _below(folder: bytes, found: Iterator[Found]) -> Iterator[Found]:
    for item in found:
        yield item._replace(path=folder + b"/" + item.path if item.path else folder)


def changes_of(changed: Changed, lower: LowerLayers) -> Iterator[Found]:
    top = os.open(changed.path, _FOLDER)
    difference = Difference(lower.fds, upper=not changed.whole, times=False)
    return visible(difference.run(top), _quiet(changed), _touched(lower))


def _with_top(top: int, found: Iterator[Found]) -> Iterator[Found]:
    yield Found("A", b"", top, b".", os.fstat(top), top)
    yield from found


def _quiet(changed: Changed) -> frozenset[bytes]:
    return frozenset(os.fsencode(place) for place in changed.quiet)


def _touched(lower: LowerLayers) -> Callable[[Found], bool]:
    """Whether a directory's own mode or owner are others than below."""

    def touched(found: Found) -> bool:
        if not found.is_folder:
            return False
        below = lower.find(b"/" + found.path)
        if below is None:
            return False
        new, old = found.status, below.status
        return (new.st_mode, new.st_uid, new.st_gid) != (old.st_mode, old.st_uid, old.st_gid)

    return touched
