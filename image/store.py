"""The images of one host: what the `Images` seam promises, on disk.

    <root>/images.json     which images there are          <root>/layers/    unpacked layers, shared
    <root>/roots/          containers' writable layers     <root>/tmp/       spooled transfers; emptied at
    start

Invariant: an image is in the catalog only when all its layers are unpacked, verified and on disk.
"""

from __future__ import annotations

import asyncio
import platform as machine
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from aio.supervisor import in_thread
from image import changes as instructions
from image import config_blob
from image.archive import Archive, Found
from image.base import OnProgress, PullPolicy, Root
from image.catalog import Catalog, Entry
from image.digest import chain_ids, of
from image.drivers.base import StorageDriver
from image.layers import LayerStore
from image.manifest import Configuration
from image.reference import familiar, parse
from image.registry.source import Pulled, Source
from image.roots import Roots
from image.spool import spool
from model.api import ImageRemoved
from model.errors import InUse, NotFound, Unsupported
from model.image import HistoryEntry, ImageConfig, ImageRecord, Progress
from model.status import Platform

MAX_ARCHIVE = 1 << 40
_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}


def host_platform() -> Platform:
    """This machine's, in OCI's words."""
    arch = machine.machine()
    return Platform(os="linux", arch=_ARCH.get(arch, arch), variant="v7" if arch == "armv7l" else "")


