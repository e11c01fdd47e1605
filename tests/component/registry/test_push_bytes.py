"""What a push to the fleet's registry costs on the wire: the bytes of layers that it hasn't, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from image.manifest import Descriptor
from image.reference import parse
from image.registry.client import RegistryClient
from image.registry.source import Blob, Outgoing
from tests.support.fleetregistry import Served
from tests.support.images import MANIFEST, Built, image, member, tar

BASE, TOP = tar(member("base", os.urandom(3 << 20))), tar(member("top", os.urandom(300_000)))
FIRST, SECOND = image([BASE]), image([BASE, TOP])
WORDS = 20_000
"""Bytes that requests without a layer may take: heads, the configuration, the manifest."""


@dataclass
class Relay:
    """To a port of loopback; `sent` bytes went there."""

    port: int = 0
    sent: int = 0

    @contextlib.asynccontextmanager
    async def to(self, port: int) -> AsyncIterator[Relay]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", port)

            async def answers() -> None:
                while data := await there.read(1 << 16):
                    writer.write(data)
                writer.close()

            answering = asyncio.ensure_future(answers())
            while data := await reader.read(1 << 16):
                self.sent += len(data)
                back.write(data)
                await back.drain()
            back.close()
            await answering

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    def taken(self) -> int:
        """Since the last look."""
        found, self.sent = self.sent, 0
        return found


def outgoing(folder: Path, built: Built, name: str, *mounts: str) -> Outgoing:
    layers = []
    for digest, data in built.blobs.items():
        if digest != built.id:
            path = folder / digest[7:]
            path.write_bytes(data)
            layers.append(Blob(descriptor=Descriptor(digest=digest, size=len(data)), path=path))
    return Outgoing(
        reference=parse(name),
        manifest=built.manifest,
        media_type=MANIFEST,
        config=built.config,
        layers=tuple(layers),
        mounts=mounts,
    )


def size(built: Built) -> int:
    return sum(map(len, built.blobs.values()))


async def test_push_sends_each_layer_once_and_only_what_is_missing(served: Served, tmp_path: Path) -> None:
    client = RegistryClient()
    async with Relay().to(served.port) as relay:
        host = f"127.0.0.1:{relay.port}"
        await client.push(outgoing(tmp_path, FIRST, f"{host}/team/app:1"))
        assert size(FIRST) <= relay.taken() < size(FIRST) + WORDS
        await client.push(outgoing(tmp_path, FIRST, f"{host}/team/app:again"))
        assert relay.taken() < WORDS
        await client.push(outgoing(tmp_path, SECOND, f"{host}/team/app:2"))
        new = size(SECOND) - size(FIRST)
        assert new <= relay.taken() < new + WORDS
        await client.push(outgoing(tmp_path, SECOND, f"{host}/team/other:1", "team/app"))
        assert relay.taken() < WORDS  # its layers are mounted
        await client.close()
    for name, built in (
        ("app/manifests/1", FIRST),
        ("app/manifests/2", SECOND),
        ("other/manifests/1", SECOND),
    ):
        assert (await served.client.ask("GET", f"/v2/team/{name}")).body == built.manifest
