"""Asking another host of the fleet for blobs and images, over mutual TLS.

Invariant: what comes is no longer than was asked for, and comes from the very host that was asked: its
certificate names it. Whether it is right only its digest tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

from image.manifest import MAX_DOCUMENT
from image.peers import chunks
from model.blobs import BlobPeer
from model.codec import decode_json
from model.errors import Damaged, ErrorBody, FlotaError, Unavailable
from model.ids import HostId
from model.sharedcache import SharedRecord
from model.spec import Struct
from model.whereabouts import joined

TICKET, PROOF = "Flota-Ticket", "Flota-Proof"
CONNECT_WITHIN = 2.0
SILENCE, PIECE_WITHIN = 5.0, 60.0
"""Seconds without a byte of a piece, and for all of it: many callers may share a peer's rate, but one that
only drips holds the blob up more than it helps."""
HAVE_WITHIN = 10.0
AWAY, REFUSED = 60.0, 1.0
"""Seconds for which a host is not called: that could not be reached, whose next call would wait as long; that
did not take the call, as while its agent starts."""
RECORD_WITHIN = 3.0
MAX_ERROR, MAX_RECORD = 1 << 16, 1 << 20
Names = Callable[[dict[str, Any]], str]
"""Of a verified certificate (`ssl.SSLSocket.getpeercert()`): the id of the host that it names. Raises
Forbidden."""


class Busy(Unavailable):
    """Ask again soon."""


class NotHere(Unavailable):
    """It has the blob, but not that part of it."""


class Have(Struct):
    """A set of pieces, in hex (`chunks`)."""

    have: str


class ImageDocuments(Struct):
    """Of an image: the documents that lead from the digest that was asked for to its platform's manifest,
    that one last, and its configuration."""

    documents: tuple[bytes, ...]
    config: bytes
    names: tuple[str, ...] = ()


class Papers(Struct):
    """What a host shows when it asks: empty where it has none."""

    ticket: str = ""
    proof: str = ""

    def headers(self) -> dict[str, str]:
        shown = {TICKET: self.ticket, PROOF: self.proof}
        return {name: value for name, value in shown.items() if value}


class PeerClient:
    """`context` is who we are, and whom we trust; it becomes this object's own. `names` reads a peer's
    certificate; `silence` in seconds."""

    def __init__(self, context: ssl.SSLContext, names: Names, *, silence: float = SILENCE) -> None:
        self._context = context
        self._silence = silence
        context.sslobject_class = _checking(names)
        self._questions: aiohttp.ClientSession | None = None
        self._pieces: aiohttp.ClientSession | None = None
        """Not by the same connections: a question may wait long for news, a piece must not wait for that."""
        self._before: list[aiohttp.ClientSession] = []
        """Until whoever still uses them is done."""
        self._away: dict[HostId, float] = {}

    def away(self) -> list[HostId]:
        """Hosts that are not called for now: a pull has many layers, and each would wait for them."""
        now = asyncio.get_running_loop().time()
        self._away = {host: until for host, until in self._away.items() if until > now}
        return list(self._away)

    async def renew(self) -> None:
        """Calls from now on come by new connections, as whoever the context says; those under way go on."""
        done, self._before = self._before, [*filter(None, (self._questions, self._pieces))]
        self._questions = self._pieces = None
        for session in done:
            await session.close()

    async def close(self) -> None:
        await self.renew()
        await self.renew()

    async def have(self, peer: BlobPeer, digest: str, size: int, known: int, papers: Papers) -> int:
        """The pieces that it has; waits a while for more than `known` of them. Raises Unavailable, and what
        the peer answers."""
        query = f"/v1/blobs/{digest}/have?known={known}"
        async with self._get(peer, query, papers, HAVE_WITHIN) as reply:
            data = await _bounded(reply, MAX_ERROR)
        return chunks.decode(decode_json(data, Have, "a peer's answer").have, size)

    async def piece(
        self,
        peer: BlobPeer,
        digest: str,
        size: int,
        number: int,
        papers: Papers,
        heard: Callable[[], None] = lambda: None,
    ) -> bytes:
        """`heard` whenever some of it comes. Raises as `have`, and Damaged for one of another length."""
        offset, length = chunks.span(number, size)
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}
        async with self._get(peer, f"/v1/blobs/{digest}", papers, PIECE_WITHIN, wanted) as reply:
            if reply.status != 206:
                raise Damaged(f"it answers {reply.status} to a request for a part")
            data = await _bounded(reply, length, heard)
        if len(data) != length:
            raise Damaged(f"it gives {len(data)} of {length} bytes")
        return data

    async def documents(self, peer: BlobPeer, digest: str, papers: Papers) -> ImageDocuments:
        """Of a host that was named for it; it is called even if it could not be reached a moment ago.
        Raises as `have`. Unverified."""
        self._away.pop(peer.host, None)
        async with self._get(peer, f"/v1/images/{digest}", papers, HAVE_WITHIN) as reply:
            data = await _bounded(reply, 6 * MAX_DOCUMENT)
        return decode_json(data, ImageDocuments, "a peer's answer")

    async def record(self, peer: BlobPeer, key: str, papers: Papers) -> SharedRecord:
        """Of a build's step, whose next steps wait for it. Raises as `have`. Unverified."""
        async with self._get(peer, f"/v1/records/{key}", papers, RECORD_WITHIN) as reply:
            data = await _bounded(reply, MAX_RECORD)
        return decode_json(data, SharedRecord, "a peer's answer")

    @contextlib.asynccontextmanager
    async def _get(
        self, peer: BlobPeer, path: str, papers: Papers, within: float, more: dict[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if peer.host in self.away():
            raise Unavailable("it could not be reached a moment ago")
        session = self._opened(pieces=more is not None)
        url = f"https://{joined(peer.address, peer.port)}{path}"
        headers = {**papers.headers(), **(more or {})}
        try:
            async with (
                asyncio.timeout(within),
                session.get(
                    url,
                    headers=headers,
                    ssl=self._context,
                    server_hostname=_wanted(peer.host),
                    allow_redirects=False,
                ) as reply,
            ):
                if reply.status >= 400:
                    raise _error(await _bounded(reply, MAX_ERROR), reply.status)
                yield reply
        except aiohttp.ConnectionTimeoutError as error:
            self._missed(peer.host, AWAY)
            raise Unavailable(f"it can't be reached within {CONNECT_WITHIN:g} s") from error
        except aiohttp.ClientConnectorError as error:
            self._missed(peer.host, REFUSED)
            raise Unavailable(str(error)) from error
        except aiohttp.SocketTimeoutError as error:
            raise Unavailable(f"it gives nothing for {self._silence:g} s") from error
        except TimeoutError as error:
            raise Unavailable(f"it does not answer within {within:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(one_line(str(error)) or type(error).__name__) from error

    def _missed(self, host: HostId, seconds: float) -> None:
        self._away[host] = asyncio.get_running_loop().time() + seconds

    def _opened(self, *, pieces: bool) -> aiohttp.ClientSession:
        if pieces:
            self._pieces = self._pieces or _session(64, per_host=8, silence=self._silence)
            return self._pieces
        self._questions = self._questions or _session(512, per_host=64, silence=None)
        return self._questions


def _session(limit: int, *, per_host: int, silence: float | None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_WITHIN, sock_read=silence),
        connector=aiohttp.TCPConnector(limit=limit, limit_per_host=per_host),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def _wanted(host: HostId) -> str:
    """A host's id where TLS has a server's name, whose parts have 63 characters at most."""
    return f"{host[:32]}.{host[32:]}"


def _checking(names: Names) -> type[ssl.SSLObject]:
    """Connections that stand only once the other side's certificate names the host that was called."""

    class Checking(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            found = names(self.getpeercert() or {})
            if _wanted(HostId(found)) != self.server_hostname:
                raise ssl.SSLCertVerificationError("another host answers there")

    return Checking


async def _bounded(
    reply: aiohttp.ClientResponse, most: int, heard: Callable[[], None] = lambda: None
) -> bytes:
    """Raises Damaged for more."""
    data = bytearray()
    async for part in reply.content.iter_any():
        data += part
        heard()
        if len(data) > most:
            raise Damaged(f"it answers with more than {most} bytes")
    return bytes(data)


def _error(data: bytes, status: int) -> FlotaError:
    """In the peer's words, but never of a kind that means something here."""
    if status == 429:
        return Busy("it has too many callers")
    if status == 416:
        return NotHere("it does not have that part")
    try:
        words = decode_json(data, ErrorBody, "a peer's answer").to_error().message
    except FlotaError:
        words = ""
    return Unavailable(f"it answers {status}{': ' if words else ''}{one_line(words)}")


def one_line(text: str) -> str:
    """A peer's words as they may stand in a log: short, and what is not printable as its escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:200])