class ImageStore:
    """`driver_choice` is the storage driver and why it was chosen; `source` is where `pull` gets images
    from."""

    def __init__(self, root: Path, *, driver_choice: tuple[StorageDriver, str], source: Source) -> None:
        self._root = root
        self._tmp = root / "tmp"
        self._storage, self._reason = driver_choice
        self._source = source
        self._catalog = Catalog(root / "images.json")
        self._layers = LayerStore(root / "layers")
        self._roots = Roots(root / "roots", self._storage)
        self._pulls: dict[str, asyncio.Lock] = {}
        self._changing = asyncio.Lock()
        self._platform = host_platform()

    async def open(self) -> None:
        """Read what there is, remove what was half-made."""
        await in_thread(self._open)

    def _open(self) -> None:
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        shutil.rmtree(self._tmp, ignore_errors=True)
        self._tmp.mkdir(mode=0o700)
        self._catalog.open()
        self._layers.open()
        self._roots.open()

    async def close(self) -> None:
        await self._source.close()

    @property
    def driver(self) -> tuple[str, str]:
        return self._storage.name, self._reason

    # -- queries ------------------------------------------------------------------------------------
    def list(self) -> Sequence[ImageRecord]:
        return [entry.record for entry in self._catalog.entries.values()]

    def find(self, ref: str) -> ImageRecord:
        return self._catalog.find(ref).record

    # -- from elsewhere -----------------------------------------------------------------------------
    async def ensure(self, ref: str, *, policy: PullPolicy, platform: str = "") -> ImageRecord:
        try:
            record = self.find(ref)
        except NotFound:
            if policy == "never":
                raise
            record = await self.pull(ref, platform=platform)
        else:
            if policy == "always" and record.id.removeprefix("sha256:") != ref.removeprefix("sha256:"):
                record = await self.pull(ref, platform=platform)
        self._check_platform(record, self._wanted(platform))
        return record

    async def pull(self, ref: str, *, platform: str = "", progress: OnProgress | None = None) -> ImageRecord:
        reference = parse(ref)
        lock = self._pulls.setdefault(reference.name, asyncio.Lock())
        waited = lock.locked()
        async with lock:
            if waited:
                return self.find(ref)
            say = progress or _silent
            pulled = await self._source.fetch(reference, self._wanted(platform), self._tmp, say)
            try:
                return await self._store_pulled(pulled, reference.name if reference.tag else "", say)
            finally:
                await in_thread(shutil.rmtree, pulled.folder, True)

    async def _store_pulled(self, pulled: Pulled, name: str, say: OnProgress) -> ImageRecord:
        found = Found(
            config=pulled.config, parsed=pulled.parsed, blobs=pulled.blobs, names=(name,) if name else ()
        )
        return await self._add(found, say, digests=(pulled.pinned,))

    async def load(
        self, chunks: AsyncIterator[bytes], *, progress: OnProgress | None = None
    ) -> Sequence[ImageRecord]:
        say = progress or _silent
        async with spool(chunks, self._tmp, limit=MAX_ARCHIVE) as spooled:
            folder = Path(tempfile.mkdtemp(prefix="load-", dir=self._tmp))
            try:
                archive = Archive(folder)
                await in_thread(archive.extract, spooled.path, MAX_ARCHIVE)
                found = await in_thread(archive.images, self._platform)
                for image in found:
                    await self._unpack(image, say)
                return [await self._add(image, say) for image in found]
            finally:
                await in_thread(shutil.rmtree, folder, True)

    async def import_tar(
        self, chunks: AsyncIterator[bytes], *, ref: str = "", message: str = "", changes: Sequence[str] = ()
    ) -> ImageRecord:
        config = instructions.apply(ImageConfig(), changes)
        names = (parse(ref).name,) if ref else ()
        async with spool(chunks, self._tmp, limit=MAX_ARCHIVE) as spooled:
            layer = await self._layers.unpack_root(spooled.path)
        parsed = Configuration(
            platform=self._platform,
            diff_ids=(layer.diff,),
            config=config,
            history=(HistoryEntry(created_by="flota import", comment=message),),
        )
        made = Found(config=config_blob.encode(parsed), parsed=parsed, blobs=("",), names=names)
        return await self._add(made, _silent)

    async def _unpack(self, image: Found, say: OnProgress) -> tuple[str, ...]:
        """All layers of an image, bottom first; their chain ids."""
        chains = chain_ids(image.parsed.diff_ids)
        for chain, diff, blob in zip(chains, image.parsed.diff_ids, image.blobs, strict=True):
            if self._layers.get(chain) is None:
                say(Progress(status="Extracting", id=diff[7:19]))
                await self._layers.unpack(Path(blob), chain, diff)
            say(Progress(status="Complete", id=diff[7:19]))
        return chains

    async def _add(self, image: Found, say: OnProgress, *, digests: tuple[str, ...] = ()) -> ImageRecord:
        async with self._changing:
            chains = await self._unpack(image, say)
            ident = of(image.config)
            old = self._catalog.entries.get(ident)
            names = (*(old.record.names if old else ()), *image.names)
            pinned = (*(old.record.digests if old else ()), *digests)
            parsed = image.parsed
            record = ImageRecord(
                id=ident,
                names=tuple(dict.fromkeys(names)),
                digests=tuple(dict.fromkeys(pinned)),
                layers=parsed.diff_ids,
                size=sum(layer.size for chain in chains if (layer := self._layers.get(chain))),
                created=parsed.created,
                platform=parsed.platform,
                config=parsed.config,
                history=parsed.history,
            )
            await in_thread(self._keep, image.config, Entry(record=record, chains=chains))
            return record

    def _keep(self, config: bytes, entry: Entry) -> None:
        """The configuration's own bytes stay: they are what the image's id is the digest of."""
        configs = self._root / "configs"
        configs.mkdir(mode=0o700, exist_ok=True)
        (configs / entry.record.id.removeprefix("sha256:")).write_bytes(config)
        self._catalog.put(entry)

    # -- names and removal --------------------------------------------------------------------------
    async def tag(self, ref: str, name: str) -> ImageRecord:
        async with self._changing:
            entry = self._catalog.find(ref)
            full = parse(name).name
            names = tuple(dict.fromkeys((*entry.record.names, full)))
            record = msgspec.structs.replace(entry.record, names=names)
            await in_thread(self._catalog.put, msgspec.structs.replace(entry, record=record))
            return record

    async def remove(self, ref: str, *, force: bool = False) -> ImageRemoved:
        async with self._changing:
            entry = self._catalog.find(ref)
            record = entry.record
            by_id = record.id.removeprefix("sha256:").startswith(ref.removeprefix("sha256:"))
            if not by_id and len(record.names) > 1:
                return await self._untag(entry, parse(ref).name)
            if by_id and len(record.names) > 1 and not force:
                raise InUse(f"image {ref} has {len(record.names)} names", hint="Remove them, or use --force")
            users = self._roots.of_image(record.id)
            if users:
                raise InUse(
                    f"image {familiar(ref)} is used by container {users[0][:12]}", hint="Remove that first"
                )
            await self._delete(entry)
            return ImageRemoved(untagged=record.names, deleted=(record.id,))

    async def prune(self, *, all_unused: bool = False) -> ImageRemoved:
        async with self._changing:
            gone = [
                entry
                for entry in list(self._catalog.entries.values())
                if (all_unused or not entry.record.names) and not self._roots.of_image(entry.record.id)
            ]
            for entry in gone:
                await self._delete(entry)
            names = tuple(name for entry in gone for name in entry.record.names)
            return ImageRemoved(untagged=names, deleted=tuple(entry.record.id for entry in gone))

    async def _untag(self, entry: Entry, name: str) -> ImageRemoved:
        names = tuple(n for n in entry.record.names if n != name)
        record = msgspec.structs.replace(entry.record, names=names)
        await in_thread(self._catalog.put, msgspec.structs.replace(entry, record=record))
        return ImageRemoved(untagged=(name,))

    async def _delete(self, entry: Entry) -> None:
        """The record first: an image whose layers are going must not be seen."""
        await in_thread(self._catalog.drop, entry.record.id)
        (self._root / "configs" / entry.record.id.removeprefix("sha256:")).unlink(missing_ok=True)
        for chain in reversed(entry.chains):
            needed = any(chain in other.chains for other in self._catalog.entries.values())
            if not needed and not self._roots.uses(chain):
                await self._layers.remove(chain)

    # -- roots --------------------------------------------------------------------------------------
    async def prepare_root(self, container: str, image_id: str) -> Root:
        entry = self._catalog.find(image_id)
        layers = tuple(self._layers.path(chain) for chain in entry.chains)
        return await self._roots.prepare(container, entry.record.id, layers, entry.chains)

    async def mount_root(self, container: str) -> Root:
        return await self._roots.mount(container)

    async def unmount_root(self, container: str) -> None:
        await self._roots.unmount(container)

    async def remove_root(self, container: str) -> None:
        await self._roots.remove(container)

    def roots(self) -> Sequence[Root]:
        return self._roots.all()

    async def root_usage(self, container: str) -> int:
        return await self._roots.usage(container)

    # -- platform -----------------------------------------------------------------------------------
    def _wanted(self, text: str) -> Platform:
        if not text:
            return self._platform
        os_name, _, rest = text.partition("/")
        arch, _, variant = rest.partition("/")
        return Platform(os=os_name, arch=arch or self._platform.arch, variant=variant)

    def _check_platform(self, record: ImageRecord, wanted: Platform) -> None:
        have = record.platform
        if have.os != wanted.os or (have.arch and have.arch != wanted.arch):
            raise Unsupported(
                f"image {record.id[7:19]} is made for {have.os}/{have.arch}, not {wanted.os}/{wanted.arch}"
            )


def _silent(progress: Progress) -> None:
    del progress
