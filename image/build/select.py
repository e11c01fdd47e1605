"""Which files the sources of a COPY or ADD mean, in the place that they are taken from. Pure, but for the
looking into it.

As BuildKit (its dockerfile2llb and tonistiigi/fsutil's copy): a source is cleaned as if the place were `/`,
so no `..` leads out; wildcards are Go's filepath.Match, and may match nothing; the file that a source names
is followed when it is a link, those that a directory holds are not. Invariant: the answer is in the order of
the sources, and of names among what one of them matches.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from image.build.places import Folder, Found, Item, Missing, descend, find, parts_of, shown
from image.dockerfile.globs import has_wildcards, match
from image.dockerfile.patterns import Patterns
from model.errors import InvalidInput, NotFound

_MAX_NEAR = 1000
"""Names of a directory among which one like the missing is looked for."""


class Picked(NamedTuple):
    """`parts` lead to it without a link; `name` is what it is called by its source, under which it is written
    into a directory; of the place's top it is empty. `only`: of a directory (`--parents`), what of it, with
    the directories that lead there."""

    parts: tuple[bytes, ...]
    name: bytes
    item: Item
    only: Patterns | None = None
    required: str = ""
    """The source as written, if something of `only` has to be there."""


def picked(top: Folder, source: str) -> list[Picked]:
    """Nothing for a wildcard without a match. Raises NotFound, InvalidInput."""
    parts = parts_of(os.fsencode(source))
    texts = [os.fsdecode(part) for part in parts]
    first = next((index for index, text in enumerate(texts) if has_wildcards(text)), len(parts))
    base = _found(top, parts[:first], source)
    if first == len(parts):
        return [Picked(base.parts, parts[-1] if parts else b"", base.item)]
    if base.item.kind != "dir":
        raise NotFound(f"{source}: {shown(b'/'.join(parts[:first]))} is no directory")
    here = descend(top, base.parts)
    try:
        found = []
        for names in _matched(here, texts[first:]):
            end = _found(top, [*base.parts, *names], source)
            found.append(Picked(end.parts, names[-1], end.item))
        return found
    finally:
        if here is not top:
            here.close()


def _matched(folder: Folder, patterns: Sequence[str]) -> Iterator[tuple[bytes, ...]]:
    for name in folder.names():
        if not match(patterns[0], os.fsdecode(name)):
            continue
        if len(patterns) == 1:
            yield (name,)
            continue
        item = folder.item(name)
        if item is None or item.kind != "dir":
            continue
        below = folder.enter(name)
        try:
            for names in _matched(below, patterns[1:]):
                yield (name, *names)
        finally:
            below.close()


def with_parents(top: Folder, source: str) -> list[Picked]:
    """As `picked` of `--parents`: the directory to begin at, the place's top or what stands before `/./`,
    with what of it is meant. Raises NotFound, InvalidInput."""
    before, pivot, pattern = source.partition("/./")
    if not pivot:
        before, pattern = "", source
    texts = [os.fsdecode(part) for part in parts_of(os.fsencode(pattern))]
    if not texts:
        return [one._replace(name=b"") for one in picked(top, before or "/")]
    only = Patterns(("/".join(texts),), where=lambda _: source)
    required = "" if has_wildcards(before) or any(map(has_wildcards, texts)) else source
    starts = picked(top, before or "/") if before else [Picked((), b"", top.itself())]
    for start in starts:
        if start.item.kind != "dir":
            raise InvalidInput(f"{source}: what is before /./ is no directory")
    return [start._replace(only=only, required=required) for start in starts]


def _found(top: Folder, parts: Sequence[bytes], source: str) -> Found:
    try:
        return find(top, parts)
    except Missing as missing:
        raise absent(source, missing) from None


def absent(source: str, missing: Missing | None = None) -> NotFound:
    """For people: which source is not there, and what there is instead."""
    if missing is not None and missing.file:
        return NotFound(f"{source}: {shown(missing.part)} is no directory")
    near: list[str] = []
    if missing is not None and len(missing.names) <= _MAX_NEAR:
        names = [os.fsdecode(name) for name in missing.names]
        near = difflib.get_close_matches(os.fsdecode(missing.part), names, 1)
    told = f"{shown(os.fsencode(near[0]))} is. " if near else ""
    return NotFound(
        f"{source} is not there",
        hint=f"{told}Sources are looked for from the top of where they come from; of a build context, what "
        ".dockerignore excludes is left out",
    )
