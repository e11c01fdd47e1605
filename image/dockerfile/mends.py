"""What somebody probably meant: the nearest known word, a space that is missing. Pure."""

from __future__ import annotations

from collections.abc import Collection

from image.dockerfile.nodes import FORMS

_LIKELY = ("apt-get", "apk", "echo", "curl", "wget", "mkdir", "cd", "export", "pip", "npm", "yum", "dnf")


def nearest(word: str, known: Collection[str]) -> str:
    """The known word that takes the fewest edits to write, if they are few, or the only one that begins so;
    else empty."""
    longer = [candidate for candidate in known if candidate.startswith(word)] if len(word) > 2 else []
    if len(longer) == 1:
        return longer[0]
    best, least = "", max(1, min(3, len(word) // 3)) + 1
    for candidate in sorted(known):
        if abs(len(candidate) - len(word)) < least:
            edits = _edits(word, candidate)
            if edits < least:
                best, least = candidate, edits
    return best


def keyword(word: str) -> tuple[str, int]:
    """(what to do, how many characters of the word are right) about a first word that is no instruction."""
    shown = word[:40]
    upper = word.upper()
    if upper.isalpha() and len(word) <= 16 and (known := nearest(upper, FORMS)):
        return f"Did you mean {known}?", 0
    for name in sorted(FORMS, key=len, reverse=True):
        rest = word[len(name) :]
        if upper.startswith(name) and rest:
            gap = "that is no plain space " if not rest[0].isprintable() else ""
            if gap:
                return f"The character after {name} is no plain space: write one", len(name)
            return f"Put a space after {name}: {name} {shown[len(name) :]}", len(name)
    if word.startswith(("//", "--", "/*", ";", "REM ")):
        return "A comment begins with #", 0
    if word.lower() in _LIKELY:
        return f"A command is run by RUN: RUN {shown} …; does the line before end in a continuation?", 0
    return "Does the line before end in a continuation?", 0


def _edits(left: str, right: str) -> int:
    """Damerau's distance with adjacent letters swapped at most once."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for index, char in enumerate(left, 1):
        older, before, row = before, row, [index]
        for place, other in enumerate(right, 1):
            cost = min(before[place] + 1, row[-1] + 1, before[place - 1] + (char != other))
            swapped = index > 1 and place > 1 and char == right[place - 2] and left[index - 2] == other
            row.append(min(cost, older[place - 2] + 1) if swapped else cost)
    return row[-1]
