"""Archives that ADD unpacks, honest ones and those that want out."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from image.build.archives import Limits, is_archive, unpack
from image.build.base import FileSource
from image.build.step import CopyStep
from model.errors import Damaged, Exhausted, FlotaError, Unsupported
from tests.support.breakouts import CONTAINERD, CPYTHON, DOCKER, archive
from tests.support.copies import CopyPlace, Link, fill
from tests.support.images import folder, link, member, tar

pytestmark = pytest.mark.kernel

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
TWIN = link("d/h", "d/f", hard=True)
TWIN[0].mode, TWIN[0].uid, TWIN[0].gid, TWIN[0].mtime = 0o640, 7, 8, 2_000_000
HONEST = tar(
    folder("d", mode=0o750, uid=5, gid=6, mtime=1_000_000),
    member("d/f", b"content", mode=0o640, uid=7, gid=8, mtime=2_000_000),
    link("d/l", "/etc/passwd"),
    TWIN,
    member("implied/x", b"x"),
)


@pytest.mark.parametrize("packed", PACKED.values(), ids=PACKED)
async def test_local_archive_is_unpacked_whatever_it_is_called(
    copies: CopyPlace, packed: Callable[[bytes], bytes]
) -> None:
    copies.has(copies.context, {"app.bin": packed(HONEST)})
    await copies.add("app.bin", target="/t")
    assert copies.seen(copies.root / "t") == {
        "d": "d 0750 5:6",
        "d/f": "f 0640 7:8 content",
        "d/h": "f 0640 7:8 content",
        "d/l": "l 0:0 /etc/passwd",
        "implied": "d 0755 0:0",
        "implied/x": "f 0644 0:0 x",
    }
    top = copies.root / "t"
    assert os.stat(top / "d/f").st_ino == os.stat(top / "d/h").st_ino
    assert os.stat(top / "d").st_mtime == 1_000_000 and os.stat(top / "d/f").st_mtime == 2_000_000
    assert copies.seen()["t"] == "d 0755 0:0"


async def test_archive_of_a_stage_is_unpacked_too(copies: CopyPlace) -> None:
    copies.has(copies.stage, {"a/b.tar": HONEST})
    await copies.add("/a/*.tar", target="/t/", place=copies.of_stage())
    assert copies.seen()["t/d/f"] == "f 0640 7:8 content"


async def test_owner_of_the_step_is_that_of_all_that_is_unpacked(copies: CopyPlace) -> None:
    copies.has(copies.context, {"a.tar": HONEST})
    await copies.add("a.tar", target="/t", owner="3:4", mode="700")
    seen = copies.seen()
    assert seen["t"] == "d 0755 3:4" and seen["t/d/f"] == "f 0640 3:4 content"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.tar.gz", b""),
        ("text.tar.gz", b"just text\n" * 100),
        ("gzip-of-text", gzip.compress(b"just text\n" * 100)),
        ("zeros", bytes(10240)),
        ("empty-tar", tar()),
        ("short", HONEST[:300]),
        ("cut.gz", gzip.compress(HONEST)[:20]),
        ("gzip-twice", gzip.compress(gzip.compress(HONEST))),
        ("broken-checksum", b"x" + HONEST[1:]),
    ],
)
async def test_file_that_is_no_archive_is_copied_as_it_is(
    copies: CopyPlace, name: str, content: bytes
) -> None:
    """B36."""
    copies.has(copies.context, {name: content})
    await copies.add(name, target="/t/")
    assert (copies.root / "t" / name).read_bytes() == content


async def test_archive_stays_one_where_nobody_asks_to_unpack_it(copies: CopyPlace) -> None:
    copies.has(copies.context, {"a.tar": HONEST})
    await copies.copy("a.tar", target="/copied")
    await copies.add("a.tar", target="/added", unpack=False)
    source = FileSource(path=str(copies.context / "a.tar"), name="a.tar")
    for unpack_it, target in ((None, "/fetched"), (True, "/unpacked")):
        step = CopyStep(sources=("https://e.org/a.tar",), target=target, add=True, unpack=unpack_it)
        await copies.copying.choose(step, (source,))
        await copies.copying.copy(str(copies.root), step, (source,))
    for name in ("copied", "added", "fetched"):
        assert (copies.root / name).read_bytes() == HONEST
    assert copies.seen()["unpacked/d/f"] == "f 0640 7:8 content"


async def test_archive_is_merged_with_what_stands_there(copies: CopyPlace) -> None:
    """As tar: directories are merged, of two things with one name the archive's stays."""
    copies.has(
        copies.root,
        {"t/d/old": "old", "t/d/f/x": "", "t/d/h": Link("/victim"), "l": Link("t")},
    )
    os.chmod(copies.root / "t", 0o711)
    os.utime(copies.root / "t", (5, 5))
    copies.has(copies.context, {"a.tar": HONEST})
    await copies.add("a.tar", target="/l")
    seen = copies.seen()
    assert seen["t"] == "d 0711 0:0" and seen["t/d"] == "d 0750 5:6"
    assert seen["t/d/old"] == "f 0644 0:0 old" and seen["t/d/f"] == seen["t/d/h"] == "f 0640 7:8 content"
    assert seen["t/implied/x"] == "f 0644 0:0 x" and seen["l"] == "l 0:0 t"


