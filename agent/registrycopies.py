"""This host's copy of the fleet's registry: blobs by their digests, and the sealed document of a state.

    <state>/registry-copy/{blobs,uploads}/…    as the registry keeps its own
    <state>/registry-copy/index                the head's line in JSON, then what the controller sealed

Invariant: a blob has its name only once its bytes are on disk and have that digest; the registry alone says
what is kept and what goes. It is asked over mutual TLS at its own port; the host takes no connections.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import msgspec
from msgspec.structs import replace

from aio.backoff import delay
from aio.durable import write_file
from aio.supervisor import in_thread
from image.registry.server.copies import Head
from image.registry.server.digests import algorithm, is_digest, text
from image.registry.server.files import PIECE, PREFIXES, Files, append, pieces, settle
from image.registry.server.limits import Limits
from model.codec import UNREADABLE
from model.errors import Damaged, Exhausted, FlotaError, Unavailable
from model.registrycopies import PATH, CopyOrders, CopyReport

log = logging.getLogger("flota.registry")
IDLE = 5.0
"""Seconds between looks at whether the fleet has a registry."""
LONGEST = 30.0
"""Seconds between attempts."""
FULL = 600.0
"""Seconds after a blob for which there was no room, in which the registry is told so: it chooses another host
where there is one."""
STALLED = 60.0
"""Seconds without a byte, after which a connection is given up."""


class CopyStore:
    """Blocking."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self.files = Files(folder, limits)

    def open(self) -> None:
        """Nothing half-done is left."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.files.open()
        for ident in self.files.uploads():
            self.files.remove_upload(ident)

    def report(self) -> CopyReport:
        head = self.index()[0]
        have = [digest for prefix in PREFIXES for digest in self.files.blobs(prefix)]
        return CopyReport(lineage=head.lineage, generation=head.generation, have=tuple(have))

    def index(self) -> tuple[Head, bytes]:
        """An empty lineage where there is none, or none that can be read."""
        try:
            line, _, sealed = (self._folder / "index").read_bytes().partition(b"\n")
            return msgspec.json.decode(line, type=Head), sealed
        except FileNotFoundError:
            return Head(lineage="", generation=0), b""
        except UNREADABLE as error:
            log.error("this host's copy of the registry's state is damaged: %s", error)
            return Head(lineage="", generation=0), b""

    def keep_index(self, head: Head, sealed: bytes) -> None:
        write_file(self._folder / "index", msgspec.json.encode(head) + b"\n" + sealed)

    def begin(self, size: int) -> Path:
        """Where a blob's bytes go. Raises Exhausted."""
        self.files.check_room(size)
        return self.files.upload(secrets.token_hex(16))

    def keep(self, path: Path, digest: str, size: int) -> None:
        settle(path, size)
        self.files.publish(path.name, digest)

    def whole(self, digest: str) -> bool:
        """Its bytes are still what they were; else it is gone."""
        hasher = hashlib.new(algorithm(digest))
        size = self.files.blob_size(digest) or 0
        for piece in pieces(self.files.blob(digest), 0, size):
            hasher.update(piece)
        if text(hasher) == digest:
            return True
        log.error("this host's copy of blob %s is damaged", digest)
        self.files.remove_blob(digest)
        return False


