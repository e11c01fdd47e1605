"""What `flota cp` makes locally of a stranger's tar: below the directory, through no link, or not at all."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from cli.parse.copies import Plan
from cli.tars import Stream, packed, unpack
from image.tarstream import Member
from image.tarwriter import END, header, padding
from model.errors import Damaged, FlotaError, InvalidInput
from tests.support.images import folder, link, member, tar


def unpacked(place: Path, *members: tuple[tarfile.TarInfo, bytes], owners: bool = False) -> list[str]:
    """What was said to be left out."""
    said: list[str] = []
    unpack(Stream([tar(*members)]), Plan(str(place)), owners=owners, skipped=said.append)
    return said


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "to").mkdir()
    return tmp_path / "to"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a/..", ".."])
def test_name_that_climbs_out_is_refused(place: Path, name: str) -> None:
    with pytest.raises(Damaged, match="leaves"):
        unpacked(place, member(name, b"x"))
    assert os.listdir(place.parent / "outside") == []


def test_absolute_name_is_made_below(place: Path) -> None:
    unpacked(place, member("/etc/x", b"x"))
    assert (place / "etc/x").read_bytes() == b"x"


def test_link_is_made_but_nothing_is_written_through_it(place: Path) -> None:
    outside = place.parent / "outside"
    with pytest.raises(InvalidInput, match="is a link"):
        unpacked(place, link("out", str(outside)), member("out/x", b"x"))
    assert os.readlink(place / "out") == str(outside) and os.listdir(outside) == []
    os.symlink(outside / "file", place / "file")
    unpacked(place, member("file", b"x"))
    assert not (place / "file").is_symlink() and os.listdir(outside) == []


def test_hard_link_to_what_is_outside_is_refused(place: Path) -> None:
    (place.parent / "victim").write_bytes(b"x")
    with pytest.raises((FlotaError, OSError)):
        unpacked(place, link("hard", "../victim", hard=True))
    os.symlink(place.parent, place / "up")
    with pytest.raises(InvalidInput):
        unpacked(place, link("hard", "up/victim", hard=True))


def test_file_becomes_setuid_only_with_its_owner(place: Path) -> None:
    unpacked(place, member("a", b"", mode=0o6755))
    unpacked(place, member("b", b"", mode=0o6755, uid=os.getuid(), gid=os.getgid()), owners=True)
    assert stat.S_IMODE(os.stat(place / "a").st_mode) == 0o755
    assert stat.S_IMODE(os.stat(place / "b").st_mode) == 0o6755


def test_device_is_left_out_and_told(place: Path) -> None:
    said = unpacked(place, member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), member("x"))
    assert said == ["null is a device, and is left out"] and os.listdir(place) == ["x"]


def test_kinds_are_not_exchanged(place: Path) -> None:
    (place / "d").mkdir()
    (place / "f").touch()
    with pytest.raises(InvalidInput, match="cannot overwrite directory d with non-directory"):
        unpacked(place, member("d", b"x"))
    with pytest.raises(InvalidInput, match="cannot overwrite non-directory f with directory"):
        unpacked(place, folder("f"))


@pytest.mark.parametrize("stray", [member(".profile", b"x"), link("d/x", ".profile", hard=True)])
def test_entry_beside_what_was_asked_for_is_refused(
    place: Path, stray: tuple[tarfile.TarInfo, bytes]
) -> None:
    (place / ".profile").write_bytes(b"mine")
    wish = Plan(str(place), "d", "data")
    with pytest.raises(Damaged, match="nobody asked for"):
        unpack(Stream([tar(folder("d"), stray)]), wish, owners=False, skipped=print)
    assert (place / ".profile").read_bytes() == b"mine" and os.listdir(place / "data") == []


def test_file_with_a_hole_without_end_is_here_at_once(place: Path) -> None:
    size, at = 1 << 43, 1 << 42
    head = Member(b"f", "file", 0o644, 0, 0, size, 0, b"", (0, 0), {}, ((0, 600), (at, 4), (size - 2, 2)))
    content = b"a" * 600 + b"hereto"
    data = header(head) + content + padding(len(content)) + END
    unpack(Stream([data]), Plan(str(place)), owners=False, skipped=print)
    with open(place / "f", "rb") as file:
        seen = [os.pread(file.fileno(), 4, where) for where in (598, at, at - 2, size - 2)]
    assert seen == [b"aa\0\0", b"here", b"\0\0he", b"to"] and os.stat(place / "f").st_size == size


def test_what_is_no_tar_is_said_to_be_none(place: Path) -> None:
    with pytest.raises(Damaged, match="no tar"):
        unpack(Stream([b"x" * 2000]), Plan(str(place)), owners=False, skipped=print)


def test_tree_goes_out_and_in_as_it_is(place: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "a").write_bytes(bytes(700) + b"x" * 300_000)
    os.link(tree / "a", tree / "hard")
    os.symlink("a", tree / "soft")
    os.utime(tree / "sub", ns=(1, 1_600_000_000_987_654_321))
    (tree / os.fsdecode(b"\xff")).write_bytes(b"")
    os.chmod(tree / "sub", 0o1750)
    data = b"".join(packed(str(tree), "tree", Plan("/", "tree", "copy"), owners=True))
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        assert archive.getnames()[0] == "copy"
    unpack(Stream([data]), Plan(str(place)), owners=True, skipped=print)

    def seen(top: Path) -> list[tuple[object, ...]]:
        found = sorted(top.rglob("*"))
        return [
            (p.relative_to(top), *(s.st_mode, s.st_nlink, s.st_mtime_ns, s.st_size))
            for p in found
            for s in [os.lstat(p)]
        ]

    assert seen(place / "copy") == seen(tree)
    assert (place / "copy/a").read_bytes() == (tree / "a").read_bytes()
