"""Layers that mean harm by their amount, or by what a container would do with them: each is refused, or
unpacked inside, within 256 MiB and 10 s of the processor. `tests/support/hostileinputs.py` tells of others.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import socket
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from image.layertar import packed
from image.store import ImageStore
from model.errors import Damaged, FlotaError
from tests.support.containers import Lab, bind
from tests.support.images import (
    MANIFEST,
    chunks,
    descriptor,
    docker_archive,
    folder,
    image,
    link,
    member,
    oci_archive,
    tar,
)
from tests.support.layerplaces import LayerPlace
from tests.support.registry import FakeRegistry
from tests.unit.test_tarstream import HOSTILE as MALFORMED
from tests.unit.test_tarstream import header, pax

pytestmark = pytest.mark.kernel
END = bytes(1024)


def block(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> bytes:
    """A header alone, quickly."""
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(format=tarfile.PAX_FORMAT)


def test_malformed_archive_changes_nothing_outside(tmp_path: Path) -> None:
    """B47-B51, each of the reader's table in the process that would read it."""
    (tmp_path / "base").mkdir()
    place = LayerPlace(tmp_path / "base")
    before = place.census()
    for name, data in MALFORMED.items():
        assert place.unpack(data)["error"]["code"] in ("damaged", "unsupported"), name
        for left in place.target.iterdir():
            left.unlink()
    assert place.census() == before


def test_mode_changed_by_a_link_is_not_the_victims(place: LayerPlace) -> None:
    """B43: CVE-2021-32760."""
    soft = member("soft", type=tarfile.SYMTYPE, linkname=str(place.victim / "file"), mode=0o777)
    hard = member("hard", type=tarfile.LNKTYPE, linkname="soft", mode=0o777, uid=1, mtime=1)
    assert "error" not in place.unpack(tar(soft, hard))
    assert (place.target / "hard").is_symlink()


@pytest.mark.parametrize("kind", [b"s", b"V", b"M", b"D", b"\xff"])
def test_member_of_an_unknown_type_is_refused(place: LayerPlace, kind: bytes) -> None:
    """B44."""
    assert place.unpack(header(b"x", kind=kind) + END)["error"]["code"] == "unsupported"


def test_name_of_any_bytes_is_that_name(place: LayerPlace) -> None:
    """B47: newlines and what is no UTF-8 are names, too."""
    data = pax(b"path=\xff\xfe\nd/\x01") + header() + END
    assert "error" not in place.unpack(data)
    assert os.listdir(os.fsencode(place.target / os.fsdecode(b"\xff\xfe\nd"))) == [b"\x01"]


@pytest.mark.parametrize("count", [3, 700])
def test_many_long_names_of_one_member_are_bounded(place: LayerPlace, count: int) -> None:
    """B48."""
    one = header(kind=b"L", size=b"00000200000\0") + b"n" * 65_536
    assert "impossible name" in place.unpack(one * count + header(b"x") + END)["error"]["message"]


def test_old_folder_with_a_long_name_and_content_is_read_as_go_reads_it(place: LayerPlace) -> None:
    """B48: CVE-2025-13462; what a folder's size announces are the next headers."""
    named = header(kind=b"L", size=b"00000000003\0") + b"d/\0".ljust(512, b"\0")
    inner = header(b"hidden")
    result = place.unpack(named + header(b"x", kind=b"\0", size=b"00000001000\0") + inner + END)
    assert "error" not in result and (place.target / "d").is_dir() and (place.target / "hidden").is_file()


def test_one_name_a_hundred_thousand_times_is_one_file(place_in_memory: LayerPlace) -> None:
    """B52."""
    result = place_in_memory.unpack(gzip.compress(block("x") * 100_000 + END, 1))
    assert result["files"] == 100_000 and os.listdir(place_in_memory.target) == ["x"]


