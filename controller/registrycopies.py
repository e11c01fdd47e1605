"""Copies of the fleet's registry on its hosts: hosts report, are told what to do next, fetch and send.

Invariant: what a host sends is taken only where the registry waits for it: a blob that is lost and has that
digest, a state that this fleet's CA sealed. All connections are the hosts'; nothing here waits for any.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
from aiohttp import ClientPayloadError, web
from msgspec.structs import replace

from aio.clock import Clock
from controller.copyplan import Content, Holder, chosen, news, orders, whole
from controller.snapshot import Cluster
from image.registry.server import byhand, copies
from image.registry.server.copies import Head, Snapshot
from image.registry.server.digests import algorithm, text
from image.registry.server.files import PIECE, append, pieces, settle
from image.registry.server.grammar import check_digest
from image.registry.server.index import Index
from image.registry.server.pace import Pace
from image.registry.server.refusal import Refusal
from image.registry.server.registry import Registry
from model.codec import UNREADABLE, decode_json
from model.errors import Damaged, Exhausted, NotFound, Unavailable
from model.ids import HostId
from model.registrycopies import (
    PATH,
    CopyHost,
    CopyOrders,
    CopyReport,
    RegistryStatus,
    RepositoryInfo,
    TagInfo,
)

log = logging.getLogger("flota.registry")
MOST_REPORT = 16 << 20
"""Bytes: 200,000 digests."""
MOST_INDEX = 256 << 20
"""Bytes: some 100,000 manifests. One document at a time is in memory, whoever sends."""
SETTLE = 5.0
"""Seconds after a start in which none but those that have copies already are heard: else others would be
chosen in their place."""
Seal = Callable[[bytes, str], bytes]
ABOUT = "the registry's state"


class Copies:
    """`number`: hosts that are to have a copy, `own` the addresses of the controller's host, whose disk may
    be the registry's; `host` says whose certificate a request shows."""

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        cluster: Callable[[], Cluster],
        host: Callable[[web.Request], HostId],
        *,
        seal: Seal,
        unseal: Seal,
        number: int,
        own: frozenset[str],
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._cluster = cluster
        self._host = host
        self._seal = seal
        self._unseal = unseal
        self._number = number
        self._own = own
        self._said: dict[HostId, Holder] = {}
        self._refused: set[tuple[HostId, Head]] = set()
        """Hosts' documents that can't be taken in: none of these is waited for. Another host's of the same
        state may be whole."""
        self._sending: Counter[tuple[HostId, str]] = Counter()
        """Bodies that come now, by host and what they are."""
        self._taking = asyncio.Lock()
        self._document: tuple[Head, bytes] | None = None
        self._since = clock.monotonic()

    async def open(self) -> None:
        try:
            await self._registry.run(copies.begin, self._registry.content.index)
        except (Exhausted, Unavailable) as error:
            log.warning("the registry goes on in the lineage that it had: %s", error)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(PATH, self._report),
            web.get(f"{PATH}/index", self._give_index),
            web.put(f"{PATH}/index", self._take_index),
            web.get(f"{PATH}/blobs/{{digest}}", self._give_blob),
            web.put(f"{PATH}/blobs/{{digest}}", self._take_blob),
        ]

    # -- what hosts say and are told ----------------------------------------------------------------
    async def _report(self, request: web.Request) -> web.Response:
        host = self._host(request)
        with self._turn(host, "report"):
            data = b"".join([piece async for piece in self._pieces(request, MOST_REPORT)])
            report: CopyReport = await self._registry.run(decode_json, data, CopyReport, "report")
        if (host, Head(lineage=report.lineage, generation=report.generation)) in self._refused:
            report = CopyReport(have=report.have, full=report.full)
        content, now = await self.content(), self._clock.now()
        said = Holder(
            id=host,
            name="",
            fit=True,
            heard=now,
            have=frozenset(report.have),
            lineage=report.lineage,
            generation=report.generation,
            full=report.full,
        )
        if news(said, content):  # of whichever state: else one that is another in each report is waited for
            said = replace(said, claims=self._said.get(host, said).claims or now)
        self._said[host] = said
        if not report.lineage and self._clock.monotonic() - self._since < SETTLE:
            return web.json_response(body=msgspec.json.encode(CopyOrders(wait=SETTLE / 5)))
        told = orders(host, self.holders(), content, self._number, now)
        return web.json_response(body=msgspec.json.encode(told))

    def holders(self) -> list[Holder]:
        """All hosts of the fleet."""
        found = []
        for ident, host in self._cluster().hosts.items():
            said = self._said.get(ident) or Holder(id=ident, name="", fit=True, heard=0.0)
            fit = host.facts.address not in self._own
            found.append(replace(said, name=host.spec.name, fit=fit))
        return found

    async def content(self) -> Content:
        index = self._registry.content.index
        found: Content = await self._registry.run(_content, index)
        return found

    # -- states -------------------------------------------------------------------------------------
    async def _give_index(self, request: web.Request) -> web.Response:
        self._host(request)
        head: Head = await self._registry.run(copies.head, self._registry.content.index)
        if self._document is None or self._document[0] != head:
            self._document = await self._registry.run(self._made)
        head, sealed = self._document
        if len(sealed) > MOST_INDEX:  # it would not be taken back
            raise Exhausted(
                f"the registry's state has more than {MOST_INDEX >> 20} MiB", hint="Delete images"
            )
        about = {"Flota-Lineage": head.lineage, "Flota-Generation": str(head.generation)}
        return web.Response(body=sealed, headers=about, content_type="application/octet-stream")

    def _made(self) -> tuple[Head, bytes]:
        told = copies.snapshot(self._registry.content.index)
        return told.head, self._seal(msgspec.msgpack.encode(told), ABOUT)

    async def _take_index(self, request: web.Request) -> web.Response:
        host = self._host(request)
        said = self._said.get(host)
        if said is None or not news(said, await self.content()):
            raise Refusal("DENIED", "this state is not waited for")
        about = Head(lineage=said.lineage, generation=said.generation)
        ident, files = secrets.token_hex(16), self._registry.content.files
        with self._turn(host, "state"):
            try:
                await self._spool(request, files.upload(ident))
                await self._taken_in(host, files.upload(ident), about)
            finally:
                await self._registry.run(files.remove_upload, ident)
        lost = len(await self._registry.run(copies.lost, self._registry.content.index))
        name = self._cluster().host_name(host)
        log.warning("the registry has the state that host %s kept; %d blobs are to come back", name, lost)
        return web.Response(status=204)

    async def _spool(self, request: web.Request, path: Path) -> None:
        """Into a file: as slowly as a host sends, it fills no memory."""
        files, at = self._registry.content.files, 0
        await self._registry.run(append, path, 0, b"")
        async for piece in self._pieces(request, MOST_INDEX):
            await self._registry.run(files.check_room, len(piece))
            await self._registry.run(append, path, at, piece)
            at += len(piece)

    async def _taken_in(self, host: HostId, path: Path, about: Head) -> None:
        try:
            async with self._taking:
                await self._registry.run(self._take_in, path, about)
        except (*UNREADABLE, Damaged, Refusal) as error:
            self._refused.add((host, about))
            raise Refusal(
                "MANIFEST_INVALID", f"the state that {host} keeps can't be taken in: {error}"
            ) from error

    def _take_in(self, path: Path, about: Head) -> None:
        told = msgspec.msgpack.decode(self._unseal(path.read_bytes(), ABOUT), type=Snapshot)
        if told.head != about:  # an older one, by which a host could undo what came since
            raise Damaged("it is of another generation than was told")
        copies.take_in(self._registry.content.index, told, self._clock.now())

    # -- blobs --------------------------------------------------------------------------------------
    async def _give_blob(self, request: web.Request) -> web.StreamResponse:
        self._host(request)
        digest = check_digest(request.match_info["digest"])
        size = await self._registry.run(self._registry.content.index.blob, digest)
        if size is None:
            raise NotFound(f"there is no blob {digest}")
        response = web.StreamResponse()
        response.content_length = size
        await response.prepare(request)
        source, hasher = pieces(self._registry.content.files.blob(digest), 0, size), _hasher(digest)
        try:
            while piece := await self._registry.run(partial(next, source, b"")):
                hasher.update(piece)
                async with asyncio.timeout(self._registry.limits.window):
                    await response.write(piece)
            whole = text(hasher) == digest
        except TimeoutError:
            _abort(request)
            return response
        except FileNotFoundError:
            whole = False
        if not whole:  # else the host would ask for it for ever, and for nothing after it
            await self._registry.run(self._registry.content.spoiled, digest)
            _abort(request)
            return response
        await response.write_eof()
        return response

    async def _take_blob(self, request: web.Request) -> web.Response:
        host = self._host(request)
        digest = check_digest(request.match_info["digest"])
        size = (await self._registry.run(copies.lost, self._registry.content.index)).get(digest)
        if size is None:
            return web.Response(status=204)  # another host was quicker
        with self._turn(host, "blob"):
            await self._come_back(request, digest, size)
        log.info("blob %s has come back", digest)
        return web.Response(status=204)

    async def _come_back(self, request: web.Request, digest: str, size: int) -> None:
        ident, content = secrets.token_hex(16), self._registry.content
        await self._registry.run(content.files.check_room, size)
        hasher, at = _hasher(digest), 0
        try:
            async for piece in self._pieces(request, size):
                await self._registry.run(append, content.files.upload(ident), at, piece)
                hasher.update(piece)
                at += len(piece)
            if (at, text(hasher)) != (size, digest):
                raise Damaged(f"what came is not {digest}")
            await self._registry.run(settle, content.files.upload(ident), size)
            await self._registry.run(content.come_back, ident, digest)
        finally:
            await self._registry.run(content.files.remove_upload, ident)

    # -- bodies -------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _turn(self, host: HostId, what: str) -> Iterator[None]:
        """Raises Refusal (429) where the host sends one already; of blobs some, as all together may."""
        limits = self._registry.limits
        theirs, all_ = self._sending[host, what], sum(n for (_, of), n in self._sending.items() if of == what)
        if theirs >= (limits.bodies_each if what == "blob" else 1) or (
            what == "blob" and all_ >= limits.bodies
        ):
            words = f"{all_} bodies of that kind come already, {theirs} of them of this host"
            raise Refusal("TOOMANYREQUESTS", words, headers={"Retry-After": "5"})
        self._sending[host, what] += 1
        try:
            yield
        finally:
            self._sending[host, what] -= 1
            self._sending += Counter()  # what is 0 goes

    async def _pieces(self, request: web.Request, most: int) -> AsyncIterator[bytes]:
        """A body in large ones. Raises Refusal where it has more than `most` bytes or comes too slowly,
        Damaged where the connection breaks."""
        limits, clock = self._registry.limits, self._clock
        source, pace = aiter(request.content.iter_any()), Pace(limits, clock.monotonic())
        held, at = bytearray(), 0
        try:
            while piece := await _next(source, limits.silence):
                pace.fed(len(piece), clock.monotonic())
                at += len(piece)
                held += piece
                if max(at, request.content_length or 0) > most:
                    raise Refusal("SIZE_INVALID", f"the body has more than {most} bytes", status=413)
                if len(held) >= PIECE:
                    yield bytes(held)
                    held.clear()
        except (ClientPayloadError, ConnectionError) as error:
            raise Damaged("the body broke off") from error
        if held:
            yield bytes(held)

    # -- for people ---------------------------------------------------------------------------------
    async def status(self, address: str) -> RegistryStatus:
        index = self._registry.content.index
        repositories, _, _ = await self._registry.run(index.totals)
        content, now = await self.content(), self._clock.now()
        holders = self.holders()
        picked = chosen(holders, content, self._number, now)
        hosts = [
            CopyHost(
                name=holder.name,
                chosen=holder.id in picked,
                blobs=len(holder.have & content.held.keys()),
                bytes=sum(content.held[d] for d in holder.have & content.held.keys()),
                complete=whole(holder, content),
                heard=holder.heard,
                full=holder.full,
            )
            for holder in holders
            if holder.have or holder.id in picked
        ]
        return RegistryStatus(
            address=address,
            repositories=repositories,
            blobs=len(content.held),
            bytes=sum(content.held.values()),
            lost=len(content.lost),
            wanted=self._number,
            whole=sum(host.complete for host in hosts),
            hosts=tuple(sorted(hosts, key=lambda host: host.name)),
        )

    async def repositories(self) -> list[RepositoryInfo]:
        told: Snapshot = await self._registry.run(copies.snapshot, self._registry.content.index)
        content, holders = await self.content(), self.holders()
        current = [h for h in holders if (h.lineage, h.generation) == (content.lineage, content.generation)]
        return [
            RepositoryInfo(
                name=name,
                tags=len(found.tags),
                manifests=len(found.manifests),
                bytes=sum(told.blobs[digest] for digest in found.blobs),
                copies=sum(all(d in h.have for d in found.blobs) for h in current),
                lost=sum(digest in content.lost for digest in found.blobs),
            )
            for name, found in sorted(told.repositories.items())
        ]

    async def tags(self, repository: str, host: str) -> list[TagInfo]:
        return await byhand.tags(self._registry, repository, host)

    async def remove(self, ref: str, host: str) -> None:
        await byhand.remove(self._registry, ref, host)


def _content(index: Index) -> Content:
    with index.lock:
        head = copies.head(index)
        return Content(
            lineage=head.lineage,
            generation=head.generation,
            known=copies.lineages(index),
            held=copies.held(index),
            lost=copies.lost(index),
        )


def _hasher(digest: str) -> hashlib._Hash:
    return hashlib.new(algorithm(digest))


async def _next(source: AsyncIterator[bytes], silence: float) -> bytes:
    """Empty at the end. Raises Refusal."""
    try:
        async with asyncio.timeout(silence):
            return await anext(source, b"")
    except TimeoutError as error:
        raise Refusal("UNKNOWN", f"nothing came for {silence:g} s", status=408) from error


def _abort(request: web.Request) -> None:
    """A length was promised that is not kept."""
    if request.transport is not None:
        request.transport.abort()
