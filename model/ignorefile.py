"""The lines of a .dockerignore file as patterns. Pure.

Source: the reference's section on it, and moby's `ignorefile`. What the patterns mean is decided by whoever
walks the context. Invariant: a file that is refused names its line.
"""

from __future__ import annotations

import posixpath

from model.errors import InvalidInput

MAX_FILE = 4 << 20
MAX_LINE = 64 << 10
"""Bytes; Docker's own limit."""
MAX_PATTERNS = 100_000
DEFAULT = ".dockerignore"


def names_for(dockerfile: str) -> tuple[str, str]:
    """Where its patterns may stand, relative to the context; the first that is there is the only one read."""
    return f"{dockerfile}{DEFAULT}", DEFAULT


def patterns_of(text: bytes, file: str = DEFAULT) -> list[tuple[int, str]]:
    """Each with the number of its line. Raises InvalidInput."""
    if len(text) > MAX_FILE:
        raise InvalidInput(f"{file} has {len(text)} bytes; at most {MAX_FILE} are read")
    found: list[tuple[int, str]] = []
    for number, line in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if len(line) > MAX_LINE:
            raise InvalidInput(f"{file}:{number}: the line is longer than {MAX_LINE} bytes")
        if pattern := _read(line.decode("utf-8", "surrogateescape")):
            found.append((number, pattern))
    if len(found) > MAX_PATTERNS:
        raise InvalidInput(f"{file} has {len(found)} patterns; at most {MAX_PATTERNS} are taken")
    return found


def cleaned(path: str) -> str:
    """Go's `filepath.Clean`."""
    clean = posixpath.normpath(path)
    return clean[1:] if clean.startswith("//") else clean


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