@pytest.mark.parametrize(
    "members",
    [
        (link("l", "gone"), member("l/x", b"x")),
        (link("l", "/etc"), member("l/x", b"x")),
        (link("l", "../../etc"), member("l/deep/x", b"x")),
        (link("k", "d/gone"), folder("d"), link("l", "k"), member("l/x", b"x")),
        (member("file", b""), member("file/x", b"x")),
        (member("standing/x", b"x"),),
    ],
)
async def test_name_behind_a_link_to_nothing_or_a_file_is_refused(
    copies: CopyPlace, members: tuple[tuple[tarfile.TarInfo, bytes], ...]
) -> None:
    copies.has(copies.root, {"t/standing": "file", "etc": None})
    copies.has(copies.context, {"a.tar": tar(*members)})
    with pytest.raises(Damaged, match="Not a directory"):
        await copies.add("a.tar", target="/t")


async def test_name_that_climbs_ends_at_the_target(copies: CopyPlace) -> None:
    """As all builders have it: their root is the target."""
    copies.has(
        copies.context,
        {"a.tar": tar(member("../up", b"1"), member("d/../../../x", b"2"), link("h", "../../up", hard=True))},
    )
    await copies.add("a.tar", target="/t/u")
    assert set(copies.seen()) == {"t", "t/u", "t/u/up", "t/u/x", "t/u/h"}


async def test_hard_link_s_header_holds_for_its_file(copies: CopyPlace) -> None:
    second = link("h", "f", hard=True)
    second[0].mode, second[0].uid, second[0].mtime = 0o600, 9, 77
    copies.has(copies.context, {"a.tar": tar(member("f", b"f", uid=5, mode=0o644), second)})
    await copies.add("a.tar", target="/t")
    assert copies.seen()["t/f"] == copies.seen()["t/h"] == "f 0600 9:0 f"
    assert os.stat(copies.root / "t/f").st_mtime == 77


async def test_top_of_an_archive_changes_nothing_of_where_it_goes(copies: CopyPlace) -> None:
    copies.has(copies.context, {"a.tar": tar(folder("./", mode=0o700, uid=9, gid=9), member("./x", b"x"))})
    await copies.add("a.tar", target="/t")
    assert copies.seen() == {"t": "d 0755 0:0", "t/x": "f 0644 0:0 x"}


async def test_directory_that_holds_archives_is_copied_as_it_is(copies: CopyPlace) -> None:
    copies.has(copies.context, {"d/a.tar": HONEST})
    await copies.add("d", target="/t")
    assert (copies.root / "t/a.tar").read_bytes() == HONEST


async def test_link_to_an_archive_is_one(copies: CopyPlace) -> None:
    copies.has(copies.context, {"real.tar": HONEST, "link": Link("real.tar")})
    await copies.add("link", target="/t")
    assert copies.seen()["t/d/f"] == "f 0640 7:8 content"


# -- enemies --------------------------------------------------------------------------------------------
ATTACKS = {
    **{f"docker: {name}": entries for name, entries in DOCKER.items()},
    **{f"containerd: {name}": entries for name, (entries, _) in CONTAINERD.items()},
    **{f"cpython: {name}": entries for name, entries in CPYTHON.items()},
}


async def test_archives_that_want_out_are_refused_or_stay_inside(copies: CopyPlace) -> None:
    """Each of those that others found, into a directory behind a link, from a directory beside the victim.
    What is outside the root the fixture looks at; here: what is outside the target."""
    copies.has(copies.root, {"far/etc/passwd": "of the stage", "victim/hello": "of the stage"})
    stage = {path: content for path, content in copies.seen().items() if path != "far"}
    for number, entries in enumerate(ATTACKS.values()):
        copies.has(copies.context, {"a.tar": archive(*entries)})
        try:
            await copies.add("a.tar", target=f"/far/{number}/")
        except (Damaged, Unsupported) as error:
            assert str(error).startswith("a.tar: ") and "\n" not in str(error)
        seen = {path: content for path, content in copies.seen().items() if path in stage}
        assert seen == stage


