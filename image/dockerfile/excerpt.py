"""The lines around a place in a Dockerfile, with a caret under it, for a screen. Pure.

Invariant: what is shown holds no control characters, whatever the file holds, and has a bounded width.
"""

from __future__ import annotations

import unicodedata

from image.dockerfile.instruction import Spot

WIDTH = 100
"""Columns of a shown line, beside its number."""
BEFORE = 2
"""Lines shown above."""


def excerpt(text: str | bytes, spot: Spot) -> str:
    """Empty if the file has no such line. Lines end without a line feed at the end of the last."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    lines = text.removeprefix("\ufeff").split("\n")
    if not 1 <= spot.line <= len(lines):
        return ""
    raw = lines[spot.line - 1].rstrip("\r")
    column = max(1, min(spot.column, len(raw) + 1))
    start = max(0, column - 1 - WIDTH * 2 // 3) if len(raw) > WIDTH else 0
    gutter = len(str(spot.line))
    shown = []
    for number in range(max(1, spot.line - BEFORE), spot.line + 1):
        cut = lines[number - 1].rstrip("\r")[start : start + WIDTH]
        shown.append(f" {number:>{gutter}} | {_printable(cut)}".rstrip())
    before = _printable(raw[start : column - 1])
    shown.append(f" {'':>{gutter}} | {''.join(_blank(char) for char in before)}^")
    return "\n".join(shown)


def _printable(text: str) -> str:
    return "".join("    " if char == "\t" else char if char.isprintable() else "·" for char in text)


def _blank(char: str) -> str:
    if unicodedata.combining(char):
        return ""
    return "  " if unicodedata.east_asian_width(char) in "WF" else " "