@pytest.mark.parametrize("depth", [514, 2000, 10_000])
def test_folder_deeper_than_any_is_refused(place: LayerPlace, depth: int) -> None:
    """B53."""
    result = place.unpack(block("/".join("d" * depth)) + END)
    assert result["error"]["code"] == "damaged"


def test_deep_folders_in_turn_cost_little(place: LayerPlace) -> None:
    """B53: each member's way is 512 folders, and never that of the one before."""
    data = b"".join(block("/".join([letter] * 511) + "/f") for letter in "ab") * 2000
    assert "error" not in place.unpack(gzip.compress(data + END, 1))


def test_deep_folders_that_are_to_be_found_again_each_time_are_refused(place: LayerPlace) -> None:
    """B53: the link that is replaced could have been on their way."""
    turn = b"".join(
        block("l", tarfile.SYMTYPE, linkname=letter) + block("l/f") + block("/".join([letter] * 511) + "/f")
        for letter in "ab"
    )
    error = place.unpack(gzip.compress(turn * 250 + END, 1))["error"]
    assert "deeper folders" in error["message"]


def test_folders_with_very_long_names_take_bounded_memory(place: LayerPlace) -> None:
    """B53, B58."""
    above = "/".join(["d" * 250] * 15)
    one = block(
        f"{above}/@@@@@", tarfile.DIRTYPE
    )  # the number stands in the pax record, which has no checksum
    data = b"".join(one.replace(b"@@@@@", b"%05d" % number) for number in range(36_000))
    assert "longer names" in place.unpack(gzip.compress(data + END, 1))["error"]["message"]


BOMBS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 9),
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=1),
    "zstd": lambda data: zstandard.compress(data, 3),
    "gzip members": lambda data: gzip.compress(data[: 1 << 20], 9) * (len(data) >> 20),
}


@pytest.mark.parametrize("pack", BOMBS.values(), ids=BOMBS)
def test_bomb_of_any_compression_ends_at_the_limit(place: LayerPlace, pack: Callable[[bytes], bytes]) -> None:
    """B55."""
    zeros = tar(member("zeros", bytes(48 << 20)))
    assert place.unpack(pack(zeros), max_bytes=8 << 20)["error"]["code"] == "exhausted"


@pytest.mark.parametrize("preset", [9, lzma.PRESET_EXTREME | 9])
def test_dictionary_of_xz_is_bounded(place: LayerPlace, preset: int) -> None:
    """B55."""
    assert "error" not in place.unpack(lzma.compress(tar(member("x", b"y" * 9000)), preset=preset))
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29, "preset": 0}]
    assert place.unpack(lzma.compress(tar(member("x")), filters=filters))["error"]["code"] == "damaged"


async def test_layer_in_another_compression_than_its_media_type_is_read_by_what_it_is(
    store: ImageStore, registry: FakeRegistry
) -> None:
    """B55: as others do, by its first bytes."""
    data = tar(member("x", b"content"))
    built = image([data])
    packed = zstandard.compress(data)
    layer = descriptor(packed, "application/vnd.oci.image.layer.v1.tar+gzip")
    document = json.loads(built.manifest)
    document["layers"] = [layer]
    raw = json.dumps(document).encode()
    registry.blobs[layer["digest"]] = packed
    registry.blobs[built.id] = built.config
    registry.manifests["odd"] = (MANIFEST, raw)
    record = await store.pull(f"{registry.host}/app:odd")
    assert len(record.layers) == 1


async def test_config_of_other_layers_than_there_are_is_refused(store: ImageStore) -> None:
    """B56, B67."""
    layers = [tar(member(name)) for name in "ab"]
    built, other = image(layers), image(layers[::-1])
    swapped = docker_archive(other, layers)
    with pytest.raises(Damaged, match="digest"):
        await store.load(chunks(swapped))
    with pytest.raises(Damaged, match="layers"):
        await store.load(chunks(docker_archive(built, layers[:1])))
    assert store.list() == []


