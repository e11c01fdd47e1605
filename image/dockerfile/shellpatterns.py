"""The patterns of `${v#p}`, `${v%p}`, `${v/p/r}`: `*` and `?`, neither of which matches a line's end. Pure.

BuildKit's rules: no `[ ]`; a backslash is written before `*`, `?`, `}`, `/` and itself alone; nothing in a
replacement has a meaning of its own. Invariant: after a `*` only the leftmost place of what follows is tried
(for the longest match, the rightmost of the last run), which loses no match: what is left of the line only
gets shorter. All steps are told to `spend`, which may refuse more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Spend = Callable[[int], None]
_SEARCH = 32
"""What a search costs beside the characters it looks at."""


class Run:
    """What stands between two `*`: characters, None for a `?`."""

    def __init__(self, chars: Sequence[str | None], spend: Spend) -> None:
        self.size = len(chars)
        self.lines = "\n" in chars
        self.literal = "".join(c for c in chars if c is not None) if None not in chars else None
        self.regex = re.compile("".join("." if c is None else re.escape(c) for c in chars))
        self._spend = spend

    def at(self, value: str, start: int) -> bool:
        self._spend(self.size)
        return self.regex.match(value, start) is not None

    def first(self, value: str, start: int, last: int) -> int | None:
        """Where it begins, at `last` at the latest."""
        self._look(start, last)
        found = self.regex.search(value, start, min(len(value), last + self.size))
        return found.start() if found else None

    def final(self, value: str, start: int, last: int) -> int | None:
        """The rightmost place."""
        self._look(start, last)
        if self.literal is not None:
            place = value.rfind(self.literal, start, last + self.size)
            return None if place < 0 else place
        return next((p for p in range(last, start - 1, -1) if self.regex.match(value, p)), None)

    def _look(self, start: int, last: int) -> None:
        self._spend(_SEARCH + (last - start + 1) * (self.size + 1))


class ShellPattern:
    """Raises ValueError, with a reason, for a backslash before anything else."""

    def __init__(self, pattern: str, spend: Spend) -> None:
        self._spend = spend
        self._items = _items(pattern)
        self._runs = _runs(self._items, spend)

    def without_prefix(self, value: str, *, longest: bool) -> str:
        end = _end(self._runs, value, 0, longest=longest)
        return value if end is None else value[end:]

    def without_suffix(self, value: str, *, longest: bool) -> str:
        end = _end(_runs(self._items[::-1], self._spend), value[::-1], 0, longest=longest)
        return value if end is None else value[: len(value) - end]

    def replaced(self, value: str, replacement: str, *, every: bool) -> str:
        """Of the longest match at the leftmost place, or of all one after another."""
        only = self._runs[0]
        if len(self._runs) == 1 and only.size and only.literal is not None:
            count = value.count(only.literal) if every else min(1, value.count(only.literal))
            self._spend(len(value) + count * len(replacement))
            return value.replace(only.literal, replacement, count)
        out: list[str] = []
        done = at = 0
        while at <= len(value):
            found = self._search(value, at)
            if found is None:
                break
            start, end = found
            out.append(value[done:start])
            if end > done or start == 0:
                self._spend(len(replacement))
                out.append(replacement)
            done = end
            at = end if end > at else at + 1
            if not every:
                break
        return "".join([*out, value[done:]])

    def _search(self, value: str, at: int) -> tuple[int, int] | None:
        first = self._runs[0]
        while at <= len(value):
            start = first.first(value, at, len(value)) if first.size else at
            if start is None:
                return None
            end = _end(self._runs, value, start, longest=True)
            if end is not None:
                return start, end
            if first.lines:
                at = start + 1
            elif (line := value.find("\n", start)) < 0:
                return None
            else:
                at = line + 1
        return None


def _items(pattern: str) -> list[str | None]:
    """Characters; None: `?`; empty: `*`."""
    found: list[str | None] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            if not found or found[-1] != "":
                found.append("")
            continue
        if char == "\\":
            char = pattern[at : at + 1]
            at += 1
            if not char or char not in "*?\\}/":
                raise ValueError(f"has \\{char}, which means nothing")
            found.append(char)
            continue
        found.append(None if char == "?" else char)
    return found


def _runs(items: Sequence[str | None], spend: Spend) -> list[Run]:
    runs: list[list[str | None]] = [[]]
    for item in items:
        if item == "":
            runs.append([])
        else:
            runs[-1].append(item)
    return [Run(run, spend) for run in runs]


def _end(runs: Sequence[Run], value: str, start: int, *, longest: bool) -> int | None:
    """Where a match that begins at `start` ends."""
    if not runs[0].at(value, start):
        return None
    at = start + runs[0].size
    for place, run in enumerate(runs[1:], 2):
        line = value.find("\n", at)
        last = len(value) if line < 0 else line
        find = run.final if longest and place == len(runs) else run.first
        found = find(value, at, last)
        if found is None:
            return None
        at = found + run.size
    return at
