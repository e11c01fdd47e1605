"""A backup's archive: what is read is what was made, and nothing else is taken."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

import msgspec
import pytest

from controller.backup import archive
from controller.pki import Authority
from controller.snapshot import Cluster
from model.errors import Damaged, Unsupported
from model.ids import ServiceId
from model.records import FleetSettings, Service
from model.spec import ContainerSpec, ServiceSpec


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("fleet")


def state() -> Cluster:
    settings = FleetSettings(name="ours", fleet_id="fleet", revision=1)
    spec = ServiceSpec(name="web", container=ContainerSpec(image="box:1"))
    service = Service(id=ServiceId("a" * 64), spec=spec, revision=7)
    return Cluster().apply((settings, service), (), 7)[0]


def packed(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: (file.read() if (file := tar.extractfile(info)) else b"") for info in tar}


def test_archive_read_gives_the_records_and_the_ca_that_were_packed(authority: Authority) -> None:
    found = archive.read(archive.make(state(), 3, authority, "h1:7420", 100.0))
    assert (found.cluster, found.epoch) == (state(), 3)
    assert (found.certificate, found.key) == (authority.pem, authority.key_pem())
    told = found.manifest
    assert (told.fleet_id, told.name, told.revision, told.taken_at) == ("fleet", "ours", 7, 100.0)
    assert told.address == "h1:7420"


async def test_archive_streamed_is_the_same_as_made(authority: Authority) -> None:
    parts = [part async for part in archive.stream(state(), 3, authority, "", 100.0)]
    assert archive.read(b"".join(parts)).cluster == state()


@pytest.mark.parametrize("member", archive.MEMBERS)
def test_archive_with_a_changed_member_is_damaged(authority: Authority, member: str) -> None:
    found = members(archive.make(state(), 3, authority, "", 100.0))
    found[member] += b" "
    with pytest.raises(Damaged, match=member):
        archive.read(packed(found))


def test_archive_of_another_fleets_ca_is_damaged(authority: Authority) -> None:
    foreign = Authority.new("other")
    with pytest.raises(Damaged, match="another fleet"):
        archive.read(archive.make(state(), 3, foreign, "", 100.0))


def test_archive_with_a_key_that_is_not_the_cas_is_damaged() -> None:
    mixed, other = Authority.new("fleet"), Authority.new("fleet")
    mixed._key = other._key
    with pytest.raises(Damaged, match="not that of its certificate"):
        archive.read(archive.make(state(), 3, mixed, "", 100.0))


def test_archive_of_a_newer_format_is_refused_with_who_made_it(authority: Authority) -> None:
    found = members(archive.make(state(), 3, authority, "", 100.0))
    manifest = msgspec.json.decode(found[archive.MANIFEST])
    found[archive.MANIFEST] = msgspec.json.encode({**manifest, "format": 9, "release": "9.9"})
    with pytest.raises(Unsupported, match=r"format 9, made by flota 9\.9"):
        archive.read(packed(found))


@pytest.mark.parametrize("extra", ["../../etc/passwd", "/etc/passwd", "store.db-wal"])
def test_archive_with_a_member_that_no_backup_has_is_refused(authority: Authority, extra: str) -> None:
    found = members(archive.make(state(), 3, authority, "", 100.0))
    with pytest.raises(Damaged, match="no backup has"):
        archive.read(packed({**found, extra: b"x"}))


def test_archive_cut_off_anywhere_or_of_nonsense_is_damaged(authority: Authority) -> None:
    whole = archive.make(state(), 3, authority, "", 100.0)
    end = whole.rstrip(b"\0")
    for at in (0, 1, 511, 512, 700, 2000, len(end) // 2, len(end) - 1):
        with pytest.raises(Damaged):
            archive.read(whole[:at])
    for nonsense in (b"x" * 4096, b"\0" * 10240, packed({"manifest.json": b"{}"})):
        with pytest.raises(Damaged):
            archive.read(nonsense)


def test_archive_with_a_hole_of_a_terabyte_is_refused_unread() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(archive.STORE)
        info.pax_headers = {"GNU.sparse.size": str(1 << 40), "GNU.sparse.map": f"{1 << 40},0"}
        tar.addfile(info)
    with pytest.raises(Damaged, match="no backup has"):
        archive.read(file.getvalue())
