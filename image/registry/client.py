"""Pulling from registries over the OCI distribution protocol 1.1 (Docker Hub's and any other).

Invariant: every byte is checked against the digest that named it before anyone else sees it; a document or a
blob is never longer than it was announced.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path

from aio.backoff import delay
from aio.supervisor import in_thread
from image.digest import check, of
from image.manifest import (
    ACCEPTED,
    MAX_DOCUMENT,
    Descriptor,
    Manifest,
    choose,
    parse_configuration,
    parse_document,
)
from image.reference import Reference
from image.registry.auth import Logins
from image.registry.source import Remote
from image.registry.transport import ATTEMPTS, Hopeless, Transport
from model.errors import Damaged, Exhausted, Unavailable
from model.status import Platform

MAX_NESTING = 3
GROUP = 1 << 20
"""Bytes that are hashed and written by one hop into a thread."""


class RegistryClient:
    """A Source. See `Transport` for the arguments."""

    def __init__(self, *, logins: Logins | None = None, insecure: Collection[str] = ()) -> None:
        self._transport = Transport(logins=logins or _nobody, insecure=insecure)

    def trust(self, insecure: Collection[str]) -> None:
        """From now on speak plain HTTP to these."""
        self._transport.insecure = frozenset(insecure)

    async def close(self) -> None:
        await self._transport.close()

    async def resolve(self, reference: Reference, platform: Platform) -> Remote:
        data, digest = await self._document(reference, reference.digest or reference.tag, reference.digest)
        named = digest
        media_type = ""
        for _ in range(MAX_NESTING):
            document = parse_document(data, media_type)
            if isinstance(document, Manifest):
                return await self._remote(reference, document, named)
            entry = choose(document, platform)
            data, digest = await self._document(reference, entry.digest, entry.digest)
            media_type = entry.media_type
        raise Damaged(f"{reference.familiar}: indexes nested deeper than {MAX_NESTING}")

    async def _remote(self, reference: Reference, manifest: Manifest, named: str) -> Remote:
        config = await self._config(reference, manifest.config)
        parsed = parse_configuration(config)
        if len(parsed.diff_ids) != len(manifest.layers):
            raise Damaged(
                f"{reference.familiar} has {len(manifest.layers)} layers,"
                f" its configuration {len(parsed.diff_ids)}"
            )
        return Remote(
            reference=reference,
            config=config,
            parsed=parsed,
            layers=manifest.layers,
            pinned=f"{reference.repository}@{named}",
        )

    async def _document(self, reference: Reference, name: str, digest: str) -> tuple[bytes, str]:
        """A manifest's bytes and digest; `digest`, if given, is what it must have."""
        data, headers = await self._transport.document(
            reference, f"manifests/{name}", accept=", ".join(ACCEPTED), limit=MAX_DOCUMENT
        )
        said = headers.get("Docker-Content-Digest", "")
        actual = of(data)
        wanted = digest or (said if said.startswith("sha256:") else "")
        if wanted and check(wanted) != actual:
            raise Damaged(f"registry {reference.host}: manifest {name[:71]} does not match its digest")
        return data, actual

    async def _config(self, reference: Reference, descriptor: Descriptor) -> bytes:
        if descriptor.size > MAX_DOCUMENT:
            raise Damaged(f"{reference.familiar}: a configuration of {descriptor.size} bytes")
        data, _ = await self._transport.document(reference, f"blobs/{descriptor.digest}", limit=MAX_DOCUMENT)
        if len(data) != descriptor.size or of(data) != descriptor.digest:
            raise Damaged(f"registry {reference.host}: the image's configuration does not match its digest")
        return data

    async def download(
        self, remote: Remote, layer: Descriptor, path: Path, progress: Callable[[int], None]
    ) -> None:
        """A broken transfer goes on where it broke; it fails after some tries in a row without a byte."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            sink = _Sink(fd, layer, progress)
            failures = 0
            while not sink.complete:
                before = sink.size
                try:
                    await self._piece(remote.reference, sink)
                except Hopeless:
                    raise
                except Unavailable:
                    failures = 1 if sink.size > before else failures + 1
                    if failures >= ATTEMPTS:
                        raise
                    await asyncio.sleep(delay(failures, first=0.2, limit=10.0))
            sink.verify(remote.reference.host)
        finally:
            os.close(fd)

    async def _piece(self, reference: Reference, sink: _Sink) -> None:
        headers = {"Range": f"bytes={sink.size}-"} if sink.size else {}
        path = f"blobs/{sink.layer.digest}"
        async with self._transport.get(reference, path, headers) as response:
            if response.status == 206:
                if not response.headers.get("Content-Range", "").startswith(f"bytes {sink.size}-"):
                    raise Damaged(f"registry {reference.host} answers another range than was asked for")
            elif sink.size:
                await in_thread(sink.restart)
            await _receive(response.content.iter_any(), sink)
        if not sink.complete:
            raise Unavailable(f"registry {reference.host}: a layer ended after {sink.size} bytes")


class _Sink:
    """A blob on its way into a file."""

    def __init__(self, fd: int, layer: Descriptor, progress: Callable[[int], None]) -> None:
        self._fd = fd
        self.layer = layer
        self.progress = progress
        self.size = 0
        self._hasher = hashlib.sha256()

    @property
    def complete(self) -> bool:
        return self.size == self.layer.size

    def take(self, data: bytes) -> None:
        if self.size + len(data) > self.layer.size:
            raise Damaged(
                f"layer {self.layer.digest[7:19]} is longer than the {self.layer.size} bytes announced"
            )
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise Exhausted(f"no space for layer {self.layer.digest[7:19]}: {error.strerror}") from error
        self._hasher.update(data)
        self.size += len(data)

    def restart(self) -> None:
        """The registry can't resume: from the first byte again."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hasher = hashlib.sha256()
        self.size = 0

    def verify(self, host: str) -> None:
        if "sha256:" + self._hasher.hexdigest() != self.layer.digest:
            raise Damaged(f"registry {host}: layer {self.layer.digest[7:19]} does not match its digest")


async def _receive(pieces: AsyncIterator[bytes], sink: _Sink) -> None:
    """Also what came before the connection broke is kept."""
    held = bytearray()
    try:
        async for piece in pieces:
            held += piece
            if len(held) >= GROUP:
                group = bytes(held)
                held.clear()
                await in_thread(sink.take, group)
                sink.progress(sink.size)
    finally:
        sink.take(bytes(held))
    sink.progress(sink.size)


def _nobody(host: str) -> None:
    del host
