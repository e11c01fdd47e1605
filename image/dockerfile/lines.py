"""Bytes of a Dockerfile → its logical lines: directives, comments, continuations, heredocs' bodies. Pure.

The source is BuildKit's parser; what it takes for a line, a comment or a continuation is taken for one here.
Invariants: a file is read in time linear in its size, and every character of a logical line knows its place.
"""

from __future__ import annotations

import re

from image.dockerfile.faults import DockerfileFault
from image.dockerfile.instruction import Spot, Warned
from model.spec import Struct

MAX_SIZE = 1 << 20
"""Bytes of a Dockerfile."""
MAX_LINE = (64 << 10) - 1
"""Bytes of a line, BuildKit's own limit."""
SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Go's unicode.IsSpace."""
SMART = re.compile("[“”„‟‘’‚‛«»]")
"""Quotes that are none in a Dockerfile."""
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(\S(?:.*\S)?)\s*\Z", re.ASCII)
_NAMES = ("syntax", "escape", "check")
_LOST = re.compile("[\udc80-\udcff]")


class Line(Struct):
    """Continued lines as one. `pieces`: (offset in `text`, line, column) of each part, in order."""

    text: str
    first: int
    last: int
    pieces: tuple[tuple[int, int, int], ...]
    comments: tuple[str, ...] = ()
    """That stand right before it."""

    def spot(self, offset: int) -> Spot:
        """Where the character at `offset` stands in the file; behind the end: just after the last."""
        found = self.pieces[0]
        for piece in self.pieces:
            if piece[0] > offset:
                break
            found = piece
        start, line, column = found
        return Spot(line=line, column=column + max(offset, 0) - start)


class Reader:
    """Hands out one logical line after another. `escape`, `syntax` and `check` are known once the first line
    has been asked for. Raises DockerfileFault."""

    def __init__(self, data: bytes, file: str) -> None:
        self.file = file
        self.escape = "\\"
        self.syntax = ""
        self.check = ""
        self.warnings: list[Warned] = []
        self._raw = _split(_decoded(data, file), file)
        self._at = 0
        self._comments: list[str] = []
        self._directives()

    def fault(self, message: str, line: int, column: int = 1, hint: str = "") -> DockerfileFault:
        return DockerfileFault(message, Spot(line=line, column=column), file=self.file, hint=hint)

    def line(self) -> Line | None:
        """None at the end."""
        while self._at < len(self._raw):
            raw = self._raw[self._at].rstrip("\r")
            text = raw.lstrip(SPACE)
            self._at += 1
            if not text:
                self._comments = []
            elif text[0] == "#":
                self._comment(text[1:].strip(SPACE))
            else:
                return self._continued(text, len(raw) - len(text) + 1)
        return None

    def body(self, name: str, chomp: bool, opened: Spot) -> str:
        """Of a heredoc: everything down to a line that is its name. `chomp`: tabs before that may stand."""
        start = self._at
        while self._at < len(self._raw):
            raw = self._raw[self._at].rstrip("\r")
            self._at += 1
            if raw == name or (chomp and raw.lstrip("\t") == name):
                lines = self._raw[start : self._at - 1]
                self._readable(start, self._at - 1)
                return "".join(f"{line}\n" for line in lines)
        raise self.fault(
            f"the heredoc {name[:40]!r} has no end",
            opened.line,
            opened.column,
            f"Write a line that is {name[:40]} alone" + (", tabs may stand before it" if chomp else ""),
        )

    @property
    def number(self) -> int:
        """Of the line that was read last, from 1."""
        return self._at

    def _continued(self, text: str, column: int) -> Line:
        first = self._at
        pieces: list[tuple[int, int, int]] = []
        parts: list[str] = []
        length = 0
        empty = 0
        while True:
            part, goes_on = self._cut(text)
            if part or not pieces:
                pieces.append((length, self._at, column))
                parts.append(part)
                length += len(part)
            if not goes_on:
                break
            text, column = "", 1
            while self._at < len(self._raw):
                text = self._raw[self._at].rstrip("\r")
                self._at += 1
                stripped = text.lstrip(SPACE)
                if stripped and stripped[0] != "#":
                    break
                empty = empty or (0 if stripped else self._at)
                text = ""
            if not text:
                break
        self._readable(first - 1, self._at)
        if empty:
            self.warnings.append(
                Warned(
                    code="NoEmptyContinuation",
                    message="an empty line within a continued instruction; Docker is to refuse it one day",
                    spot=Spot(line=empty),
                    hint="Delete the line, or begin it with #",
                )
            )
        comments, self._comments = tuple(self._comments), []
        return Line(text="".join(parts), first=first, last=self._at, pieces=tuple(pieces), comments=comments)

    def _cut(self, text: str) -> tuple[str, bool]:
        """Without the escape at its end, and whether there was one that no other stands before."""
        kept = text.rstrip(" \t")
        escape = self.escape
        if kept.endswith(escape) and kept[-2:] != escape * 2:
            return kept[:-1], True
        return text, False

    def _comment(self, text: str) -> None:
        if text:
            self._comments.append(text)
        else:
            self._comments = []

    def _readable(self, start: int, end: int) -> None:
        """Comments may be in any encoding; what becomes part of an image may not."""
        for index in range(start, end):
            if not (raw := self._raw[index]).isascii() and (lost := _LOST.search(raw)):
                if raw.lstrip(SPACE).startswith("#"):
                    continue
                raise self.fault(
                    f"the byte 0x{ord(lost[0]) - 0xDC00:02x} is no UTF-8",
                    index + 1,
                    lost.start() + 1,
                    "Save the file as UTF-8",
                )

    def _directives(self) -> None:
        """Only at the very top. A line `#!…` may stand before them; then none sets the escape."""
        seen: set[str] = set()
        if shebang := bool(self._raw and self._raw[0].startswith("#!")):
            self._at = 1
        while self._at < len(self._raw):
            raw = self._raw[self._at].strip(SPACE)
            match = _DIRECTIVE.match(raw)
            name = match[1].lower() if match else ""
            if match is None or name not in _NAMES:
                break
            self._at += 1
            if name in seen:
                raise self.fault(f"a second {name} directive", self._at, hint="Keep one of them")
            seen.add(name)
            self._directive(name, match[2], shebang)
        self._late(seen)

    def _directive(self, name: str, value: str, shebang: bool) -> None:
        if name == "escape" and not shebang:
            if value not in ("\\", "`"):
                raise self.fault(
                    f"escape={value[:20]!r} is neither \\ nor `",
                    self._at,
                    self._raw[self._at - 1].index("=") + 2,
                    "Write # escape=` or leave the line out",
                )
            self.escape = value
        elif name == "syntax":
            self.syntax = value
        elif name == "check":
            self.check = value

    def _late(self, seen: set[str]) -> None:
        """A directive that comes too late is a comment: that is worth a word."""
        for index in range(self._at, len(self._raw)):
            text = self._raw[index].strip(SPACE)
            if text and text[0] != "#":
                return
            match = _DIRECTIVE.match(text) if text else None
            if match and match[1].lower() in ("escape", "syntax") and match[1].lower() not in seen:
                self.warnings.append(
                    Warned(
                        code="DirectiveTooLate",
                        message=f"# {match[1]}= is a mere comment here",
                        spot=Spot(line=index + 1),
                        hint="Directives stand at the very top, before comments and empty lines",
                    )
                )


