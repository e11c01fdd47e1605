"""Pushing an image: what the registry has is not sent again, what breaks goes on where it broke.

Order: layers (at the same time), configuration, manifest; so a manifest never names what is not there, and a
push that is cut at any moment leaves the tag as it was. Source: OCI distribution-spec 1.1, "Push".
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from yarl import URL

from aio.backoff import delay
from aio.supervisor import in_thread
from aio.together import together
from image.attestations import Attached, blobs_of
from image.digest import of
from image.manifest import ACCEPTED, OCI_MANIFEST, Descriptor
from image.registry.access import Access
from image.registry.refusals import Hopeless, Lost, refusal, translated
from image.registry.sink import FLOOR
from image.registry.source import Blob, Outgoing
from image.registry.transport import ATTEMPTS, Transport, redirected
from model.errors import Damaged, FlotaError, NotFound, Unavailable
from model.image import Progress

PARALLEL = 4
PIECE = 1 << 18
COMMIT = 300.0
"""Seconds for a registry to store a blob that it has all of: some copy it then."""
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})\Z", re.ASCII)


class Push:
    """One push by one access."""

    def __init__(
        self,
        transport: Transport,
        access: Access,
        outgoing: Outgoing,
        say: Callable[[Progress], None],
        window: float,
    ) -> None:
        """`window`: seconds within which the registry must take a piece."""
        self._window = window
        self._transport = transport
        self._access = access
        self._outgoing = outgoing
        self._say = say
        self._slots = asyncio.Semaphore(PARALLEL)

    async def run(self) -> str:
        """The manifest's digest, once it is there."""
        outgoing = self._outgoing
        layers = {blob.descriptor.digest: blob for blob in outgoing.layers}
        for blob in layers.values():
            self._say(Progress(status="Preparing", id=_short(blob.descriptor)))
        await together([self._layer(blob) for blob in layers.values()])
        config = Descriptor(digest=of(outgoing.config), size=len(outgoing.config))
        if not await self._is_there(config):
            await self._upload(Content(config, data=outgoing.config), await self._begin())
        return await self._manifest()

    async def _manifest(self) -> str:
        outgoing = self._outgoing
        digest = of(outgoing.manifest)
        await self._put(outgoing.reference.tag or digest, outgoing.manifest, outgoing.media_type)
        return digest

    async def index(self, data: bytes, media_type: str, tag: str) -> str:
        """Once all that it names is there; its digest."""
        await self._put(tag or of(data), data, media_type)
        return of(data)

    async def attached(self, one: Attached) -> None:
        """The attestations of an image, under their manifest's digest."""
        for descriptor, data in blobs_of(one):
            if not await self._is_there(descriptor):
                await self._upload(Content(descriptor, data=data), await self._begin())
        await self._put(one.digest, one.manifest, OCI_MANIFEST)

    async def has_manifest(self, digest: str) -> bool:
        url = self._access.url(f"manifests/{digest}")
        headers = {"Accept": ", ".join(ACCEPTED)}
        try:
            response = await self._transport.patiently(
                self._access, "HEAD", url, headers=headers, good=(200,)
            )
        except NotFound:
            return False
        response.release()
        return True

    async def _put(self, name: str, data: bytes, media_type: str) -> Mapping[str, str]:
        """A document as `name`, a tag or its digest; the answer's headers."""
        access, digest = self._access, of(data)
        response = await self._transport.patiently(
            access,
            "PUT",
            access.url(f"manifests/{name}"),
            headers={"Content-Type": media_type},
            data=data,
            good=(201, 200, 202),
        )
        response.release()
        said = response.headers.get("Docker-Content-Digest", digest)
        if said.startswith("sha256:") and said != digest:
            raise Damaged(f"registry {access.endpoint.host} took the manifest for {said[:71]}, not {digest}")
        return response.headers

    # -- one blob -----------------------------------------------------------------------------------
    async def _layer(self, blob: Blob) -> None:
        descriptor, short = blob.descriptor, _short(blob.descriptor)
        async with self._slots:
            if await self._is_there(descriptor):
                self._say(Progress(status="Layer already exists", id=short))
                return
            place: URL | None = None
            for path in self._outgoing.mounts:
                place = await self._mount(descriptor, path)
                if place is None:
                    self._say(Progress(status=f"Mounted from {path}", id=short))
                    return
                break  # the registry has opened an upload instead: another question would open another
            self._say(Progress(status="Pushing", id=short, total=descriptor.size))
            content = Content(descriptor, path=blob.path, say=self._say)
            await self._upload(content, place or await self._begin())
            self._say(Progress(status="Pushed", id=short))

    async def _is_there(self, descriptor: Descriptor) -> bool:
        url = self._access.url(f"blobs/{descriptor.digest}")
        try:
            response = await self._transport.patiently(self._access, "HEAD", url, good=(200,))
        except NotFound:
            return False
        response.release()
        return True

    async def _mount(self, descriptor: Descriptor, path: str) -> URL | None:
        """None when the blob is there now; else where to upload it."""
        url = self._access.url("blobs/uploads/").with_query({"mount": descriptor.digest, "from": path})
        response = await self._transport.patiently(
            self._access, "POST", url, headers={"Content-Length": "0"}, good=(201, 202)
        )
        response.release()
        return None if response.status == 201 else _location(response)

    async def _begin(self) -> URL:
        url = self._access.url("blobs/uploads/")
        response = await self._transport.patiently(
            self._access, "POST", url, headers={"Content-Length": "0"}, good=(202,)
        )
        response.release()
        return _location(response)

    # -- its bytes ----------------------------------------------------------------------------------
    async def _upload(self, content: Content, place: URL) -> None:
        """Until the registry has the whole blob under its digest. It fails after some tries in a row that
        moved next to nothing."""
        failures = 0
        while True:
            before = content.sent
            try:
                if content.sent < content.size or not content.size:
                    place = await self._patch(content, place)
                await self._finish(content, place)
                return
            except Hopeless:
                raise
            except (Unavailable, Lost):
                failures += 1
                if failures >= ATTEMPTS:
                    raise
            await asyncio.sleep(delay(failures, first=0.2, limit=10.0))
            place = await self._resumed(content, place)
            if content.sent - before >= FLOOR:  # what it says that it has: much may be lost on the way
                failures = 1

    async def _patch(self, content: Content, place: URL) -> URL:
        """All that is left in one piece."""
        begin = content.sent
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(content.size - begin),
        }
        if content.size:
            headers["Content-Range"] = f"{begin}-{content.size - 1}"
        with content.opened() as read, translated(self._access.endpoint.host):
            async with asyncio.timeout(self._window) as patience:
                content.taken = lambda: patience.reschedule(_now() + self._window)
                response = await self._transport.once(
                    self._access,
                    "PATCH",
                    place,
                    headers=headers,
                    data=lambda: content.pieces(read, begin),
                    silence=COMMIT,
                )
        if response.status not in (202, 201, 204):
            raise _worth(response.status, await refusal(response, self._outgoing.reference))
        response.release()
        content.sent = content.size
        return _location(response) if "Location" in response.headers else place

    async def _finish(self, content: Content, place: URL) -> None:
        mark = "&" if place.query_string else "?"
        url = URL(f"{place}{mark}digest={content.digest}", encoded=True)  # what it says stays to the letter
        response = await self._transport.once(
            self._access, "PUT", url, headers={"Content-Length": "0"}, silence=COMMIT
        )
        if response.status not in (201, 204):
            error = _worth(response.status, await refusal(response, self._outgoing.reference))
            if isinstance(error, Hopeless):
                await in_thread(content.verify)  # whose fault is it?
            raise error
        response.release()

    async def _resumed(self, content: Content, place: URL) -> URL:
        """Where to go on, after the registry was asked how much it has; from the start where it doesn't
        know."""
        try:
            response = await self._transport.patiently(self._access, "GET", place, good=(204, 202))
        except (NotFound, Hopeless):
            content.sent = 0
            return await self._begin()
        response.release()
        kept = _RANGE.match(response.headers.get("Range", ""))
        have = int(kept[1]) + 1 if kept else 0
        content.sent = have if 1 < have <= content.size else 0
        if not content.sent:
            return await self._begin()
        if "Location" in response.headers:
            return _location(response)
        return place


