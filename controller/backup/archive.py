"""What a backup is: a tar archive of the controller's state at one moment, with a manifest of it.

The members are `manifest.json`, `store.db` (the records), `pki/ca.pem`, `pki/ca.key`. Invariant: what `read`
returns was verified whole: digests, records, and that the CA is the fleet's. The bytes come from an enemy:
they are bounded, and nothing is unpacked to a disk.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import AsyncIterator, Mapping

from aio.supervisor import in_thread
from controller.pki import Authority
from controller.snapshot import Cluster
from controller.store import sqlite_dump
from controller.store.sqlite_schema import SCHEMA
from model.codec import decode_json, encode_json
from model.errors import Damaged, FlotaError, InvalidInput, Unsupported
from model.spec import Struct
from model.version import VERSION

FORMAT = 1
MANIFEST, STORE, CERTIFICATE, KEY = "manifest.json", "store.db", "pki/ca.pem", "pki/ca.key"
MEMBERS = (STORE, CERTIFICATE, KEY)
PART = 1 << 18
"""Bytes that are sent at once."""
MOST_BYTES = 4 << 30
"""Of one archive: a store of a million records is a quarter of that."""


class Member(Struct):
    size: int
    sha256: str


class Manifest(Struct):
    format: int
    fleet_id: str
    name: str
    revision: int
    epoch: int
    """The leader's."""
    taken_at: float
    """Unix seconds."""
    release: str
    """The flota that made it."""
    schema: int
    """Of `store.db`."""
    address: str
    """host:port at which hosts reached the controller."""
    members: Mapping[str, Member]


class Backup(Struct):
    manifest: Manifest
    cluster: Cluster
    epoch: int
    certificate: bytes
    """The CA's, PEM."""
    key: bytes


def make(cluster: Cluster, epoch: int, authority: Authority, address: str, now: float) -> bytes:
    """The archive. Blocking, for as long as it takes to write all records."""
    members = {
        STORE: sqlite_dump.dump(cluster, epoch),
        CERTIFICATE: authority.pem,
        KEY: authority.key_pem(),
    }
    manifest = Manifest(
        format=FORMAT,
        fleet_id=cluster.settings.fleet_id,
        name=cluster.settings.name,
        revision=cluster.revision,
        epoch=epoch,
        taken_at=now,
        release=VERSION,
        schema=SCHEMA,
        address=address,
        members={name: _member(data) for name, data in members.items()},
    )
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in ((MANIFEST, encode_json(manifest)), *members.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o600, int(now)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


async def stream(
    cluster: Cluster, epoch: int, authority: Authority, address: str, now: float
) -> AsyncIterator[bytes]:
    """As `make`, on a thread; in parts."""
    data: bytes = await in_thread(make, cluster, epoch, authority, address, now)
    for at in range(0, len(data), PART):
        yield data[at : at + PART]


def read(data: bytes, name: str = "the backup") -> Backup:
    """`name` is the file's, for people. Raises Damaged, Unsupported."""
    found = _unpacked(data, name)
    manifest = _manifest(found, name)
    for member, told in manifest.members.items():
        if _member(found.get(member, b"")) != told:
            raise Damaged(f"{name}: {member[:80]} is not what the manifest says")
    missing = [member for member in MEMBERS if member not in manifest.members]
    if missing:
        raise Damaged(f"{name} has no {', '.join(missing)}")
    cluster, epoch = sqlite_dump.read(found[STORE], f"{name}: {STORE}")
    if (cluster.settings.fleet_id, cluster.revision) != (manifest.fleet_id, manifest.revision):
        raise Damaged(f"{name}: the manifest is not of these records")
    try:
        Authority.load(found[CERTIFICATE], found[KEY], manifest.fleet_id)
    except FlotaError as error:
        raise Damaged(f"{name}: {error.message}") from error
    return Backup(
        manifest=manifest, cluster=cluster, epoch=epoch, certificate=found[CERTIFICATE], key=found[KEY]
    )


def _member(data: bytes) -> Member:
    return Member(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _unpacked(data: bytes, name: str) -> Mapping[str, bytes]:
    """The members that we know, each once. Raises Damaged."""
    if len(data) > MOST_BYTES:
        raise Damaged(f"{name} is larger than {MOST_BYTES >> 30} GiB")
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for info in tar:
                plain = info.isreg() and not info.issparse()  # holes have a size that nobody sent
                file = tar.extractfile(info) if plain and info.name in (MANIFEST, *MEMBERS) else None
                if file is None or info.name in found:
                    raise Damaged(f"{name} has a member {info.name[:80]!r} that no backup has")
                found[info.name] = file.read()
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        raise Damaged(f"{name} is no backup of flota: {error}") from error
    return found


def _manifest(found: Mapping[str, bytes], name: str) -> Manifest:
    if MANIFEST not in found:
        raise Damaged(f"{name} is no backup of flota: it has no manifest")
    try:
        manifest = decode_json(found[MANIFEST], Manifest, MANIFEST)
    except InvalidInput as error:
        raise Damaged(f"{name}: {error.message}") from error
    if manifest.format > FORMAT:
        raise Unsupported(
            f"{name} is of format {manifest.format}, made by flota {manifest.release[:40]}; "
            f"this flota {VERSION} knows {FORMAT}",
            hint="Restore it with that flota",
        )
    return manifest
