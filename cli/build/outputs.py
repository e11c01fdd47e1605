"""What a build gives to its client: archives, tars and folders, written as they come.

Invariant: a file has its name only once it is whole, and of a folder nothing is touched outside.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Protocol

from cli.build.words import Destination
from cli.parse.copies import Plan
from model.errors import Damaged, FlotaError, InvalidInput

WAITING = 64
"""Pieces that wait to be unpacked."""


class Writer(Protocol):
    def write(self, data: bytes) -> None: ...

    def finish(self) -> None:
        """All is there. Raises InvalidInput, Damaged."""
        ...

    def drop(self) -> None:
        """There will be no more: what is half-made goes."""
        ...


class Outputs:
    """By the number of the output; those that the client gets nothing of have no writer."""

    def __init__(self, wanted: Sequence[Destination], skipped: Callable[[str], None]) -> None:
        self._wanted = wanted
        self._skipped = skipped
        self._open: dict[int, Writer] = {}

    def check(self) -> None:
        """Before the build: where nothing can be written is told now. Raises InvalidInput."""
        for one in self._wanted:
            if one.dest and one.dest != "-":
                place = one.dest if one.output.kind == "local" else os.path.dirname(one.dest) or "."
                _writable(place, one.dest, folder=one.output.kind == "local")

    def write(self, number: int, data: bytes) -> None:
        """Raises InvalidInput, Damaged where it can't be written or is not what was asked for."""
        if number not in self._open:
            self._open[number] = self._writer(number)
        self._open[number].write(data)

    def finish(self, number: int) -> None:
        if number not in self._open:
            self._open[number] = self._writer(number)
        self._open.pop(number).finish()

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].drop()

    def _writer(self, number: int) -> Writer:
        if not 0 <= number < len(self._wanted) or not self._wanted[number].dest:
            raise Damaged(f"the host sent output {number}, which nobody asked for")
        one = self._wanted[number]
        if one.dest == "-":
            return _Pipe(sys.stdout.buffer)
        return _Folder(one.dest, self._skipped) if one.output.kind == "local" else _File(one.dest)


class _Pipe:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def finish(self) -> None:
        self._file.flush()

    def drop(self) -> None:
        return


class _File:
    def __init__(self, path: str) -> None:
        self._path = path
        try:
            import tempfile

            fd, self._part = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".flota-")
        except OSError as error:
            raise InvalidInput(f"{path} can't be written: {error.strerror}") from error
        self._file = os.fdopen(fd, "wb")

    def write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise InvalidInput(f"{self._path} can't be written: {error.strerror}") from error

    def finish(self) -> None:
        try:
            self._file.close()
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(self._part, 0o666 & ~umask)
            os.replace(self._part, self._path)
        except OSError as error:
            self.drop()
            raise InvalidInput(f"{self._path} can't be written: {error.strerror}") from error

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._part)


class _Folder:
    """A tar is unpacked by a thread: it is read where it is written to."""

    def __init__(self, path: str, skipped: Callable[[str], None]) -> None:
        self._path = path
        self._skipped = skipped
        self._pieces: queue.Queue[bytes] = queue.Queue(WAITING)
        self._error: Exception | None = None
        self._over = False
        os.makedirs(path, exist_ok=True)
        self._thread = threading.Thread(target=self._run, daemon=True, name="unpack")
        self._thread.start()

    def write(self, data: bytes) -> None:
        if data:
            self._pieces.put(data)

    def finish(self) -> None:
        self._pieces.put(b"")
        self._thread.join()
        if isinstance(self._error, FlotaError):
            raise self._error
        if isinstance(self._error, OSError):
            raise InvalidInput(f"{self._path} can't be written: {self._error.strerror}") from self._error
        if self._error is not None:  # names with a NUL, numbers beyond any file's
            raise Damaged(f"{self._path}: the host sent what can be no file") from self._error

    def drop(self) -> None:
        self._pieces.put(b"")

    def _run(self) -> None:
        from cli.tars import Stream, unpack  # few builds write a folder

        try:
            unpack(Stream(self._come()), Plan(self._path), owners=False, skipped=self._skipped)
        except Exception as error:
            self._error = error
            for _ in self._come():
                pass

    def _come(self) -> Iterator[bytes]:
        while not self._over:
            piece = self._pieces.get()
            self._over = not piece
            if piece:
                yield piece


def _writable(place: str, dest: str, *, folder: bool) -> None:
    while folder and not os.path.exists(place):
        place = os.path.dirname(os.path.abspath(place))
    if not os.path.isdir(place):
        raise InvalidInput(f"{dest} can't be written: {place} is no folder")
    if not os.access(place, os.W_OK):
        raise InvalidInput(f"{dest} can't be written: {place} is not yours to write to")
