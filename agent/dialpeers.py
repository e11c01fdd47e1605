"""Asking the controller which hosts have a layer: `image.peers.fetch.Swarm`, over mutual TLS.

A controller that is away, that is older than this question or that does not answer soon knows nobody: then
this host gets its layers from outside, as it would alone.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence

import aiohttp

from model.blobs import BlobPeers, BlobWord
from model.codec import UNREADABLE, decode_json, encode_json
from model.errors import FlotaError
from model.ids import HostId

log = logging.getLogger("flota.agent")
WITHIN = 2.0
"""Seconds for an answer; a pull waits for it."""
SILENT = 10.0
"""Seconds for which a controller that did not answer is not asked: a pull has many layers."""
MAX_REPLY = 1 << 18


class ControllerSwarm:
    """`own` is this host."""

    def __init__(self, own: HostId, controllers: Callable[[], Sequence[str]], tls: ssl.SSLContext) -> None:
        self.own = own
        self._controllers = controllers
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._before: aiohttp.ClientSession | None = None
        self._silent_until = 0.0

    async def ask(self, word: BlobWord) -> BlobPeers | None:
        """Of the first controller that answers."""
        now = asyncio.get_running_loop().time()
        if now < self._silent_until:
            return None
        for url in self._controllers():
            try:
                return await self._asked(f"{url}/v1/agents/blobs", word)
            except (aiohttp.ClientError, OSError, TimeoutError, FlotaError, *UNREADABLE) as error:
                log.info("no word about layers from %s: %s", url, str(error) or type(error).__name__)
        self._silent_until = asyncio.get_running_loop().time() + SILENT
        return None

    async def _asked(self, url: str, word: BlobWord) -> BlobPeers | None:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=4)
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=WITHIN), connector=connector
            )
        headers = {"Content-Type": "application/json"}
        async with self._session.post(url, data=encode_json(word), headers=headers, ssl=self._tls) as reply:
            data = bytearray()
            while chunk := await reply.content.read(MAX_REPLY - len(data)):
                data += chunk
            if reply.status != 200:
                raise FlotaError(f"it answers {reply.status}")
            return decode_json(bytes(data), BlobPeers, "the controller's reply")

    async def renew(self) -> None:
        """What is asked from now on comes by new connections; questions under way are answered."""
        if self._before is not None:
            await self._before.close()
        self._before, self._session = self._session, None

    async def close(self) -> None:
        await self.renew()
        await self.renew()
