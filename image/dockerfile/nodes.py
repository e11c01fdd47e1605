"""A logical line → keyword, flags and words, as BuildKit's parser splits them. Pure.

Invariant: for every file that both read, keyword, flags, words, JSON mark and heredocs are those of BuildKit;
what they mean is `instructions`' question.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Literal

from image.dockerfile.faults import Mistake
from image.dockerfile.heredocs import marks
from image.dockerfile.instruction import Heredoc
from image.dockerfile.jsonform import array
from image.dockerfile.lines import SMART, SPACE, Line
from model.spec import Struct

Form = Literal["command", "list", "words", "text", "pairs", "names", "health", "trigger"]
FORMS: Mapping[str, Form] = {
    "ADD": "list",
    "ARG": "names",
    "CMD": "command",
    "COPY": "list",
    "ENTRYPOINT": "command",
    "ENV": "pairs",
    "EXPOSE": "words",
    "FROM": "words",
    "HEALTHCHECK": "health",
    "LABEL": "pairs",
    "MAINTAINER": "text",
    "ONBUILD": "trigger",
    "RUN": "command",
    "SHELL": "command",
    "STOPSIGNAL": "text",
    "USER": "text",
    "VOLUME": "list",
    "WORKDIR": "text",
}
"""Every instruction, and how its words are split."""
_WITH_HEREDOCS = ("ADD", "COPY", "RUN")
COMMENTS = "A comment stands on a line of its own, and begins it with #"
_BLANK = re.compile(r"[\t\v\f\r ]+")
_WORD = re.compile(r"[^\t\v\f\r ]+")


class Node(Struct):
    """`words[i]` stands at `line.text[at[i]]`; of a JSON form all stand at its bracket."""

    keyword: str
    """As it is written."""
    line: Line
    start: int = 0
    """Offset of the keyword."""
    flags: tuple[str, ...] = ()
    """Unquoted."""
    flags_at: tuple[int, ...] = ()
    text: str = ""
    """What follows the flags."""
    text_at: int = 0
    words: tuple[str, ...] = ()
    at: tuple[int, ...] = ()
    json: bool = False
    heredocs: tuple[Heredoc, ...] = ()
    """With their content, tabs not chomped."""
    child: Node | None = None
    """Of ONBUILD."""
    last_line: int = 0
    old_form: bool = False
    """Of pairs: `KEY value`."""

    @property
    def name(self) -> str:
        return self.keyword.upper()

    def offset(self, word: int) -> int:
        """Where a word stands, as well as that can be told."""
        if word >= len(self.at):
            return self.text_at
        found = self.line.text.find(self.words[word], self.at[word]) if self.json else -1
        return found if found >= 0 else self.at[word]


def node(line: Line, escape: str, start: int = 0, *, trigger: bool = False) -> Node:
    """Of the instruction that begins at `start` of the line. `trigger`: it stands behind ONBUILD. Raises
    Mistake."""
    text = line.text
    end = len(text.rstrip(SPACE))
    start += len(text) - start - len(text[start:].lstrip(SPACE))
    blank = _BLANK.search(text, start, end)
    keyword = text[start : blank.start()] if blank else text[start:end]
    flags: list[tuple[str, int]] = []
    rest = len(text[:end])
    if blank:
        rest = blank.end()
        if text.startswith("-", rest) or text[rest : rest + 1] in SPACE:
            flags, rest = _flags(text, rest, end, escape)
        while rest < end and text[rest] in SPACE:
            rest += 1
    words, at, json, old, child = _words(
        "" if trigger and keyword.upper() == "ONBUILD" else keyword.upper(), line, rest, end, escape
    )
    return Node(
        keyword=keyword,
        line=line,
        start=start,
        flags=tuple(word for word, _ in flags),
        flags_at=tuple(place for _, place in flags),
        text=text[rest:end],
        text_at=rest,
        words=words,
        at=at,
        json=json,
        child=child,
        last_line=line.last,
        old_form=old,
    )


def heredoc_marks(found: Node) -> list[tuple[Heredoc, int]]:
    """Those whose bodies follow the line."""
    inner = found.child if found.name == "ONBUILD" and found.child else found
    if inner.name not in _WITH_HEREDOCS or inner.json or "<<" not in found.line.text:
        return []
    return marks(found.line.text)


_Words = tuple[tuple[str, ...], tuple[int, ...], bool, bool, Node | None]


def _words(name: str, line: Line, start: int, end: int, escape: str) -> _Words:
    form = FORMS.get(name)
    text = line.text[start:end]
    if form is None or not text:
        return (), (), False, False, None
    if form in ("command", "list"):
        if (words := array(text, start)) is not None:
            return words, (start,) * len(words), True, False, None
        if form == "command":
            return (text,), (start,), False, False, None
    if form in ("list", "words"):
        found = [(match[0], match.start()) for match in _WORD.finditer(line.text, start, end)]
    elif form == "text":
        found = [(text, start)]
    elif form == "names":
        found = quoted_words(line.text, start, end, escape)
    elif form == "pairs":
        found, old = _pairs(name, line.text, start, end, escape)
        return tuple(word for word, _ in found), tuple(at for _, at in found), False, old, None
    elif form == "trigger":
        return (), (), False, False, node(line, escape, start, trigger=True)
    else:
        return _health(line.text, start, end)
    return tuple(word for word, _ in found), tuple(at for _, at in found), False, False, None


def _health(text: str, start: int, end: int) -> _Words:
    """A word, and then a command."""
    sep = start
    while sep < end and text[sep] not in SPACE:
        sep += 1
    kind = text[start:sep]
    while sep < end and text[sep] in SPACE:
        sep += 1
    rest = text[sep:end]
    if (words := array(rest, sep)) is not None:
        return (kind, *words), (start, *((sep,) * len(words))), True, False, None
    return (
        ((kind, rest), (start, sep), False, False, None) if rest else ((kind,), (start,), False, False, None)
    )


@functools.cache
def _quoted(escape: str) -> re.Pattern[str]:
    """A word, its quotes kept: one is not ended by what stands in quotes or behind an escape."""
    esc = re.escape(escape)
    return re.compile(
        rf"""(?:[^{SPACE}"'{esc}]+|{esc}.|"(?:[^"{esc}]|{esc}.)*(?:"|{esc}?\Z)|'[^']*(?:'|\Z)|{esc}\Z)+""",
        re.DOTALL,
    )


def quoted_words(text: str, start: int, end: int, escape: str) -> list[tuple[str, int]]:
    """(word, offset): quotes and escapes are kept, a lone escape at the end is dropped."""
    found: list[tuple[str, int]] = []
    part = text[:end]
    for match in _quoted(escape).finditer(part, start):
        word = match[0]
        if match.end() == end and word.endswith(escape) and _escapes_nothing(word, escape):
            word = word[:-1]
        if word:
            found.append((word, match.start()))
    return found


def _escapes_nothing(word: str, escape: str) -> bool:
    """Whether the escape at a word's end stands for itself alone, and not within single quotes."""
    index = 0
    quote = ""
    while index < len(word):
        char = word[index]
        if char == escape and quote != "'":
            if index + 1 == len(word):
                return True
            index += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        index += 1
    return False


def _pairs(name: str, text: str, start: int, end: int, escape: str) -> tuple[list[tuple[str, int]], bool]:
    """Key and value alternate. A first word without = makes it the old form, `KEY all the rest`."""
    words = quoted_words(text, start, end, escape)
    if words and "=" not in words[0][0]:
        key = _BLANK.search(text, start, end)
        if key is None:
            word = words[0][0]
            raise Mistake(
                f"{name} needs a name and a value",
                start,
                f"Write {name} {word[:40]}=value" if word.isidentifier() else f"Write {name} name=value",
            )
        return [(text[start : key.start()], start), (text[key.end() : end], key.end())], True
    found: list[tuple[str, int]] = []
    for word, at in words:
        key_text, equals, value = word.partition("=")
        if not equals:
            last = found[-2][0] if found else ""
            hint = f'Put a value that holds spaces into quotes: {last[:40]}="a value"'
            if found and (smart := SMART.match(found[-1][0])):
                raise Mistake(f"{smart[0]} is a typographic quote", found[-1][1], hint)
            hint = COMMENTS if word.startswith("#") else hint
            raise Mistake(f"{word[:60]!r} has no =: {name} takes name=value", at, hint)
        found += [(key_text, at), (value, at + len(key_text) + 1)]
    return found, False


def _flags(text: str, start: int, end: int, escape: str) -> tuple[list[tuple[str, int]], int]:
    """Words that begin with `--`, unquoted, and where the rest begins."""
    found: list[tuple[str, int]] = []
    at = start
    while True:
        while at < end and text[at] in SPACE:
            at += 1
        if not text.startswith("--", at, end):
            return found, at
        word, after, quoted = _flag(text, at, end, escape)
        if word == "--" and not quoted:
            return found, after
        found.append((word, at))
        at = after


def _flag(text: str, at: int, end: int, escape: str) -> tuple[str, int, bool]:
    word: list[str] = []
    quote = ""
    opened = at
    quoted = False
    while at < end:
        char = text[at]
        if quote:
            if char == quote:
                quote, at = "", at + 1
                continue
        elif char in SPACE:
            break
        elif char in "'\"":
            quote, opened, at, quoted = char, at, at + 1, True
            continue
        if char == escape:
            at += 1
            if at == end:
                break
            char = text[at]
        word.append(char)
        at += 1
    if quote:
        raise Mistake(f"a {quote} is never closed", opened, f"End the flag's value with {quote}")
    return "".join(word), at, quoted
