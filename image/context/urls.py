"""Files of URLs, for ADD and contexts: kept as objects, asked for again only when they may have changed.

    <objects>/urls/<sha256 of the URL>      MessagePack: what came of it last

Invariant: what a build gets has the checksum that it names, or else none was named; what is remembered of a
URL is used only after its server has said that it still holds, or by the checksum.
"""

from __future__ import annotations

import contextlib
import email.message
import email.utils
import hashlib
import os
import posixpath
import re

import aiohttp
import msgspec
from yarl import URL

from aio.supervisor import in_thread
from image.context.http import Http, checked, shown
from image.context.notes import Notes
from image.context.objects import Arriving, Lease, Objects
from model.codec import UNREADABLE
from model.errors import Damaged, InvalidInput
from model.spec import Struct

_CHECKSUM = re.compile(r"(sha256|sha384|sha512):([0-9a-f]{64,128})\Z")
_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_GROUP = 1 << 20


class Fetched(Struct):
    """`digest` names the object; `name` is what its URL or its server calls it."""

    url: str
    """For messages alone: without query and password."""
    digest: str
    size: int
    name: str = ""
    mtime_ns: int = 0
    """What its server tells, or the epoch."""
    etag: str = ""
    modified: str = ""
    root: str = ""
    """Of a context: the tree that was made of it."""


class Urls:
    """Those of one build."""

    def __init__(self, objects: Objects, lease: Lease, http: Http) -> None:
        self._objects = objects
        self._lease = lease
        self._http = http
        self._notes = Notes(os.path.join(objects.folder, "urls"))

    async def fetch(self, url: str, *, checksum: str = "", private: bool = False) -> Fetched:
        """Its object is held by the lease. Raises as `Http.get`, Damaged, Exhausted."""
        expected = checked_sum(checksum) if checksum else ("", "")
        start = checked(url)
        known: Fetched | None = await in_thread(self._known, url)
        if known is not None and not self._lease.hold(known.digest):
            known = None
        if known is not None and known.digest == checksum:
            return known
        headers = {} if known is None else conditions(known)
        async with self._http.get(url, headers=headers, private=private) as response:
            if response.status == 304:
                if known is None:
                    raise Damaged(f"{shown(url)}: its server says unchanged of what it was not asked")
                if checksum:
                    await in_thread(self._verify, known, expected)
                return known
            fetched = await self._taken(start, response, expected)
        await in_thread(self.remember, url, fetched)
        return fetched

    async def _taken(self, url: URL, response: aiohttp.ClientResponse, expected: tuple[str, str]) -> Fetched:
        method, want = expected
        hasher = hashlib.new(method) if method else None
        arriving = await in_thread(self._objects.new)
        try:
            held = bytearray()
            async for piece in response.content.iter_any():
                held += piece
                if len(held) >= _GROUP:
                    await in_thread(self._write, arriving, bytes(held), hasher)
                    held.clear()
            await in_thread(self._write, arriving, bytes(held), hasher)
            if hasher is not None and hasher.hexdigest() != want:
                raise Damaged(
                    f"{shown(url)} has the checksum {method}:{hasher.hexdigest()}, not {method}:{want}",
                    hint="Look whether the file or the checksum is the right one",
                )
            digest = await in_thread(arriving.keep, self._lease)
        finally:
            arriving.close()
        modified = response.headers.get("Last-Modified", "")
        return Fetched(
            url=shown(url),
            digest=digest,
            size=arriving.size,
            name=name_of(url, response.headers.get("Content-Disposition", "")),
            mtime_ns=time_of(modified),
            etag=response.headers.get("ETag", "")[:1024],
            modified=modified[:100],
        )

    def _write(self, arriving: Arriving, data: bytes, hasher: hashlib._Hash | None) -> None:
        self._lease.take(len(data))
        arriving.write(data)
        if hasher is not None:
            hasher.update(data)

    def _verify(self, known: Fetched, expected: tuple[str, str]) -> None:
        method, want = expected
        with open(self._objects.path(known.digest), "rb") as file:
            found = hashlib.file_digest(file, method).hexdigest()
        if found != want:
            raise Damaged(
                f"{known.url} has the checksum {method}:{found}, not {method}:{want}",
                hint="Look whether the file or the checksum is the right one",
            )

    # -- what is remembered -------------------------------------------------------------------------
    def _known(self, url: str) -> Fetched | None:
        data = self._notes.read(url)
        try:
            return msgspec.msgpack.decode(data, type=Fetched) if data else None
        except UNREADABLE:
            return None

    def remember(self, url: str, fetched: Fetched) -> None:
        """For the next build; without an answer to ask by, nothing. Blocking."""
        if fetched.etag or fetched.modified or fetched.root:
            self._notes.write(msgspec.msgpack.encode(fetched), url)


def conditions(known: Fetched) -> dict[str, str]:
    """Headers of a request that is answered by 304 if nothing changed (RFC 9110, 13.1)."""
    if known.etag:
        return {"If-None-Match": known.etag}
    return {"If-Modified-Since": known.modified} if known.modified else {}


def checked_sum(text: str) -> tuple[str, str]:
    """(method, hex digits). Raises InvalidInput."""
    found = _CHECKSUM.match(text)
    if found is None or len(found[2]) != _LENGTHS[found[1]]:
        raise InvalidInput(
            f"{text[:160]!r} is no checksum", hint="Write sha256: and the 64 hex digits that sha256sum shows"
        )
    return found[1], found[2]


def name_of(url: URL, disposition: str) -> str:
    """What the file is called: the last part of its path, or else what its server calls it. Without either it
    is `__unnamed__`, as BuildKit has it."""
    name = _plain(url.path.rstrip("/"))
    if not name and disposition and len(disposition) <= 4096:
        message = email.message.Message()
        message["Content-Disposition"] = disposition
        with contextlib.suppress(ValueError, LookupError):
            name = _plain(message.get_filename() or "")
    return name or "__unnamed__"


def _plain(path: str) -> str:
    name = posixpath.basename(path)
    if name in (".", "..") or any(ord(letter) < 32 for letter in name):
        return ""
    return "" if len(name.encode("utf-8", "replace")) > 255 else name


def time_of(modified: str) -> int:
    """Last-Modified as ns; the epoch where it is none, as other builders have it: equal files stay equal."""
    try:
        return int(email.utils.parsedate_to_datetime(modified).timestamp()) * 10**9
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0