async def test_links_that_stand_in_the_target_lead_nowhere_out_of_it(copies: CopyPlace) -> None:
    copies.has(
        copies.root,
        {
            "t/abs": Link(str(copies.victim)),
            "t/up": Link("../../victim"),
            "t/var/run": Link("/run"),
            "t/run": None,
            "run": None,
        },
    )
    copies.has(copies.context, {"a.tar": tar(member("var/run/x", b"3"))})
    await copies.add("a.tar", target="/t")
    assert "run/x" not in copies.seen() and copies.seen()["t/run/x"].endswith(" 3")
    for name in ("abs/file", "up/file"):
        copies.has(copies.context, {"a.tar": tar(member(name, b"1"))})
        with pytest.raises(Damaged):
            await copies.add("a.tar", target="/t")


async def test_several_archives_need_no_slash_at_the_end(copies: CopyPlace) -> None:
    copies.has(copies.context, {"a.tar": tar(member("a", b"a")), "b.tar": tar(member("b", b"b"))})
    await copies.add("*.tar", target="/t")
    assert sorted(os.listdir(copies.root / "t")) == ["a", "b"]


async def test_archive_through_an_absolute_link_of_another_lands_where_it_leads(copies: CopyPlace) -> None:
    copies.has(
        copies.context,
        {
            "1.tar": tar(folder("run/"), folder("var/"), link("var/run", "/run")),
            "2.tar": tar(folder("var/run/act/"), member("var/run/act/HEAD", b"ref")),
        },
    )
    await copies.add("1.tar", target="/")
    await copies.add("2.tar", target="/")
    assert copies.seen()["run/act/HEAD"].endswith(" ref") and copies.seen()["var/run"].endswith(" /run")


async def test_archive_that_would_hide_files_is_refused(copies: CopyPlace) -> None:
    for entries in ((member(".wh.etc"),), (member("d/.wh..wh..opq"),)):
        copies.has(copies.context, {"a.tar": tar(*entries)})
        with pytest.raises(Unsupported, match="no layer can hold"):
            await copies.add("a.tar", target="/t")


@pytest.fixture
def target(tmp_path: Path) -> int:
    (tmp_path / "target").mkdir()
    return os.open(tmp_path / "target", os.O_RDONLY | os.O_DIRECTORY)


def opened(tmp_path: Path, data: bytes) -> int:
    (tmp_path / "archive").write_bytes(data)
    return os.open(tmp_path / "archive", os.O_RDONLY)


def test_archive_larger_than_there_is_room_for_is_refused(tmp_path: Path, target: int) -> None:
    bomb = tar(*(member(f"f{n}", bytes(1 << 20)) for n in range(20)))
    fd = opened(tmp_path, gzip.compress(bomb))
    with pytest.raises(Exhausted, match="the archive's files need more"):
        unpack(fd, target, "a.tgz", None, Limits(max_bytes=10 << 20))
    many = tar(*(member(f"g{n}") for n in range(200)))
    fd = opened(tmp_path, gzip.compress(many))
    with pytest.raises(Exhausted, match="more than the 100 files"):
        unpack(fd, target, "a.tgz", None, Limits(max_files=100))


def test_archive_that_is_damaged_is_refused_in_one_line(tmp_path: Path, target: int) -> None:
    for data in (HONEST[:1028], gzip.compress(HONEST)[:150], HONEST[:1536] + b"\xff" * 512):
        fd = opened(tmp_path, data)
        assert is_archive(fd)
        with pytest.raises(FlotaError) as caught:
            unpack(fd, target, "a.tar", None, Limits())
        assert str(caught.value).startswith("a.tar: ") and "\n" not in str(caught.value)


def test_huge_sparse_member_of_an_archive_stays_sparse(tmp_path: Path, target: int) -> None:
    """B35, B50."""
    info = tarfile.TarInfo("huge")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "huge",
        "GNU.sparse.realsize": str(1 << 37),
    }
    content = b"1\n0\n4\n".ljust(512, b"\0") + b"data"
    info.size = len(content)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as made:
        made.addfile(info, io.BytesIO(content))
    assert unpack(opened(tmp_path, buffer.getvalue()), target, "a.tar", None, Limits()) == 1
    status = os.stat(tmp_path / "target/huge")
    assert status.st_size == 1 << 37 and status.st_blocks < 100


async def test_target_of_an_archive_that_is_a_file_is_refused(copies: CopyPlace) -> None:
    fill(copies.root / "t", "file")
    copies.has(copies.context, {"a.tar": HONEST})
    with pytest.raises(FlotaError, match="no directory"):
        await copies.add("a.tar", target="/t")
