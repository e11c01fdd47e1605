"""Short answers that are kept by what was asked: what a URL, or a commit, came to. Blocking.

    <folder>/<sha256 of what was asked>

Invariants: an answer is whole or not there, however many write it at once; they spare work alone, so one that
can't be written is asked for again, and beyond `MOST` some go.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile

log = logging.getLogger("flota.build")
MOST = 10_000
MAX_SIZE = 1 << 20


class Notes:
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def read(self, *asked: str) -> bytes:
        """Empty, where there is none."""
        try:
            with open(self._path(asked), "rb") as file:
                return file.read(MAX_SIZE)
        except OSError:
            return b""

    def write(self, data: bytes, *asked: str) -> None:
        path = self._path(asked)
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as file:
                try:
                    file.write(data)
                    file.flush()
                    os.rename(file.name, path)
                except BaseException:
                    os.unlink(file.name)
                    raise
            self._thin()
        except OSError as error:
            log.info("what came of %s is not kept: %s", os.path.basename(path)[:12], error)

    def _thin(self) -> None:
        names = [name for name in os.listdir(self._folder) if len(name) == 64]
        if len(names) > MOST:
            for name in names[: len(names) // 2]:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self._folder, name))

    def _path(self, asked: tuple[str, ...]) -> str:
        name = hashlib.sha256("\0".join(asked).encode("utf-8", "surrogateescape")).hexdigest()
        return os.path.join(self._folder, name)
