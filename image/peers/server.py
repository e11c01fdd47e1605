"""What this host gives to others: parts of blobs, and documents of images.

    GET /v1/blobs/{digest}                 one part, by Range: bytes=A-B
    GET /v1/blobs/{digest}/have?known=N    which pieces are here, once they are more than N
    GET /v1/images/{digest}                the documents that lead to an image
    GET /v1/records/{key}                  what a build's step came to

Invariant: a caller is a host of the fleet, by its certificate and by a ticket of the controller for it; it is
given what belongs to an image whose manifest it has seen, or to what its ticket names. Uploads at once and
their rate are bounded.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from aiohttp import web

from aio.clock import Clock
from aio.supervisor import in_thread
from image.digest import is_digest
from image.peers import chunks
from image.peers.client import PROOF, TICKET, Have
from image.peers.pace import Pace
from image.peers.partial import Partial, Partials
from image.peers.proof import holds, named
from image.peers.shelf import Kept, Shelf
from model.blobs import Ticket, read_ticket
from model.codec import encode_json
from model.errors import HTTP_STATUS, ErrorBody, FlotaError, Forbidden, InvalidInput, NotFound
from model.ids import HostId

UPLOADS, UPLOADS_PER_HOST = 32, 6
QUESTIONS_PER_HOST = 64
"""That wait for news at once."""
WAIT = 3.0
"""Seconds that a caller waits for more pieces."""
BLOCK, SMALLEST_BLOCK = 1 << 18, 1 << 12
TURN = 2.0
"""Seconds between two blocks for one of `UPLOADS` callers that share the rate: none of them waits so long
that it takes this host for dead."""
WRITE_WITHIN = 20.0
"""Seconds that a caller may take for a part, without those for which it waits for its turn."""
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{1,15})\Z")
Caller = Callable[[web.Request], tuple[HostId, str]]
"""Who calls, and the SHA-256 of its certificate. Raises Unauthenticated, Forbidden."""
Verify = Callable[[bytes, bytes], bool]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PeerServer:
    """`rate`: bytes a second for all callers together; 0: no limit. `patience` and
    `questions`: as `WRITE_WITHIN`, `QUESTIONS_PER_HOST`."""

    def __init__(
        self,
        shelf: Shelf,
        partials: Partials,
        caller: Caller,
        verify: Verify,
        clock: Clock,
        *,
        rate: int = 0,
        patience: float = WRITE_WITHIN,
        questions: int = QUESTIONS_PER_HOST,
    ) -> None:
        self._shelf = shelf
        self._partials = partials
        self._caller = caller
        self._verify = verify
        self._clock = clock
        self._pace = Pace(rate)
        self._block = block_size(rate)
        self._patience = patience
        self._uploads: Counter[HostId] = Counter()
        self._questions = questions
        self._waiting: Counter[HostId] = Counter()
        self.given = 0
        """Bytes of blobs, so far."""

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1024, middlewares=[_errors])
        app.router.add_get("/v1/blobs/{digest}", self._blob)
        app.router.add_get("/v1/blobs/{digest}/have", self._have)
        app.router.add_get("/v1/images/{digest}", self._image)
        app.router.add_get("/v1/records/{digest}", self._record)
        return app

    # -- who may ------------------------------------------------------------------------------------
    def _admitted(self, request: web.Request) -> tuple[HostId, Ticket]:
        """Raises Unauthenticated, Forbidden."""
        host, certificate = self._caller(request)
        ticket, data, signature = read_ticket(request.headers.get(TICKET, ""))
        if not self._verify(data, signature):
            raise Forbidden("the ticket is not of this fleet's controller")
        if (ticket.host, ticket.certificate) != (host, certificate):
            raise Forbidden("the ticket is another host's")
        if ticket.until < self._clock.now():
            raise Forbidden("the ticket has run out")
        return host, ticket

    def _found(self, request: web.Request) -> tuple[HostId, Given]:
        """The blob that is asked for, as far as the caller may have it: whole, or what is here of it. Raises
        as `_admitted`, and NotFound."""
        host, ticket = self._admitted(request)
        digest, shown = _digest(request), request.headers.get(PROOF, "")
        for entry, kept in self._shelf.having(digest):
            allowed = not self._shelf.names(entry).isdisjoint(ticket.images)
            if not allowed and entry.manifest and named(shown) == entry.manifest:
                manifest = self._shelf.manifest(entry.manifest)
                allowed = manifest is not None and holds(shown, manifest, host)
            if allowed:
                return host, Whole(self._shelf, kept)
        for key in ticket.records:
            made = self._shelf.of_record(key, digest)
            if made is not None:
                return host, Whole(self._shelf, made)
        partial = self._partials.find(digest)
        if partial is not None:
            pinned = partial.remote.pinned.partition("@")[2]
            manifest = partial.remote.manifest
            if pinned in ticket.images or (manifest and holds(shown, manifest, host)):
                return host, Part(partial)
        raise NotFound("there is no such blob here for you")

    # -- what is given ------------------------------------------------------------------------------
    async def _blob(self, request: web.Request) -> web.StreamResponse:
        host, given = self._found(request)
        start, end = _range(request, given.size)
        if self._uploads.total() >= UPLOADS or self._uploads[host] >= UPLOADS_PER_HOST:
            return web.Response(status=429)
        if not given.has(start, end):
            raise web.HTTPRequestRangeNotSatisfiable()
        self._uploads[host] += 1
        try:
            async with asyncio.timeout(self._patience) as patience:
                return await self._send(request, given, start, end, patience)
        finally:
            self._uploads[host] -= 1
            self._uploads += Counter()  # drops those that have none

    async def _send(
        self, request: web.Request, given: Given, start: int, end: int, patience: asyncio.Timeout
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=206)
        response.content_length = end - start
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{given.size}"
        await response.prepare(request)
        while start < end:
            size = min(self._block, end - start)
            await self._turn(size, patience)
            try:
                data = await given.read(start, size)
            except NotFound:
                data = b""
            if not data:  # an error's own answer would be taken for the part's bytes
                raise ConnectionResetError("this blob is gone from here")
            await response.write(data)
            start += len(data)
            self.given += len(data)
        await response.write_eof()
        return response

    async def _turn(self, size: int, patience: asyncio.Timeout) -> None:
        loop, until = asyncio.get_running_loop(), patience.when()
        assert until is not None
        before = loop.time()
        patience.reschedule(None)
        await self._pace.take(size)
        patience.reschedule(until + loop.time() - before)

    async def _have(self, request: web.Request) -> web.Response:
        known = request.query.get("known", "0")
        if not known.isascii() or not known.isdigit() or len(known) > 6:
            raise InvalidInput("known is no number")
        host, given = self._found(request)
        if self._waiting[host] >= self._questions:
            return web.Response(status=429)
        self._waiting[host] += 1
        try:
            await given.changed(int(known), WAIT)
        finally:
            self._waiting[host] -= 1
            self._waiting += Counter()  # drops those that have none
        return _json(Have(have=chunks.encode(given.have)))

    async def _image(self, request: web.Request) -> web.Response:
        _, ticket = self._admitted(request)
        digest = _digest(request)
        entry = self._shelf.named(digest)
        if entry is None or self._shelf.names(entry).isdisjoint(ticket.images):
            raise NotFound("there is no such image here for you")
        return _json(await in_thread(self._shelf.documents, entry, digest))

    async def _record(self, request: web.Request) -> web.Response:
        _, ticket = self._admitted(request)
        key = _digest(request)
        record = self._shelf.records.get(key) if key in ticket.records else None
        if record is None:
            raise NotFound("there is no such step's result here for you")
        return _json(record)


def block_size(rate: int) -> int:
    """Bytes that are sent at once. Pure."""
    return max(SMALLEST_BLOCK, min(BLOCK, int(rate * TURN) // UPLOADS)) if rate else BLOCK


class Given(Protocol):
    """A blob that the caller may have."""

    @property
    def size(self) -> int: ...

    @property
    def have(self) -> int:
        """The pieces that are here."""
        ...

    def has(self, start: int, end: int) -> bool: ...

    async def read(self, start: int, length: int) -> bytes: ...

    async def changed(self, known: int, within: float) -> None: ...


class Whole:
    """Of a layer that is here."""

    def __init__(self, shelf: Shelf, kept: Kept) -> None:
        self._shelf, self._kept = shelf, kept
        self.size = kept.size
        self.have = chunks.every(kept.size)

    def has(self, start: int, end: int) -> bool:
        return True

    async def read(self, start: int, length: int) -> bytes:
        with self._shelf.hold(self._kept.chain):
            data: bytes = await in_thread(_read, self._kept.path, start, length)
            return data

    async def changed(self, known: int, within: float) -> None:
        return


class Part:
    """Of one that is coming."""

    def __init__(self, partial: Partial) -> None:
        self._partial = partial
        self.size = partial.layer.size

    @property
    def have(self) -> int:
        return self._partial.have

    def has(self, start: int, end: int) -> bool:
        piece = chunks.piece_size(self.size)
        wanted = range(start // piece, -(-end // piece))
        return all(self._partial.have >> n & 1 for n in wanted)

    async def read(self, start: int, length: int) -> bytes:
        return await self._partial.read(start, length)

    async def changed(self, known: int, within: float) -> None:
        await self._partial.changed(known, within)


def _read(path: Path, start: int, length: int) -> bytes:
    """Nothing of a file that is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(fd, length, start)
    finally:
        os.close(fd)


def _digest(request: web.Request) -> str:
    """Raises InvalidInput."""
    digest = request.match_info["digest"]
    if not is_digest(digest):
        raise InvalidInput("that is no digest")
    return digest


def _range(request: web.Request, size: int) -> tuple[int, int]:
    """(start, end) of the one range that is asked for; one piece at most. Raises InvalidInput."""
    found = _RANGE.match(request.headers.get("Range", ""))
    start, end = (int(found[1]), int(found[2]) + 1) if found else (0, 0)
    if not 0 <= start < end <= size or end - start > chunks.piece_size(size):
        raise InvalidInput("that is no range of this blob, or a long one")
    return start, end


def _json(value: object) -> web.Response:
    return web.Response(body=encode_json(value), content_type="application/json")


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except FlotaError as error:
        body = encode_json(ErrorBody.of(error))
        status = HTTP_STATUS.get(error.code, 500)
        return web.Response(status=status, body=body, content_type="application/json")
    except TimeoutError:
        raise ConnectionResetError("the caller is too slow") from None
