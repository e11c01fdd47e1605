"""Which files of a context are asked for: the sources of COPY and ADD, matched name by name from the top.
Pure.

Invariant: whatever a source can name is included, with all that is below it; more may be (a pattern that
can't be read asks for everything, so that whoever copies tells of it). `**` stands for any number of folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from image.context.names import Pattern, pattern_of

MAX_PATTERNS = 20_000


class Wish(NamedTuple):
    """Of one directory: what of it is asked for, as the parts of patterns that are still to match."""

    patterns: tuple[tuple[Pattern, ...], ...]

    @property
    def everything(self) -> bool:
        return not self.patterns

    def below(self, name: bytes) -> Wish | None:
        """Of the entry of that name; None: it is not asked for."""
        if not self.patterns:
            return self
        rest: dict[tuple[Pattern, ...], None] = {}
        for pattern in self.patterns:
            for left in _after(pattern, name):
                if not left:
                    return EVERYTHING
                rest[left] = None
        return Wish(tuple(rest)) if rest else None


EVERYTHING = Wish(())


def wish_of(sources: Iterable[Sequence[bytes]]) -> Wish:
    """Of sources as `parts_of` gives them; none, or one that is the top itself: everything."""
    patterns: dict[tuple[Pattern, ...], None] = {}
    for parts in sources:
        if not parts or len(patterns) >= MAX_PATTERNS:
            return EVERYTHING
        patterns[tuple(pattern_of(part) for part in parts)] = None
    return Wish(tuple(patterns))


def parts_of(path: str) -> list[bytes]:
    """A source's names from the context's top, above which nothing is: `.` and `..` resolved by letters
    alone, as Docker does."""
    parts: list[bytes] = []
    for part in path.encode("utf-8", "surrogateescape").split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return parts


def _after(pattern: tuple[Pattern, ...], name: bytes) -> Iterable[tuple[Pattern, ...]]:
    head, rest = pattern[0], pattern[1:]
    if head.deep:
        yield pattern if rest else rest
        if rest:
            yield from _after(rest, name)
    elif head.fits(name):
        yield rest
