"""A directory that a COPY takes from, entry by entry, with what is left out by `--exclude` and `--parents`.

Invariant: a directory is told of before what is in it, in the order of names; of one that is not meant itself
(`meant` is false) only what is below is, so it is made when, and if, that comes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from image.build.places import MAX_DEPTH, Folder, Item, shown
from image.dockerfile.patterns import Folder as Matching
from image.dockerfile.patterns import Patterns
from model.errors import InvalidInput


class Step(NamedTuple):
    """An entry, or with an empty name the end of the directory that was told of last and not ended yet.
    `folder` holds the entry, and is open until the next step; so is `inner`, a directory itself."""

    folder: Folder
    name: bytes
    item: Item
    depth: int
    meant: bool = True
    inner: Folder | None = None


def walk(folder: Folder, only: Patterns | None, without: Patterns | None, depth: int = 0) -> Iterator[Step]:
    """What is in an open directory. Raises InvalidInput for one that is too deep."""
    return _walk(folder, _root(only), _root(without), depth)


def _root(patterns: Patterns | None) -> Matching | None:
    return None if patterns is None else patterns.root


def _walk(folder: Folder, only: Matching | None, without: Matching | None, depth: int) -> Iterator[Step]:
    for name in folder.names():
        item = folder.item(name)
        if item is None:
            continue
        text = os.fsdecode(name)
        meant = (only is None or only.matches(text)) and not (without is not None and without.matches(text))
        if item.kind != "dir":
            if meant:
                yield Step(folder, name, item, depth)
            continue
        onward = only and only.enter(text)
        outward = without and without.enter(text)
        if onward is not None and onward.settled and not onward.matched:
            continue
        if outward is not None and outward.settled and outward.matched:
            continue
        if depth >= MAX_DEPTH:
            raise InvalidInput(f"{shown(name)} is deeper than {MAX_DEPTH} directories")
        inner = folder.enter(name)
        try:
            yield Step(folder, name, item, depth, meant, inner)
            yield from _walk(inner, onward, outward, depth + 1)
            yield Step(folder, b"", item, depth, meant, inner)
        finally:
            inner.close()
