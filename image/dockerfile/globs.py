"""Globs: `*`, `?`, `[a-z]` and `\\x` as Go's `filepath.Match` reads them, and `**` as Docker adds it. Pure.

Names are text; bytes that are no UTF-8 come as `os.fsdecode` gives them, one character each. Invariant: a
glob is judged in a time that grows with its length times that of the name, whatever it says: after a `*` the
leftmost place of what follows is the only one that is tried, which is Go's own rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal

from model.errors import InvalidInput
from model.spec import Struct

SPECIAL = re.compile(r"[*?\[\\]")


class GlobFault(InvalidInput):
    """`offset`: of the character, from 0, at which the pattern goes wrong."""

    def __init__(self, pattern: str, offset: int, message: str, hint: str) -> None:
        self.offset = offset
        shown = pattern if len(pattern) <= 80 else pattern[:77] + "…"
        super().__init__(f"the pattern {shown!r} {message}", hint=hint)


class Token(Struct):
    """one: a single character; star: any but `/`, also none; folders: `**/`, whole folders, also none; rest:
    anything at all."""

    kind: Literal["one", "star", "folders", "rest"]
    regex: str = ""
    """Of one: what matches that character alone."""
    literal: str = ""
    slash: bool = False
    """Of one: whether a `/` is matched by what is no `/` itself."""


STAR = Token(kind="star")
FOLDERS = Token(kind="folders")
REST = Token(kind="rest")
ANY = Token(kind="one", regex="[^/]")


def tokens(pattern: str, *, deep: bool = False) -> list[Token]:
    """`deep`: `**` stands for folders. Raises GlobFault."""
    found: list[Token] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            token, at = _stars(pattern, at) if deep else (STAR, at + 1)
            if not found or found[-1] is not token:
                found.append(token)
        elif char == "?":
            found.append(ANY)
            at += 1
        elif char == "[":
            token, at = _class(pattern, at)
            found.append(token)
        else:
            literal, at = _character(pattern, at)
            found.append(Token(kind="one", regex=re.escape(literal), literal=literal))
    return found


def _stars(pattern: str, at: int) -> tuple[Token, int]:
    if not pattern.startswith("**", at):
        return STAR, at + 1
    at += 3 if pattern.startswith("/", at + 2) else 2
    return (REST if at >= len(pattern) else FOLDERS), at


def _character(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] != "\\":
        return pattern[at], at + 1
    if at + 1 == len(pattern):
        raise GlobFault(pattern, at, "ends with a backslash", "Write \\\\ for a backslash itself")
    return pattern[at + 1], at + 2


def _class(pattern: str, start: int) -> tuple[Token, int]:
    at = start + 1
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and pattern.startswith("]", at)):
        low, at = _bound(pattern, start, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _bound(pattern, start, at + 1)
        if low > high:
            hint = "Write the lower end of a range first"
            raise GlobFault(pattern, at, f"has the empty range {low}-{high}", hint)
        ranges.append((low, high))
    inside = "".join(f"{re.escape(low)}-{re.escape(high)}" for low, high in ranges)
    slash = negated != any(low <= "/" <= high for low, high in ranges)
    return Token(kind="one", regex=f"[{'^' * negated}{inside}]", slash=slash), at + 1


def _bound(pattern: str, start: int, at: int) -> tuple[str, int]:
    if at >= len(pattern):
        hint = "Close it with ], or write \\[ for the character itself"
        raise GlobFault(pattern, start, "has a [ that is never closed", hint)
    if pattern[at] in "-]":
        hint = f"Write \\{pattern[at]} for the character itself"
        raise GlobFault(pattern, at, f"has a {pattern[at]} where a character of [ ] is expected", hint)
    return _character(pattern, at)


def runs(found: Sequence[Token]) -> Iterator[str]:
    """Regular expressions of what stands between stars: one more than there are stars."""
    run: list[str] = []
    for token in found:
        if token.kind == "one":
            run.append(token.regex)
        else:
            yield "".join(run)
            run = []
    yield "".join(run)


def regex_of(found: Sequence[Token]) -> str:
    """Of tokens that are characters and stars, to be matched from the start. Atomic groups hold to the
    leftmost place."""
    first, *others = runs(found)
    if not others:
        return first + r"\Z"
    middle = "".join(f"(?>[^/]*?{run})" for run in others[:-1] if run)
    return rf"{first}{middle}[^/]*?{others[-1]}\Z"


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """Its `match` is Go's. Raises GlobFault."""
    return re.compile(regex_of(tokens(pattern)))


def match(pattern: str, name: str) -> bool:
    """Go's `filepath.Match`: the whole name, and no `*` or `?` reaches over a `/`. Raises GlobFault."""
    return compiled(pattern).match(name) is not None


def has_wildcards(pattern: str) -> bool:
    """Whether it could stand for more than one name."""
    return any(found.group()[0] != "\\" for found in re.finditer(r"\\.|[*?\[]", pattern, re.DOTALL))


def literal(name: str) -> str:
    """The pattern that matches that name alone."""
    return SPECIAL.sub(lambda found: f"[\\{found.group()}]", name)
