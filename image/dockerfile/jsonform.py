"""The JSON form of an instruction, `["a", "b"]`, and what is wrong with one that is none. Pure.

Docker takes an array that is no JSON for a shell command, and the container fails much later. Here what
nobody means as a shell command is told at once: refused where it can't run, warned of where Docker's habit
may be relied upon (a CMD that is always overridden).
"""

from __future__ import annotations

import re

import msgspec

from image.dockerfile.faults import Mistake
from image.dockerfile.lines import SMART, SPACE
from model.codec import UNREADABLE
from model.spec import Struct

_MEANT = re.compile(r"""\[(?:["'“”‘’]|[ \t]*(?:"(?:[^"\\]|\\.)*"|'[^']*'|“[^“”]*”)[ \t]*,)""")
"""A shell's test is `[`, a space, and no comma behind its first word."""
_WORDS = re.compile(r"\[[^\s\"'\[\]$,]+(?:,\s*[^\s\"'\[\]$,]+)*\]\s*\Z")
_BARE = re.compile(r"[A-Za-z0-9._/-]+")
_PLACE = re.compile(r"\(byte (\d+)\)")
_ELEMENT = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^,\]]*)\s*([,\]]|\Z)')
_decoder = msgspec.json.Decoder(list)


class Broken(Struct):
    """An array that was meant and is none. `at`: its offset. `fatal`: it can't run as a shell command."""

    message: str
    at: int
    hint: str
    fatal: bool = False


def array(text: str, at: int = 0) -> tuple[str, ...] | None:
    """None for what is no JSON array. Raises Mistake for an array of other things than strings."""
    if not text.startswith("["):
        return None
    try:
        found = _decoder.decode(text)
    except msgspec.ValidationError:
        raise _stranger(text, at) from None
    except (*UNREADABLE, UnicodeEncodeError):
        return None
    if not all(isinstance(word, str) for word in found):
        raise _stranger(text, at)
    return tuple(found)


def broken(text: str, at: int) -> Broken | None:
    """Of text that `array` said None of. None: it may well be a shell command."""
    if not text.startswith("["):
        return None
    closed = text.rstrip(SPACE).endswith("]")
    if not _MEANT.match(text):
        if closed and _WORDS.match(text) and "," in text:
            return Broken(
                message="the words of this array have no quotes", at=at, hint=f"Write {_quoted(text)}"
            )
        return None
    if smart := SMART.search(text):
        return Broken(
            message=f"{smart[0]} is a typographic quote",
            at=at + smart.start(),
            hint='Write plain double quotes: "',
            fatal=True,
        )
    if text[1:].lstrip(" \t").startswith("'"):
        return Broken(
            message="JSON takes no single quotes, so this is a shell command and no array",
            at=at + text.index("'"),
            hint=f"Write {_quoted(text)}" if closed else 'Write double quotes: "',
        )
    if (opened := _open_string(text)) >= 0:
        return Broken(message='a " is never closed', at=at + opened, hint='End the word with "', fatal=True)
    if not closed:
        return _unclosed(text, at)
    return _misplaced(text, at)


def _misplaced(text: str, at: int) -> Broken:
    """Of an array with both its brackets and all its quotes."""
    place = _error_place(text)
    before = text[:place].rstrip(SPACE)
    message, hint = "this array is no JSON, so it is a shell command", 'Write ["a", "b"]'
    if text[place - 2 : place - 1] == "\\":
        place -= 2
        message, hint = f"{text[place : place + 2]} is no escape of JSON", "Write \\\\ for a backslash"
    elif text[place : place + 1] == "]" and before.endswith(","):
        place = len(before) - 1
        message, hint = "a comma before the closing ]", "Delete the comma"
    elif text[place : place + 1] == '"':
        message = "a comma is missing between two words"
    elif word := _BARE.match(text, place):
        message, hint = f"{word[0][:40]} has no quotes", f'Write "{word[0][:40]}"'
    return Broken(message=message, at=at + place, hint=hint)


def _open_string(text: str) -> int:
    """Offset of the quote that opens a string without an end, or -1."""
    opened = -1
    index = 0
    while index < len(text):
        if text[index] == "\\" and opened >= 0:
            index += 1
        elif text[index] == '"':
            opened = -1 if opened >= 0 else index
        index += 1
    return opened


def _unclosed(text: str, at: int) -> Broken:
    bracket = text.rfind("]")
    if bracket > 0 and text[bracket - 1 : bracket] in ('"', " ", ","):
        return Broken(
            message="something stands behind the closing ], so this is a shell command",
            at=at + bracket + 1,
            hint="Put it into the array, or write the shell form without [ ]",
        )
    return Broken(
        message="the array is never closed", at=at + len(text.rstrip(SPACE)), hint="End it with ]", fatal=True
    )


def _error_place(text: str) -> int:
    try:
        msgspec.json.decode(text)
    except UNREADABLE as error:
        if place := _PLACE.search(str(error)):
            return min(len(text.encode()[: int(place[1])].decode("utf-8", "ignore")), len(text) - 1)
    return 0


def _stranger(text: str, at: int) -> Mistake:
    """The first element that is no string."""
    index = 1
    while match := _ELEMENT.match(text, index):
        word = match[1].strip()
        if not word.startswith('"'):
            break
        index = match.end()
        if match[2] != ",":
            break
    shown = match[1].strip()[:40] if match else ""
    plain = re.fullmatch(r"[A-Za-z0-9.+-]+", shown)
    return Mistake(
        f"{shown or 'an element'} is no string, and the words of an array are strings",
        at + (match.start(1) if match else 0),
        f'Write "{shown}"' if plain else "Put it into double quotes",
    )


def _quoted(text: str) -> str:
    words = [word.strip().strip("'\"") for word in text.strip()[1:-1].split(",")]
    return msgspec.json.encode(words).decode().replace('","', '", "')[:200]
