"""Layers, honest and hostile, unpacked for real; beside each stands a sentinel tree that must not change."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.support.images import digest, folder, link, member, tar
from tests.support.layerplaces import LayerPlace

pytestmark = pytest.mark.kernel
Entry = tuple[tarfile.TarInfo, bytes]


def with_pax(entry: tuple[tarfile.TarInfo, bytes], records: dict[str, str]) -> tuple[tarfile.TarInfo, bytes]:
    entry[0].pax_headers = records
    return entry


UP = "../victim/file"
HOSTILE: dict[str, bytes] = {
    "climbs": tar(member("../victim/file", b"evil")),
    "climbs after a folder": tar(member("a/../../victim/file", b"evil")),
    "absolute climb": tar(member("/../../victim/file", b"evil")),
    "only dots": tar(member("..", b"evil")),
    "root is a link": tar(link(".", "../victim"), member("file", b"evil")),
    "root is a file": tar(member("./", b"evil")),
    "empty name": tar(member("", b"evil")),
    "hard link out": tar(link("mine", UP, hard=True), member("mine", b"evil")),
    "hard link absolute": tar(link("mine", "/victim/file", hard=True)),
    "hard link to later": tar(link("mine", "later", hard=True), member("later")),
    "hard link to itself": tar(member("x"), link("x", "x", hard=True)),
    "hard link to a folder": tar(folder("d"), link("x", "d", hard=True)),
    "hard link through a link": tar(link("l", "../victim"), link("mine", "l/file", hard=True)),
    "whiteout of nothing": tar(member(".wh.")),
    "whiteout of dot": tar(member("d/.wh..")),
    "whiteout of dots": tar(member(".wh...")),
    "device 0:0": tar(member("x", type=tarfile.CHRTYPE)),
    "device beyond numbers": tar(member("x", type=tarfile.BLKTYPE, devmajor=4096, devminor=0)),
    "name too long": tar(member("n" * 256)),
    "too deep": tar(member("/".join(["d"] * 1000))),
    "path too long": tar(member("/".join(["d" * 250] * 17))),
    "owner 2^32": tar(member("x", uid=1 << 32)),
    "owner -1": tar(member("x", uid=(1 << 32) - 1)),
    "not a tar": b"hello " * 1000,
    "gzip cut": gzip.compress(tar(member("x", os.urandom(9000))))[:5000],
    "gzip damaged": gzip.compress(tar(member("x", b"y" * 9000)))[:-6] + b"123456",
    "gzip of gzip": gzip.compress(gzip.compress(tar(member("x")))),
    "xz damaged": lzma.compress(tar(member("x", b"y" * 9000)))[:-20],
    "bzip2 damaged": bz2.compress(tar(member("x", b"y" * 9000)))[:-20],
    "zstd damaged": zstandard.compress(tar(member("x", os.urandom(9000))))[:400] + b"zzzz",
    "attribute too long": tar(with_pax(member("x"), {"SCHILY.xattr.user.x": "v" * 70_000})),
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_layer_is_refused_in_one_line_and_reaches_nothing(place: LayerPlace, data: bytes) -> None:
    error = place.unpack(data)["error"]
    assert error["code"] in ("damaged", "exhausted", "unsupported"), error
    assert "\n" not in error["message"]


LINKS_OUT = {
    "absolute": ("victim", [link("l", "/victim")]),
    "relative": ("victim", [link("l", "../victim")]),
    "chained": ("victim", [link("k", "../victim"), link("l", "k")]),
    "dangling": ("nowhere/at/all", [link("l", "/nowhere/at/all")]),
    "to the root": ("", [link("l", "/")]),
    "to proc": ("proc/self/root", [link("l", "/proc/self/root")]),
    "through a folder and back": ("other", [folder("d"), link("d/k", "../other"), link("l", "d/../d/k/.")]),
}


@pytest.mark.parametrize(("where", "links"), LINKS_OUT.values(), ids=LINKS_OUT)
def test_file_through_a_link_lands_inside(place: LayerPlace, where: str, links: list[Entry]) -> None:
    """B39: where containerd and umoci put it."""
    result = place.unpack(tar(*links, member("l/file", b"inside"), folder("l/sub"), member("l/.wh.gone")))
    assert "error" not in result
    assert (place.target / "l").is_symlink()
    assert (place.target / where / "file").read_bytes() == b"inside"
    assert (place.target / where / "sub").is_dir()
    assert os.lstat(place.target / where / "gone").st_rdev == 0


def test_links_that_lead_round_in_circles_are_refused(place: LayerPlace) -> None:
    data = tar(link("a", "b"), link("b", "a"), member("a/file"))
    assert "40 links" in place.unpack(data)["error"]["message"]


def test_link_that_was_replaced_is_followed_no_more(place: LayerPlace) -> None:
    first = [folder("one"), folder("two"), link("l", "one"), member("l/a")]
    place.unpack(tar(*first, link("l", "two"), member("l/b"), folder("l"), member("l/c")))
    assert [sorted(os.listdir(place.target / name)) for name in ("one", "two", "l")] == [["a"], ["b"], ["c"]]


def test_implied_folder_behind_a_link_has_the_attributes_of_the_layers_below(
    place: LayerPlace, tmp_path: Path
) -> None:
    (tmp_path / "low/usr/lib").mkdir(parents=True)
    os.chmod(tmp_path / "low/usr/lib", 0o2711)
    place.unpack(tar(link("lib", "usr/lib"), member("lib/x")), lower=[str(tmp_path / "low")])
    assert stat.S_IMODE(os.lstat(place.target / "usr/lib").st_mode) == 0o2711


def test_hard_link_to_what_the_layer_hides_is_refused(place: LayerPlace) -> None:
    """It would hide another file."""
    error = place.unpack(tar(member(".wh.gone"), link("kept", "gone", hard=True)))["error"]
    assert error["code"] == "damaged" and not (place.target / "kept").exists()


def test_mode_and_time_of_a_link_are_its_own(place: LayerPlace) -> None:
    place.unpack(tar(member("l", type=tarfile.SYMTYPE, linkname="../victim/file", mode=0o777, mtime=5)))
    assert os.lstat(place.target / "l").st_mtime == 5


def test_names_are_cleaned_by_their_letters(place: LayerPlace) -> None:
    result = place.unpack(tar(member("./a/./b/../c", b"1"), member("/abs", b"2"), member("d//e/", b"3")))
    assert "error" not in result
    assert sorted(p.relative_to(place.target).as_posix() for p in place.target.rglob("*") if p.is_file()) == [
        "a/c",
        "abs",
        "d/e",
    ]


def test_later_members_replace_earlier_ones_of_any_kind(place: LayerPlace) -> None:
    kinds = [
        lambda: [member("x", b"file")],
        lambda: [folder("x"), member("x/inside", b"y")],
        lambda: [link("x", "elsewhere")],
        lambda: [member("x", type=tarfile.FIFOTYPE)],
    ]
    for first in kinds:
        for second in kinds:
            place.unpack(tar(*first(), *second()))
            made = os.lstat(place.target / "x").st_mode
            wanted = second()[0][0].type
            assert stat.S_IFMT(made) == {
                tarfile.REGTYPE: stat.S_IFREG, tarfile.DIRTYPE: stat.S_IFDIR,
                tarfile.SYMTYPE: stat.S_IFLNK, tarfile.FIFOTYPE: stat.S_IFIFO,
            }[wanted]  # fmt: skip


def test_attributes_are_those_of_the_member(place: LayerPlace) -> None:
    capability = "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    entry = member("tool", b"#!", mode=0o4755, uid=12, gid=34, mtime=1_234_567_890.5)
    entry[0].pax_headers = {
        "SCHILY.xattr.user.note": "hello",
        "SCHILY.xattr.security.capability": capability,
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.trusted.evil": "y",
    }
    late = folder("dir", mode=0, mtime=77)
    place.unpack(tar(entry, member("dir/child", b"c"), late))
    path = place.target / "tool"
    status = os.lstat(path)
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o4755, 12, 34)
    assert status.st_mtime_ns == 1_234_567_890_500_000_000
    assert sorted(os.listxattr(path)) == ["security.capability", "user.note"]
    assert os.getxattr(path, "security.capability") == capability.encode("latin-1")
    status = os.lstat(place.target / "dir")
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0, 77)


def test_times_before_1970_and_far_away_are_kept_or_bounded(place: LayerPlace) -> None:
    place.unpack(tar(member("old", mtime=-1000), member("far", mtime=1 << 40)))
    assert os.lstat(place.target / "old").st_mtime == -1000
    assert os.lstat(place.target / "far").st_mtime > 1 << 32


def test_whiteouts_become_what_overlayfs_understands(place: LayerPlace) -> None:
    place.unpack(
        tar(member("d/.wh.gone"), member("e/.wh..wh..opq"), member("f/.wh..wh.plnk"), member("e/new"))
    )
    status = os.lstat(place.target / "d/gone")
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
    assert os.getxattr(place.target / "e", "trusted.overlay.opaque") == b"y"
    assert os.listdir(place.target / "e") == ["new"]
    assert os.listdir(place.target / "f") == []


def test_whiteout_of_the_longest_name_hides_it(place: LayerPlace) -> None:
    name = "n" * 255
    assert "error" not in place.unpack(tar(member(f".wh.{name}")))
    assert os.lstat(place.target / name).st_rdev == 0
    for longer in (f".wh.{name}n", f".wh.{name}/x"):
        assert "name" in place.unpack(tar(member(longer)))["error"]["message"]


@pytest.mark.parametrize("order", [1, -1])
def test_whiteout_and_folder_of_one_name_make_it_opaque(place: LayerPlace, order: int) -> None:
    parts = [[member(".wh.d")], [folder("d"), member("d/new")]][::order]
    place.unpack(tar(*parts[0], *parts[1]))
    assert os.listdir(place.target / "d") == ["new"]
    assert os.getxattr(place.target / "d", "trusted.overlay.opaque") == b"y"


@pytest.mark.parametrize("order", [1, -1])
def test_whiteout_and_file_of_one_name_leave_the_file(place: LayerPlace, order: int) -> None:
    parts = [member(".wh.f"), member("f", b"new")][::order]
    place.unpack(tar(*parts))
    assert (place.target / "f").read_bytes() == b"new"


@pytest.mark.parametrize("name", [".wh.x", "d/.wh.x", "d/.wh..wh..opq", ".wh.d/x"])
def test_whiteout_names_in_a_root_file_system_are_refused(place: LayerPlace, name: str) -> None:
    error = place.unpack(tar(member("x"), member(name, b"plain")), whiteouts=False)["error"]
    assert "no layer can hold" in error["message"]


def test_implied_folder_has_the_attributes_of_the_layers_below(place: LayerPlace, tmp_path: Path) -> None:
    low, mid = tmp_path / "low", tmp_path / "mid"
    (low / "tmp").mkdir(parents=True)
    (mid / "other").mkdir(parents=True)
    (low / "hidden").mkdir()
    os.mknod(mid / "hidden", stat.S_IFCHR, os.makedev(0, 0))
    os.chmod(low / "tmp", 0o1777)
    os.chmod(low / "hidden", 0o700)
    os.chown(low / "tmp", 3, 4)
    os.utime(low / "tmp", ns=(0, 99))
    (mid / "link").symlink_to("../../victim")
    layers = [str(mid), str(low)]
    place.unpack(tar(member("tmp/x"), member("hidden/x"), member("link/x"), member("fresh/x")), lower=layers)
    status = os.lstat(place.target / "tmp")
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns) == (
        0o1777,
        3,
        4,
        99,
    )
    for name in ("hidden", "link", "fresh"):
        assert stat.S_IMODE(os.lstat(place.target / name).st_mode) == 0o755


def test_hard_links_share_one_file(place: LayerPlace) -> None:
    place.unpack(tar(member("a", b"x"), link("b", "a", hard=True), link("s", "a"), link("t", "s", hard=True)))
    assert os.stat(place.target / "a").st_ino == os.stat(place.target / "b").st_ino
    assert (place.target / "t").is_symlink()


def test_case_and_unicode_twins_stay_apart(place: LayerPlace) -> None:
    names = ["a", "A", "\u00e9", "e\u0301"]
    place.unpack(tar(*(member(name, name.encode()) for name in names)))
    assert sorted(os.listdir(place.target)) == sorted(names)


def test_sparse_file_takes_no_space_for_its_holes(place: LayerPlace, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with open(source / "disk", "wb") as file:
        file.seek(50 << 20)
        file.write(b"middle")
        file.truncate(100 << 20)
    for form in ("gnu", "posix"):
        packed = subprocess.run(
            ["tar", "-C", source, "--sparse", f"--format={form}", "-c", "disk"],
            capture_output=True,
            check=True,
        ).stdout
        assert "error" not in place.unpack(packed)
        status = os.lstat(place.target / "disk")
        assert status.st_size == 100 << 20 and status.st_blocks * 512 < 1 << 20
        with open(place.target / "disk", "rb") as file:
            file.seek(50 << 20)
            assert file.read(6) == b"middle"


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        zstandard.compress,
        lzma.compress,
        bz2.compress,
        lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]) + bytes(64),
        lambda data: zstandard.compress(data[:700]) + zstandard.compress(data[700:]),
    ],
    ids=["gzip", "zstd", "xz", "bzip2", "two gzip members", "two zstd frames"],
)
def test_every_compression_gives_the_diff_id_of_the_plain_tar(place: LayerPlace, pack: Any) -> None:
    data = tar(member("x", b"content" * 1000))
    result = place.unpack(pack(data))
    assert result["diff_id"] == digest(data)


def test_content_that_is_not_its_diff_id_is_refused(place: LayerPlace) -> None:
    error = place.unpack(tar(member("x")), diff_id="sha256:" + "0" * 64)["error"]
    assert "digest" in error["message"]


def test_bombs_end_at_the_limit(place: LayerPlace) -> None:
    zeros = tar(member("zeros", bytes(64 << 20)))
    error = place.unpack(gzip.compress(zeros, 9), max_bytes=16 << 20)["error"]
    assert error["code"] == "exhausted"
    after_the_end = gzip.compress(tar(member("x")) + bytes(64 << 20), 9)
    assert place.unpack(after_the_end, max_bytes=16 << 20)["error"]["code"] == "exhausted"
    holes = subprocess.run(
        ["sh", "-c", "truncate -s 1T big && tar --sparse -c big && rm big"],
        cwd=place.base.parent, capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert place.unpack(holes, max_bytes=16 << 20)["error"]["code"] == "exhausted"


@pytest.mark.parametrize("pack", [bytes, lambda data: gzip.compress(data, 1)], ids=["made", "copied"])
def test_what_is_kept_of_a_layer_counts_too(place: LayerPlace, pack: Callable[[bytes], bytes]) -> None:
    data, keep = pack(tar(member("noise", os.urandom(10 << 20)))), place.base.parent / "kept"
    assert place.unpack(data, max_bytes=16 << 20, keep=str(keep))["error"]["code"] == "exhausted"
    assert os.stat(keep).st_size <= 11 << 20
    for entry in (keep, *place.target.iterdir()):
        entry.unlink()
    assert "error" not in place.unpack(data, max_bytes=32 << 20, keep=str(keep))
    keep.unlink()
    for entry in place.target.iterdir():
        entry.unlink()
    assert place.unpack(data, max_bytes=1 << 20, keep=str(keep))["error"]["code"] == "exhausted"
    assert os.stat(keep).st_size <= 1 << 20


def test_too_many_files_end_at_the_limit(place: LayerPlace) -> None:
    data = gzip.compress(tar(*(member(f"f{n}") for n in range(3000))))
    error = place.unpack(data, max_files=1000)["error"]
    assert error["code"] == "exhausted" and "1000 files" in error["message"]


def test_zstd_window_beyond_the_limit_is_refused(place: LayerPlace) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = packer.compress(tar(member("x", os.urandom(1000)))) + packer.flush()
    assert place.unpack(data)["error"]["code"] == "damaged"


def test_one_name_very_often_takes_bounded_time(place: LayerPlace) -> None:
    group = tar(folder("x"), member("x/y"), member("x"))[: 3 * 512]
    result = place.unpack(group * 3_000 + bytes(1024))
    assert result["files"] == 9_000
