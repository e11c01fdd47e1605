"""The files of a fake container: a few paths in memory, told of and given as the agent does."""

from __future__ import annotations

import asyncio
import io
import posixpath
import stat
import tarfile
from collections.abc import AsyncIterator

from model.containerfiles import PathStat
from model.errors import NotFound
from model.streams import STDOUT, Exit


class FakeFiles:
    """`paths`: content of files, None for directories. What is put in comes out of `came`."""

    def __init__(self) -> None:
        self.paths: dict[str, bytes | None] = {"/": None, "/etc": None, "/etc/motd": b"hello\n"}
        self.came: list[tuple[str, bytes]] = []

    def _clean(self, path: str) -> str:
        clean = posixpath.normpath("/" + path.lstrip("/"))
        if clean not in self.paths:
            raise NotFound(f"Could not find the file {path} in container box")
        return clean

    async def stat(self, path: str) -> PathStat:
        content = self.paths[clean := self._clean(path)]
        mode = stat.S_IFDIR | 0o755 if content is None else stat.S_IFREG | 0o644
        return PathStat(name=posixpath.basename(clean), size=len(content or b""), mode=mode)

    async def get(self, path: str) -> AsyncIterator[tuple[int, bytes]]:
        clean = self._clean(path)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, content in self.paths.items():
                if name == clean or name.startswith(clean.rstrip("/") + "/"):
                    info = tarfile.TarInfo(posixpath.relpath(name, posixpath.dirname(clean)))
                    info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
                    info.mode = 0o755 if content is None else 0o644
                    info.size = len(content or b"")
                    archive.addfile(info, io.BytesIO(content or b""))
        yield STDOUT, buffer.getvalue()

    def put(self, path: str) -> Put:
        self._clean(path)
        return Put(self, path)


class Put:
    """`api.ports.AttachSession`."""

    def __init__(self, files: FakeFiles, path: str) -> None:
        self._files = files
        self._path = path
        self._data = bytearray()
        self._whole = asyncio.Event()

    async def read(self) -> tuple[int, bytes] | None:
        await self._whole.wait()
        self._files.came.append((self._path, bytes(self._data)))
        return None

    async def write(self, data: bytes) -> None:
        self._data += data

    async def close_stdin(self) -> None:
        self._whole.set()

    async def resize(self, rows: int, cols: int) -> None:
        return

    async def signal(self, signal: int) -> None:
        return

    async def finish(self) -> Exit:
        return Exit(exit_code=0)

    async def close(self) -> None:
        return
