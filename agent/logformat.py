"""The lines of conmon's k8s-file log and the names of its rotated files. Pure.

`2026-11-24T03:03:19.527556400+00:00 stdout F text`: F ends a line of the program, P is a part of one
(Kubernetes CRI log format). The live file has the bare name; rotated ones have `.1`, `.2` … in order of
time, so that a reader knows which comes after which, and whether one is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from model.spec import Struct
from model.streams import STDERR, STDOUT

_STREAMS = {b"stdout": STDOUT, b"stderr": STDERR}


class LogLine(Struct):
    stamp: bytes
    stream: int
    full: bool
    text: bytes

    @property
    def at(self) -> float:
        """Unix seconds."""
        return datetime.fromisoformat(self.stamp.decode()).timestamp()


def parse(line: bytes) -> LogLine | None:
    """One line without its newline; None for what is damaged (a log file system that was full)."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in _STREAMS or parts[2] not in (b"F", b"P"):
        return None
    return LogLine(stamp=parts[0], stream=_STREAMS[parts[1]], full=parts[2] == b"F", text=parts[3])


def ends_line(line: bytes, streams: frozenset[int]) -> bool:
    """It is the last part of a line of the program, on one of `streams`."""
    parts = line.split(b" ", 3)
    return len(parts) == 4 and parts[2] == b"F" and _STREAMS.get(parts[1]) in streams


def stamp_for_people(stamp: bytes) -> bytes:
    """As Docker writes it: RFC 3339 with nanoseconds, Z for UTC."""
    return stamp.removesuffix(b"+00:00") + b"Z" if stamp.endswith(b"+00:00") else stamp


def rotated(name: str, entries: Iterable[str]) -> list[int]:
    """Numbers of the rotated files of the log `name` among a directory's entries, oldest first."""
    prefix = name + "."
    numbers = (entry[len(prefix) :] for entry in entries if entry.startswith(prefix))
    return sorted(int(text) for text in numbers if text.isascii() and text.isdecimal())
