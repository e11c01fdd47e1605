"""Uploads in progress: one writer each, hashed as they come, dropped when nobody goes on with them.

Invariant: what is confirmed to a client was written, and `size` of the session is its end; a session that
fails for want of room is dropped, and its bytes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from aio.clock import Clock
from image.registry.server.digests import SHA256, algorithm, text
from image.registry.server.files import PIECE, append, hashed, settle
from image.registry.server.index import Begun
from image.registry.server.pace import Pace, too_slow
from image.registry.server.refusal import Refusal
from image.registry.server.store import Content
from model.errors import Exhausted, FlotaError

Run = Callable[..., Awaitable[Any]]
"""Run a blocking call with its arguments in a thread."""


class Session:
    """One upload. `hasher` is None where the bytes came before this process began, and `owner` empty."""

    def __init__(
        self, begun: Begun, size: int, hasher: hashlib._Hash | None, now: float, owner: str = ""
    ) -> None:
        self.begun = begun
        self.size = size
        self.hasher = hasher
        self.touched = now
        self.owner = owner
        self.published = False
        self.busy = False
        """A request writes to it now."""


class Uploads:
    def __init__(self, content: Content, clock: Clock, run: Run) -> None:
        self._content = content
        self._run = run
        self._clock = clock
        self._limits = content.limits
        self._sessions: dict[str, Session] = {}
        self._senders: Counter[str] = Counter()
        """Requests with bodies that come now, by who sends them."""

    async def open(self) -> None:
        """Those that an earlier process began can be gone on with."""
        for begun, size in await self._run(self._found):
            self._sessions[begun.id] = Session(begun, size, None, self._clock.monotonic())

    def _found(self) -> list[tuple[Begun, int]]:
        sizes = []
        for begun in self._content.index.begun():
            path = self._content.files.upload(begun.id)
            sizes.append((begun, path.stat().st_size if path.exists() else 0))
        return sizes

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, ident: object) -> bool:
        return ident in self._sessions

    @property
    def senders(self) -> int:
        """Requests with bodies that come now."""
        return self._senders.total()

    async def begin(self, name: str, owner: str, hashed_by: str = SHA256) -> Session:
        """`hashed_by` is the algorithm that its digest is expected of. Raises Refusal (429), Exhausted."""
        theirs = sum(session.owner == owner for session in self._sessions.values())
        if len(self._sessions) >= self._limits.uploads or theirs >= self._limits.uploads_each:
            words = f"{len(self._sessions)} uploads are open already, {theirs} of them by {owner}"
            raise Refusal("TOOMANYREQUESTS", words, headers={"Retry-After": "30"})
        begun = Begun(id=secrets.token_hex(16), repository=name, started=self._clock.now())
        session = Session(begun, 0, hashlib.new(hashed_by), self._clock.monotonic(), owner)
        self._sessions[begun.id] = session  # before its record: a client that goes now leaves none behind
        try:
            await self._run(self._content.begin, begun)
        except FlotaError:
            del self._sessions[begun.id]
            raise
        return session

    def get(self, name: str, ident: str) -> Session:
        """Raises Refusal."""
        session = self._sessions.get(ident)
        if session is None or session.begun.repository != name:
            raise Refusal("BLOB_UPLOAD_UNKNOWN", "there is no such upload", hint="Begin it again with POST")
        return session

    @contextlib.contextmanager
    def writing(self, session: Session, sender: str) -> Iterator[None]:
        """Raises Refusal while somebody else does (409), or too many do to others (429)."""
        if session.busy:
            raise Refusal("BLOB_UPLOAD_INVALID", "another request writes to this upload", status=409)
        with self.sending(sender):
            session.busy = True
            try:
                yield
            finally:
                session.busy = False
                session.touched = self._clock.monotonic()

    @contextlib.contextmanager
    def sending(self, sender: str) -> Iterator[None]:
        """A request with a body, be it an upload's or a manifest. Raises Refusal (429) while too many others
        do the same."""
        total, theirs = self.senders, self._senders[sender]
        if total >= self._limits.bodies or theirs >= self._limits.bodies_each:
            words = f"{total} requests send already, {theirs} of them by {sender}"
            raise Refusal("TOOMANYREQUESTS", words, headers={"Retry-After": "5"})
        self._senders[sender] += 1
        try:
            yield
        finally:
            self._senders[sender] -= 1
            if not self._senders[sender]:
                del self._senders[sender]

    async def receive(self, session: Session, body: AsyncIterator[bytes], *, most: int | None = None) -> None:
        """Append a body. Raises Refusal (also where it has more than `most` bytes), Exhausted."""
        held, came = bytearray(), 0
        pace = Pace(self._limits, self._clock.monotonic())
        source = aiter(body)
        try:
            while (piece := await self._next(source)) is not None:
                pace.fed(len(piece), self._clock.monotonic())
                if self._too_old(session):
                    await self.drop(session)
                    raise too_slow(f"an upload has {self._limits.age:g} s to its end")
                came += len(piece)
                if most is not None and came > most:
                    raise Refusal(
                        "SIZE_INVALID", f"the body has more than the {most} bytes that were announced"
                    )
                if session.size + len(held) + len(piece) > self._limits.blob:
                    await self.drop(session)  # it can't become a blob any more
                    raise Refusal("SIZE_INVALID", f"a blob has at most {self._limits.blob} bytes", status=413)
                held += piece
                if len(held) >= PIECE:
                    await self._take(session, held)
        finally:
            if held and session.begun.id in self._sessions:
                await self._take(session, held)

    async def _next(self, source: AsyncIterator[bytes]) -> bytes | None:
        try:
            async with asyncio.timeout(self._limits.silence):
                return await anext(source, None)
        except TimeoutError as error:
            raise too_slow(f"nothing came for {self._limits.silence:g} s") from error

    async def _take(self, session: Session, held: bytearray) -> None:
        data = bytes(held)
        held.clear()
        session.touched = self._clock.monotonic()
        try:
            await self._run(self._append, session, data)
        except Exhausted:
            await self.drop(session)
            raise

    def _append(self, session: Session, data: bytes) -> None:
        self._content.files.check_room(len(data))
        append(self._content.files.upload(session.begun.id), session.size, data)
        if session.hasher is not None:
            session.hasher.update(data)
        session.size += len(data)

    async def finish(self, session: Session, digest: str) -> None:
        """It is a blob of its repository once this returns. Raises Refusal where it has another digest: then
        the upload is over too."""
        try:
            await self._run(self._finish, session, digest)
        except FlotaError:
            await self.drop(session)
            raise
        finally:  # also where the client has gone meanwhile: the thread went on to its end
            if session.published:
                self._sessions.pop(session.begun.id, None)

    def _finish(self, session: Session, digest: str) -> None:
        path = self._content.files.upload(session.begun.id)
        if session.hasher is None or session.hasher.name != algorithm(digest):
            session.hasher = hashed(path, session.size, algorithm(digest))
        found = text(session.hasher)
        if found != digest:
            raise Refusal(
                "DIGEST_INVALID",
                f"what came has the digest {found}, not {digest}",
                hint="Push it again",
                detail={"digest": digest},
            )
        settle(path, session.size)
        self._content.publish(session.begun, digest, session.size)
        session.published = True

    async def drop(self, session: Session) -> None:
        self._sessions.pop(session.begun.id, None)
        await self._run(self._content.drop, session.begun.id)

    async def expire(self) -> int:
        """Drop those that nobody goes on with, or that are too old; how many."""
        now = self._clock.monotonic()
        old = [
            session
            for session in self._sessions.values()
            if not session.busy and (now - session.touched > self._limits.idle or self._too_old(session))
        ]
        for session in old:
            if not session.busy:
                await self.drop(session)
        return len(old)

    def _too_old(self, session: Session) -> bool:
        return self._clock.now() - session.begun.started > self._limits.age