class Content:
    """A blob that is being sent: `sent` is how much of it the registry is known, or hoped, to have."""

    def __init__(
        self,
        descriptor: Descriptor,
        *,
        path: Path | None = None,
        data: bytes = b"",
        say: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.descriptor = descriptor
        self.digest = descriptor.digest
        self.size = descriptor.size
        self.sent = 0
        self.taken: Callable[[], None] = lambda: None
        """Told of each piece that has left."""
        self._path = path
        self._data = data
        self._say = say

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], bytes]]:
        """What reads a piece from an offset, until the block ends: whoever sends may forget a stream half
        read. Raises Damaged for a file that is not as it was."""
        if self._path is None:
            yield lambda begin: self._data[begin : begin + PIECE]
            return
        hint = "Pull the image again"
        try:
            file = open(self._path, "rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise Damaged(f"a layer is missing on this host: {error.strerror}", hint=hint) from error
        with file:
            if os.fstat(file.fileno()).st_size != self.size:
                words = f"layer {_short(self.descriptor)} on this host has another size than it had"
                raise Damaged(words, hint=hint)
            yield lambda begin: os.pread(file.fileno(), PIECE, begin)

    def verify(self) -> None:
        """Raises Damaged when the file does not hold any more what its digest says."""
        with self.opened():
            if self._path is None:
                return
            with open(self._path, "rb") as file:
                digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        if digest != self.digest:
            raise Damaged(
                f"layer {_short(self.descriptor)} on this host does not match its digest any more",
                hint="The disk may be failing; remove the image and pull it again",
            )

    async def pieces(self, read: Callable[[int], bytes], begin: int) -> AsyncIterator[bytes]:
        self.sent = begin
        while piece := await in_thread(read, self.sent):
            yield piece
            self.sent += len(piece)
            self.taken()
            self._say(
                Progress(status="Pushing", id=_short(self.descriptor), current=self.sent, total=self.size)
            )


def _worth(status: int, error: FlotaError) -> FlotaError:
    """The error by whether another try may help: a range that does not fit (416) and a lost upload may be
    begun again."""
    if status == 416 or (status == 404 and isinstance(error, NotFound)):
        return Lost(error.message)
    return error


def _location(response: aiohttp.ClientResponse) -> URL:
    """Where an upload goes on: another server's, it may be, which then gets no credential."""
    return redirected(response.url, response.headers.get("Location", ""))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _short(descriptor: Descriptor) -> str:
    return descriptor.digest[7:19]
