"""Folders of a session's client: a whole one as a tar, or a few small files of one.

Invariant: what a client sends is read no faster than it is taken, and ends within its time.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from urllib.parse import quote_plus

from api.docker.buildkit.diffcopy import DiffCopy
from api.docker.buildkit.messages import Packet
from api.docker.buildkit.sessions import BuildSession
from model.errors import DeadlineExceeded, Exhausted, InvalidInput, NotFound, Unavailable

METHOD = "/moby.filesync.v1.FileSync/DiffCopy"
MAX_FILE = 1 << 20
"""Bytes of a Dockerfile or an ignore file."""
MAX_SMALL = 4 << 20
SMALL_SECONDS = 60.0
PIECE = 1 << 17
"""Bytes that are handed on at once."""
MAX_PATTERNS = 10_000
MAX_HEADERS = 1 << 20


async def folder(
    session: BuildSession, name: str, *, excludes: Sequence[str] = (), only: Sequence[str] = ()
) -> AsyncGenerator[bytes, None]:
    """The client's folder of that name as a tar; `only`: paths, with what links they need. Raises
    NotFound, InvalidInput, Damaged, Exhausted, Unavailable."""
    if not session.serves(METHOD):
        raise NotFound(f"the client gives no folders, and so no build context {name!r}")
    copy = DiffCopy()
    held = bytearray()
    async with session.channel.call(METHOD, metadata(name, excludes, only)) as call:
        while (packet := await call.receive(Packet)) is not None:
            for made in copy.take(packet):
                if isinstance(made, Packet):
                    await call.send(made)
                else:
                    held += made
            if len(held) >= PIECE or (copy.done and held):
                yield bytes(held)
                held.clear()
            if copy.done:
                await call.sent()
                break
        if not copy.done:
            raise Unavailable(f"the client broke the build context {name!r} off")


async def files(session: BuildSession, name: str, paths: Sequence[str]) -> dict[str, bytes]:
    """Those of a folder's files that are there. Raises as `folder`, DeadlineExceeded."""
    archive = io.BytesIO()
    try:
        async with asyncio.timeout(SMALL_SECONDS), aclosing(folder(session, name, only=paths)) as pieces:
            async for piece in pieces:
                archive.write(piece)
                if archive.tell() > MAX_SMALL:
                    raise Exhausted(f"{', '.join(paths)}: more than {MAX_SMALL} bytes")
    except TimeoutError as error:
        raise DeadlineExceeded(f"{paths[0]} did not come within {SMALL_SECONDS:g} s") from error
    archive.seek(0)
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=archive, mode="r:") as tar:
        for path in paths:
            data = _read(tar, path)
            if data is not None:
                found[path] = data
    return found


def _read(tar: tarfile.TarFile, path: str) -> bytes | None:
    """A file's contents, through links of the same folder."""
    try:
        member = tar.getmember(path)
        file = tar.extractfile(member)
    except (KeyError, RecursionError, tarfile.TarError):
        return None
    if file is None:
        return None
    data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise InvalidInput(f"{path} has more than {MAX_FILE} bytes")
    return data


def metadata(name: str, excludes: Sequence[str], only: Sequence[str]) -> list[tuple[str, str]]:
    """Of a call for a folder, as BuildKit names it. Raises InvalidInput."""
    found = [("dir-name", name)]
    for key, values in (("exclude-patterns", excludes), ("followpaths", only)):
        encoded = not all(value.isascii() and value.isprintable() for value in values)
        found += [(key, quote_plus(value) if encoded else value) for value in values]
        if encoded:
            found.append((f"{key}-encoded", "1"))
    size = sum(len(key) + len(value) + 32 for key, value in found)
    if len(found) > MAX_PATTERNS or size > MAX_HEADERS:
        raise InvalidInput(
            f"the ignore file has {len(excludes)} patterns of {size} bytes, too many for BuildKit's protocol",
            hint="Use flota build, which has no such limit",
        )
    return found