def _decoded(data: bytes, file: str) -> str:
    def fault(message: str, offset: int, hint: str = "") -> DockerfileFault:
        line = data.count(b"\n", 0, offset) + 1
        column = offset - data.rfind(b"\n", 0, offset)
        return DockerfileFault(message, Spot(line=line, column=column), file=file, hint=hint)

    if len(data) > MAX_SIZE:
        raise DockerfileFault(
            f"it has {len(data)} bytes, more than {MAX_SIZE}", Spot(line=1), file=file,
            hint="Put long files into the context and COPY them",
        )  # fmt: skip
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise fault("it is in UTF-16", 0, "Save the file as UTF-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if (nul := data.find(b"\0")) >= 0:
        wide = data[: 1 << 10].count(b"\0") * 3 > len(data[: 1 << 10])
        raise fault(
            "it is in UTF-16" if wide else "it holds a NUL byte",
            nul,
            "Save the file as UTF-8" if wide else "Delete the byte",
        )
    if b"\r" in data and b"\n" not in data:
        raise fault(
            "its lines end in lone carriage returns", data.index(b"\r"), "Save the file with line feeds (LF)"
        )
    return data.decode("utf-8", "surrogateescape")


def _split(text: str, file: str) -> list[str]:
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    if len(text) * 4 > MAX_LINE:
        for index, line in enumerate(lines):
            if len(line) * 4 > MAX_LINE and len(line.encode("utf-8", "surrogateescape")) > MAX_LINE:
                raise DockerfileFault(
                    f"the line has more than {MAX_LINE} bytes", Spot(line=index + 1), file=file,
                    hint="Break it with a continuation, or put what is long into a file",
                )  # fmt: skip
    return lines