async def test_one_layer_very_often_is_an_image(store: ImageStore) -> None:
    """B67."""
    layer = tar(member("x", b"x"))
    [record] = await store.load(chunks(oci_archive(image([layer] * 20))))
    await store.prepare_root("c", record.id)
    root = Path((await store.mount_root("c")).path)
    assert len(record.layers) == 20 and (root / "x").read_bytes() == b"x"


def test_very_many_empty_files_end_at_the_limit(place: LayerPlace) -> None:
    """B58."""
    data = b"".join(block(f"f{number}") for number in range(30_000))
    error = place.unpack(gzip.compress(data + END, 1), max_files=20_000)["error"]
    assert error["code"] == "exhausted" and "20000 files" in error["message"]


def test_names_of_our_own_files_stay_inside(place: LayerPlace) -> None:
    """B60: what a store keeps beside a layer's files."""
    names = ("link", "blob", "fs/x", "tmp-1", "root.json", "upper/x", "images.json")
    assert "error" not in place.unpack(tar(*(member(name, b"mine") for name in names)))
    assert all((place.target / name).read_bytes() == b"mine" for name in names)


@pytest.mark.parametrize("size", [1, 60_000])
def test_very_many_attributes_are_kept_or_refused(place: LayerPlace, size: int) -> None:
    """B61."""
    many = member("x", b"content")
    many[0].pax_headers = {f"SCHILY.xattr.user.n{number}": "v" * size for number in range(1000 // size + 16)}
    result = place.unpack(tar(many))
    assert "error" not in result or result["error"]["code"] in ("damaged", "exhausted")


def test_parent_that_comes_after_its_children_has_the_last_word(place: LayerPlace) -> None:
    """B62."""
    place.unpack(tar(member("a/b/c", b"x"), folder("a/b", mode=0, mtime=5), folder("a", mode=0o4700, uid=9)))
    status = os.lstat(place.target / "a/b")
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0, 5)
    assert stat.S_IMODE(os.lstat(place.target / "a").st_mode) == 0o4700


TARGETS = ("etc/hosts", "etc/hostname", "etc/resolv.conf")
TRAPS: dict[str, tuple[tuple[tarfile.TarInfo, bytes], ...]] = {
    "files": tuple(link(name, "../../../victim/file") for name in TARGETS),
    "absolute files": tuple(link(name, "/victim/file") for name in TARGETS),
    "etc": (link("etc", "../../victim"),),
    "dev": (link("dev", "/victim"),),
    "proc": (link("proc", "../../victim"),),
    "sys": (link("sys", "/victim"),),
    "proc in proc": (folder("p"), link("proc", "p"), link("p/self", "/victim")),
}


@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS)
async def test_container_whose_mount_points_are_links_reaches_nothing_outside(
    lab: Lab, tmp_path: Path, trap: tuple[tuple[tarfile.TarInfo, bytes], ...]
) -> None:
    """B59: it starts, or is refused by the runtime."""
    (tmp_path / "base").mkdir()
    place = LayerPlace(tmp_path / "base")
    (place.base / "ours").write_text("ours")
    before = place.census()
    busybox = member("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755)
    place.unpack(tar(busybox, link("bin/sh", "busybox"), *trap))
    mounts = tuple(bind(place.base / "ours", f"/{name}") for name in TARGETS)
    try:
        await lab.run(
            "echo x > /etc/hosts; echo x > /etc/mine; true", rootfs=str(place.target), mounts=mounts
        )
    except FlotaError as error:
        assert "\n" not in error.message
    (place.base / "ours").write_text("ours")
    os.utime(place.base / "ours", ns=(0, 0))
    after = place.census()
    assert [line for line in after if "victim" in line[0]] == [line for line in before if "victim" in line[0]]


def test_socket_of_an_archive_is_none_of_a_tars_types(place: LayerPlace) -> None:
    """B44: tar has no sockets; one in a tree that is packed is left out."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place.target / "socket"))
        data = b"".join(packed(str(place.target)))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["."]
