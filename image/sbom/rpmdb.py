"""The packages of rpm's database, an SQLite file that whoever made the image wrote.

To SQLite a file is a program: its schema may hold views that never end, or that give one header again and
again. So it is read from memory, with what it defines held for untrusted, its work is counted, and so is what
it gives.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from image.sbom import rpm
from image.sbom.packages import Package

MAX_HEADER = 16 << 20
STEPS = 200_000_000
"""Of SQLite's machine, of which an honest database takes some thousands."""
_EACH = 1_000_000
ROW = 16
"""Bytes that a row takes beside its header, at least."""
Error = sqlite3.Error


def packages(data: bytes, where: str) -> Iterator[Package]:
    """Raises Error."""
    if not data:  # no database yet
        return
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(_without_journal(data))
        left = iter(range(STEPS // _EACH))
        database.set_progress_handler(lambda: next(left, None) is None, _EACH)
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_HEADER)
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON"):
            database.execute(f"PRAGMA {pragma}")
        room = 2 * len(data)
        for (header,) in database.execute("SELECT blob FROM Packages"):
            room -= ROW + (len(header) if isinstance(header, bytes | str) else 0)
            if room < 0:
                raise Error("it gives more than it holds")
            if isinstance(header, bytes) and (one := rpm.package(header, where)) is not None:
                yield one


def _without_journal(data: bytes) -> bytes:
    """A database that was written with a log beside it is opened without one (SQLite file format, 1.3)."""
    return data[:18] + b"\1\1" + data[20:] if data[18:20] == b"\2\2" else data
