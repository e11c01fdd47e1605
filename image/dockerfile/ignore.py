""".dockerignore: which files of a context are left out, exactly as Docker reads it. Pure.

Source: the reference's section on it, and moby's `ignorefile`. The Dockerfile and the ignore file are like
any other: whether they are left out of what COPY sees is the patterns' question alone; the build has them by
another way. Invariant: a file that is refused names its line.
"""

from __future__ import annotations

from image.dockerfile.patterns import Folder, Patterns, cleaned
from model.errors import InvalidInput

MAX_FILE = 4 << 20
MAX_LINE = 64 << 10
"""Bytes; Docker's own limit."""
MAX_PATTERNS = 100_000
DEFAULT = ".dockerignore"


def names_for(dockerfile: str) -> tuple[str, str]:
    """Where its patterns may stand, relative to the context; the first that is there is the only one read."""
    return f"{dockerfile}{DEFAULT}", DEFAULT


class Ignore:
    """Walk with `root`: `enter` a folder, ask `matches` of everything else. A folder that is `matched` and
    `settled` is skipped whole; one that is only `matched` may hold what a `!` takes back, and comes along if
    it does."""

    def __init__(self, patterns: Patterns) -> None:
        self.patterns = patterns

    @property
    def root(self) -> Folder:
        return self.patterns.root

    @classmethod
    def parse(cls, text: bytes, *, file: str = DEFAULT) -> Ignore:
        """Raises InvalidInput."""
        if len(text) > MAX_FILE:
            raise InvalidInput(f"{file} has {len(text)} bytes; at most {MAX_FILE} are read")
        lines: list[int] = []
        found: list[str] = []
        for number, line in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
            if len(line) > MAX_LINE:
                raise InvalidInput(f"{file}:{number}: the line is longer than {MAX_LINE} bytes")
            if pattern := _read(line.decode("utf-8", "surrogateescape")):
                lines.append(number)
                found.append(pattern)
        if len(found) > MAX_PATTERNS:
            raise InvalidInput(f"{file} has {len(found)} patterns; at most {MAX_PATTERNS} are taken")
        return cls(Patterns(found, where=lambda n: f"{file}:{lines[n - 1]}"))

    def excludes(self, path: str) -> bool:
        """Of one path by itself, as `a/b`."""
        return self.patterns.matches(path)


def _read(line: str) -> str:
    """The pattern of a line, relative to the context; empty: none."""
    if line.startswith("#"):
        return ""
    pattern = line.strip()
    exception = pattern.startswith("!")
    pattern = pattern[exception:].strip()
    if pattern:
        pattern = cleaned(pattern)
        if len(pattern) > 1:
            pattern = pattern.removeprefix("/")
    return "!" * exception + pattern
