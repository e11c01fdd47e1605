"""Documents of one repository put into another with all that they name: an index's images, what refers to an
image.

What the target has is not sent again; within one registry blobs are mounted. Order as in a push: what a
document names before the document, so that a copy that is cut leaves no name that leads nowhere.
Sources: OCI distribution-spec 1.1, "Listing Referrers", "Referrers Tag Schema"; cosign's tags.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from image import indexes
from image.digest import encoded, of
from image.manifest import ACCEPTED, MAX_DOCUMENT, OCI_INDEX, Descriptor, load_object
from image.registry.access import Access
from image.registry.lookups import following
from image.registry.push import Content, Push
from image.registry.source import Outgoing
from image.registry.transport import Transport
from model.errors import Damaged, NotFound, Unsupported
from model.image import Progress

MAX_COPIED = 64 << 20
"""Bytes of one blob: it goes through memory. Signatures and lists of parts have far less."""
MAX_DEPTH = 3
MAX_REFERRERS, MAX_PAGES = 1000, 1000
"""Of one image; a registry may have pages as short as it likes."""
COSIGN = (".sig", ".att", ".sbom")
ANY = ", ".join((*ACCEPTED, "application/vnd.oci.artifact.manifest.v1+json"))


class Copying(Push):
    """From `source` to `target`, which are repositories."""

    def __init__(
        self,
        transport: Transport,
        source: Access,
        target: Access,
        say: Callable[[Progress], None],
        window: float,
    ) -> None:
        nothing = Outgoing(reference=target.reference, manifest=b"", media_type="", config=b"", layers=())
        super().__init__(transport, target, nothing, say, window)
        self._source = source

    async def manifest(self, digest: str, name: str = "", depth: int = 0) -> bool:
        """Under its digest, or as `name`; whether the target knows what it refers to by itself. Raises
        NotFound where the source has it not."""
        if depth > MAX_DEPTH:
            raise Damaged(f"manifests nested deeper than {MAX_DEPTH}")
        data, media_type = await self._fetched(name or digest)
        if digest and of(data) != digest:
            raise Damaged(f"registry {self._source.endpoint.host}: {digest[7:19]} does not match its digest")
        found = indexes.linked(data, media_type)
        for member in found.manifests:
            if not await self.has_manifest(member.digest):
                await self.manifest(member.digest, depth=depth + 1)
        for blob in {blob.digest: blob for blob in found.blobs}.values():
            await self._blob(blob)
        headers = await self._put(name or of(data), data, found.media_type)
        self._say(Progress(status="Copied", id=of(data)[7:19]))
        return not found.subject or "OCI-Subject" in headers

    async def referrers(self, subject: str) -> int:
        """Whatever refers to the manifest `subject`, which the target has already; how many there were."""
        entries = await self._referring(subject)
        for entry in entries:
            if not await self.manifest(entry["digest"]):
                await self._tag_referrer(subject, entry)
        return len(entries) + await self._cosigned(subject)

    async def _cosigned(self, subject: str) -> int:
        count = 0
        for suffix in COSIGN:
            try:
                await self.manifest("", f"sha256-{encoded(subject)}{suffix}")
            except NotFound:
                continue
            count += 1
        return count

    async def _referring(self, subject: str) -> Sequence[dict[str, Any]]:
        """Entries of the source's list; of its tag, where it keeps none. Raises Unsupported for more of them
        than anybody needs."""
        found: list[dict[str, Any]] = []
        path = f"referrers/{subject}"
        try:
            for _ in range(MAX_PAGES):
                data, headers = await self._transport.document(
                    self._source, path, accept=OCI_INDEX, limit=MAX_DOCUMENT
                )
                if "manifests" not in load_object(data, "list of referrers"):
                    raise NotFound("it has no list of referrers")
                found += indexes.entries_of(data)
                more = following(headers.get("Link", ""), self._source.url(path))
                if len(found) > MAX_REFERRERS:
                    break
                if more is None:
                    return found
                path = more.raw_path_qs.partition(f"/v2/{self._source.reference.path}/")[2]
        except NotFound:
            try:
                data, _ = await self._fetched(f"sha256-{encoded(subject)}")
            except NotFound:
                return found
            return indexes.entries_of(data)
        raise Unsupported(
            f"registry {self._source.endpoint.host} has more than {MAX_REFERRERS} referrers of"
            f" {subject[7:19]}, or more than {MAX_PAGES} pages of them",
            hint="Copy those that are needed by another tool",
        )

    async def _tag_referrer(self, subject: str, entry: dict[str, Any]) -> None:
        """The list of a registry that keeps none itself."""
        tag = f"sha256-{encoded(subject)}"
        try:
            data, _ = await self._transport.document(
                self._access, f"manifests/{tag}", accept=OCI_INDEX, limit=MAX_DOCUMENT
            )
            before = indexes.entries_of(data)
        except NotFound:
            before = []
        if entry["digest"] not in [other["digest"] for other in before]:
            await self._put(tag, indexes.made([*before, entry]), OCI_INDEX)

    # -- parts --------------------------------------------------------------------------------------
    async def _fetched(self, name: str) -> tuple[bytes, str]:
        data, headers = await self._transport.document(
            self._source, f"manifests/{name}", accept=ANY, limit=MAX_DOCUMENT
        )
        return data, headers.get("Content-Type", "").partition(";")[0].strip()

    async def _blob(self, blob: Descriptor) -> None:
        if await self._is_there(blob):
            return
        place = None
        if self._source.origin == self._access.origin:
            place = await self._mount(blob, self._source.reference.path)
            if place is None:
                return
        if blob.size > MAX_COPIED:
            origin = self._source.reference.repository
            raise Unsupported(
                f"blob {blob.digest[7:19]} has {blob.size} bytes, too many to copy from {origin}",
                hint="Pull its image, tag it into the repository and push it there",
            )
        data, _ = await self._transport.document(self._source, f"blobs/{blob.digest}", limit=MAX_COPIED)
        if len(data) != blob.size or of(data) != blob.digest:
            raise Damaged(
                f"registry {self._source.endpoint.host}: {blob.digest[7:19]} does not match its digest"
            )
        await self._upload(Content(blob, data=data), place or await self._begin())
