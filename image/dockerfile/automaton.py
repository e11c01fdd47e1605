"""A glob as an automaton whose states are the bits of one number: for patterns in which a `**` or a class
reaches over folders in ways that no splitting at `/` can show (`a**b`, `a[^x]b`). Pure.

Invariant: each character costs a handful of operations on numbers of as many bits as the pattern has tokens,
so no pattern is slow.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from image.dockerfile.globs import Token

DEAD = 0
"""A state out of which nothing can match."""


class Automaton:
    """Bit i of a state: token i is to be matched next; the bit after the last: matched."""

    def __init__(self, found: Sequence[Token]) -> None:
        self._stars = _bits(found, "star")
        self._folders = _bits(found, "folders")
        self._rest = _bits(found, "rest")
        self._literals: dict[str, int] = {}
        self._classes: dict[str, tuple[re.Pattern[str], int]] = {}
        for place, token in enumerate(found):
            if token.literal:
                self._literals[token.literal] = self._literals.get(token.literal, 0) | 1 << place
            elif token.kind == "one":
                regex, bits = self._classes.get(token.regex, (None, 0))
                self._classes[token.regex] = (regex or re.compile(token.regex), bits | 1 << place)
        self._by_char: dict[str, int] = {}
        self._end = 1 << len(found)
        self.start = self._closed(1)

    def feed(self, state: int, text: str) -> int:
        for char in text:
            if not state:
                return DEAD
            fresh = (state & self._matching(char)) << 1
            if char == "/":
                fresh |= (state & self._folders) << 1
            else:
                fresh |= state & self._stars
            state = self._closed(fresh | state & self._rest) | state & self._folders
        return state

    def accepts(self, state: int) -> bool:
        return bool(state & self._end)

    def going_on(self, state: int) -> int:
        """DEAD unless more text can match."""
        return state & ~self._end

    def _matching(self, char: str) -> int:
        bits = self._by_char.get(char)
        if bits is None:
            bits = self._literals.get(char, 0)
            for regex, places in self._classes.values():
                if regex.match(char):
                    bits |= places
            self._by_char[char] = bits
        return bits

    def _closed(self, state: int) -> int:
        """And what can be reached by tokens that match nothing."""
        skippable = self._stars | self._folders | self._rest
        while True:
            more = state | (state & skippable) << 1
            if more == state:
                return state
            state = more


def _bits(found: Sequence[Token], kind: str) -> int:
    return sum(1 << place for place, token in enumerate(found) if token.kind == kind)