class RegistryCopies:
    """`registry` says host:port of the fleet's own; empty: there is none now. `shown` is what new connections
    show: those by an older certificate are soon refused."""

    def __init__(
        self,
        store: CopyStore,
        registry: Callable[[], str],
        tls: ssl.SSLContext,
        shown: Callable[[], str] = str,
    ) -> None:
        self._store = store
        self._registry = registry
        self._tls = tls
        self._shown = shown
        self._failures = 0
        """In a row."""
        self._full_until = 0.0
        """By `time.monotonic`."""

    async def run(self) -> None:
        """The store's folders are made once there is a registry: most fleets have none."""
        opened = False
        while True:
            registry = self._registry()
            if not registry:
                await asyncio.sleep(IDLE)
                continue
            try:
                if not opened:
                    await in_thread(self._store.open)
                    opened = True
                await self._with(registry)
            except (aiohttp.ClientError, OSError, TimeoutError, FlotaError, *UNREADABLE) as error:
                level = logging.INFO if self._failures else logging.WARNING
                log.log(
                    level, "copies of the registry at %s: %s", registry, str(error) or type(error).__name__
                )
            self._failures += 1
            await asyncio.sleep(delay(self._failures, first=1.0, limit=LONGEST))

    async def _with(self, registry: str) -> None:
        """Until something fails, or is another now."""
        shown = self._shown()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=STALLED)
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=2)
        async with aiohttp.ClientSession(
            f"https://{registry}", timeout=timeout, connector=connector
        ) as client:
            while (self._registry(), self._shown()) == (registry, shown):
                full = time.monotonic() < self._full_until
                report: CopyReport = replace(await in_thread(self._store.report), full=full)
                async with client.post(PATH, data=msgspec.json.encode(report)) as reply:
                    told = msgspec.json.decode(await _good(reply), type=CopyOrders)
                short = await self._obey(client, told)
                self._failures = 0
                await asyncio.sleep(max(told.wait, LONGEST) if short and full else told.wait)

    async def _obey(self, client: aiohttp.ClientSession, told: CopyOrders) -> bool:
        """Whether there was no room for some of it: what else there is comes all the same."""
        short = False
        for digest in filter(is_digest, told.drop):
            await in_thread(self._store.files.remove_blob, digest)
        if told.send_index:
            await self._send_index(client)
        for digest in filter(is_digest, told.send):
            if await in_thread(self._store.whole, digest):
                await self._send(client, digest)
        for digest, size in told.fetch.items():
            if is_digest(digest):
                try:
                    await self._fetch(client, digest, size)
                except Exhausted as error:
                    if not short:
                        log.warning("no room for a copy of %s (%d MiB): %s", digest, size >> 20, error)
                    short, self._full_until = True, time.monotonic() + FULL
        if told.fetch_index:
            await self._fetch_index(client)
        return short

    async def _fetch(self, client: aiohttp.ClientSession, digest: str, size: int) -> None:
        path = await in_thread(self._store.begin, size)
        hasher, at = hashlib.new(algorithm(digest)), 0
        try:
            async with client.get(f"{PATH}/blobs/{digest}") as reply:
                if reply.status == 404:
                    return  # it is gone meanwhile
                if reply.status != 200:
                    await _good(reply)
                async for piece in reply.content.iter_chunked(PIECE):
                    await in_thread(append, path, at, piece)
                    hasher.update(piece)
                    at += len(piece)
                    if at > size:
                        break
            if (at, text(hasher)) != (size, digest):
                raise Damaged(f"what came is not {digest}")
            await in_thread(self._store.keep, path, digest, size)
        finally:
            await in_thread(self._store.files.remove_upload, path.name)

    async def _send(self, client: aiohttp.ClientSession, digest: str) -> None:
        size = self._store.files.blob_size(digest) or 0

        async def body() -> AsyncIterator[bytes]:
            source = pieces(self._store.files.blob(digest), 0, size)
            while piece := await in_thread(next, source, b""):
                yield piece

        async with client.put(f"{PATH}/blobs/{digest}", data=body()) as reply:
            await _good(reply)

    async def _fetch_index(self, client: aiohttp.ClientSession) -> None:
        async with client.get(f"{PATH}/index") as reply:
            sealed = await _good(reply)
            words = reply.headers
        head = Head(lineage=words["Flota-Lineage"], generation=int(words["Flota-Generation"]))
        await in_thread(self._store.keep_index, head, sealed)

    async def _send_index(self, client: aiohttp.ClientSession) -> None:
        _, sealed = await in_thread(self._store.index)
        async with client.put(f"{PATH}/index", data=sealed) as reply:
            await _good(reply)


async def _good(reply: aiohttp.ClientResponse) -> bytes:
    """The body. Raises Unavailable for a refusal: it is asked again."""
    data = await reply.read()
    if reply.status >= 300:
        raise Unavailable(
            f"{reply.method} {reply.url.path}: {reply.status} {data[:300].decode(errors='replace')}"
        )
    return data
