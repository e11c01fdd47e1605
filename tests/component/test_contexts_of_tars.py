"""Contexts that come as a tar: the same tree on a host and from a client, and what no tar is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from image.context.here import kept
from image.context.objects import Lease, Objects
from image.context.receive import received
from image.context.sinks import TarSource, tar_into
from image.context.tarcontext import HEAD, begun, kind_of_stream
from model.errors import Damaged, Exhausted, FlotaError, InvalidInput, NotFound
from tests.support.breakouts import CONTAINERD, CPYTHON, DOCKER, archive
from tests.support.contexts import Dripping, brought, content, grow, listed, store, wire
from tests.support.images import folder, link, member, tar

PLAIN = tar(
    member("Dockerfile", b"FROM scratch\nCOPY . /\n"),
    folder("src", mode=0o750),
    member("src/a", b"a" * 700, mode=0o4755, mtime=1_500_000_000.5),
    link("src/l", "a"),
    link("hard", "src/a", hard=True),
    member("x/y/z", b"implied"),
)
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}


def reader(data: bytes) -> io.BufferedReader:
    return begun(io.BytesIO(data))[1]


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return store(tmp_path / "objects")


@pytest.fixture
def lease(objects: Objects) -> Iterator[Lease]:
    with objects.leased() as one:
        yield one


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[io.BufferedRandom]:
    with open(tmp_path / "spool", "w+b") as file:
        yield file


@pytest.mark.parametrize("packed", PACKED.values(), ids=PACKED)
async def test_tar_of_a_client_and_on_the_host_is_one_tree(
    packed: Callable[[bytes], bytes], objects: Objects, lease: Lease, spool: io.BufferedRandom
) -> None:
    root, warnings = tar_into(objects, lease, reader(packed(PLAIN)))
    assert not warnings
    found = listed(objects, root)
    assert content(objects, root) == {
        "Dockerfile": b"FROM scratch\nCOPY . /\n",
        "hard": b"a" * 700,
        "src": None,
        "src/a": b"a" * 700,
        "src/l": "a",
        "x": None,
        "x/y": None,
        "x/y/z": b"implied",
    }
    assert found["src"].mode == 0o750 and found["x"].mode == 0o755
    assert (found["src/a"].mode, found["src/a"].mtime_ns) == (0o4755, 1_500_000_000_500_000_000)
    source = TarSource(reader(packed(PLAIN)), spool)
    assert await brought(source, objects, lease) == root
    assert source.file("Dockerfile", 100) == b"FROM scratch\nCOPY . /\n"


async def test_tar_sends_only_what_sources_name(
    objects: Objects, lease: Lease, spool: io.BufferedRandom
) -> None:
    source = TarSource(reader(PLAIN), spool)
    root = await brought(source, objects, lease, "src/l")
    assert sorted(listed(objects, root)) == ["src", "src/a", "src/l"]
    one = wire(source)
    await received(one, objects, lease, paths=("hard",))
    assert len(one.objects) == 1, "content that is there already does not travel again"


async def test_hard_links_of_a_tar_are_those_of_a_folder(
    objects: Objects, lease: Lease, tmp_path: Path
) -> None:
    data = tar(
        member("z", b"1"),
        folder("d", mode=0o755),
        link("d/z", "z", hard=True),
        member("b", b"1"),
        link("d/b", "b", hard=True),
        link("d/c", "d/b", hard=True),
        member("again", b"1"),
        link("over", "again", hard=True),
        member("again", b"2"),
        link("soft", "z"),
        link("softer", "soft", hard=True),
    )
    found = listed(objects, tar_into(objects, lease, reader(data))[0])
    numbers = {name: entry.group for name, entry in found.items() if entry.group}
    assert numbers == {"b": 1, "d/b": 1, "d/c": 1, "d/z": 2, "z": 2}
    top = grow(tmp_path / "top", {"z": b"1", "d": None, "b": b"1", "again": b"2", "over": b"1", "soft": "z"})
    for old, new in (("z", "d/z"), ("b", "d/b"), ("b", "d/c"), ("soft", "softer")):
        os.link(top / old, top / new, follow_symlinks=False)
    here = listed(objects, await kept(objects, lease, os.fspath(top)))
    assert {name: entry.group for name, entry in here.items()} == {n: e.group for n, e in found.items()}


ATTACKS = {**DOCKER, **CPYTHON, **{name: entries for name, (entries, _) in CONTAINERD.items()}}


@pytest.mark.parametrize("entries", ATTACKS.values(), ids=ATTACKS)
def test_tar_that_breaks_out_of_folders_is_refused_or_a_tree_of_its_own_names(
    objects: Objects, lease: Lease, tmp_path: Path, entries: tuple[str, ...]
) -> None:
    grow(tmp_path / "victim", {"file": b"untouched", "hello": b"secret"})
    before = [(path, os.lstat(path)) for path in (tmp_path / "victim").iterdir()]
    own = {entry.encode() for entry in entries}
    try:
        root, _ = tar_into(objects, lease, reader(archive(*entries)))
    except FlotaError as error:
        assert error.code in ("damaged", "invalid_input", "unsupported") and "\n" not in str(error)
    else:
        for name, found in content(objects, root).items():
            assert ".." not in name.split("/") and not name.startswith("/")
            assert not isinstance(found, bytes) or found in own
    assert [(path, os.lstat(path)) for path in (tmp_path / "victim").iterdir()] == before


def test_tar_names_are_cleaned_and_the_last_of_two_stands(objects: Objects, lease: Lease) -> None:
    data = tar(
        folder("./"),
        member("/abs", b"1"),
        member("a//b/../c", b"2"),
        member("twice", b"first"),
        member("twice", b"second"),
        member("was/file", b"x"),
        folder("was"),
        member("file", b""),
        member("file/below", b"over"),
        link("to", "real"),
        member("to/inner", b"through"),
        link("top", "/../.."),
        member("top/at-top", b"t"),
    )
    root, _ = tar_into(objects, lease, reader(data))
    assert content(objects, root) == {
        "a": None,
        "a/c": b"2",
        "abs": b"1",
        "at-top": b"t",
        "file": None,
        "file/below": b"over",
        "real": None,
        "real/inner": b"through",
        "to": "real",
        "top": "/../..",
        "twice": b"second",
        "was": None,
        "was/file": b"x",
    }


def test_tar_with_devices_leaves_them_out_and_keeps_fifos(objects: Objects, lease: Lease) -> None:
    data = tar(
        member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("pipe", type=tarfile.FIFOTYPE),
        member("cap", b"", pax_headers={"SCHILY.xattr.security.capability": "c", "SCHILY.xattr.user.x": "u"}),
    )
    root, warnings = tar_into(objects, lease, reader(data))
    found = listed(objects, root)
    assert warnings == ["'null' is a device and is left out of the build context"]
    assert found["pipe"].kind == "fifo" and found["cap"].xattrs == {"security.capability": b"c"}
    assert sorted(found) == ["cap", "pipe"]


def sparse(size: int) -> bytes:
    """A file of that size with one byte at its end, as GNU tar writes it (pax 1.0)."""
    table = b"1\n%d\n1\n" % (size - 1)
    stored = table.ljust(512, b"\0") + b"!"
    records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(size)}
    records["GNU.sparse.name"] = "holes"
    return tar(member("GNUSparseFile.0/holes", stored, pax_headers=records))


async def test_sparse_file_of_a_tar_has_its_holes(
    objects: Objects, lease: Lease, spool: io.BufferedRandom
) -> None:
    root, _ = tar_into(objects, lease, reader(sparse(3_000_000)))
    assert content(objects, root) == {"holes": bytes(2_999_999) + b"!"}
    assert await brought(TarSource(reader(sparse(3_000_000)), spool), objects, lease) == root


HOSTILE = {
    "parent": tar(member("../x", b"1")),
    "parent-later": tar(member("a/../../x", b"1")),
    "hard-out": tar(link("x", "../../etc/passwd", hard=True)),
    "hard-missing": tar(link("x", "y", hard=True)),
    "hard-folder": tar(folder("d"), link("x", "d", hard=True)),
    "loop": tar(link("a", "b"), link("b", "a"), member("a/x", b"")),
    "top-file": tar(member(".", b"1")),
    "long": tar(member("n" * 300, b"1")),
    "deep": tar(member("d/" * 600 + "x", b"1")),
    "cut": PLAIN[: PLAIN.index(b"a" * 600) + 100],
    "checksum": PLAIN[:1024] + b"X" + PLAIN[1025:],
    "bad-gzip": gzip.compress(PLAIN)[:-20],
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_tar_is_refused_in_one_line(data: bytes, objects: Objects, tmp_path: Path) -> None:
    with objects.leased() as lease:
        with pytest.raises(Damaged) as failure:
            tar_into(objects, lease, reader(data))
        assert "\n" not in str(failure.value)
    assert not list((tmp_path / "objects/new").glob("*/*"))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (gzip.compress(b""), "is empty"),
        (b"FROM scratch\n", "is no tar"),
        (os.urandom(2000), "is no tar"),
        (gzip.compress(gzip.compress(PLAIN)), "compressed twice"),
        (gzip.compress(b"FROM scratch\n" * 100), "is no tar"),
    ],
)
def test_stream_that_is_no_tar_says_what_it_is_b36(
    data: bytes, says: str, objects: Objects, lease: Lease
) -> None:
    with pytest.raises(InvalidInput, match=says):
        tar_into(objects, lease, reader(data))


def test_garbage_after_a_tar_is_let_be_b36(objects: Objects, lease: Lease) -> None:
    root, _ = tar_into(objects, lease, reader(PLAIN + b"garbage" * 1000))
    assert "Dockerfile" in listed(objects, root)


def test_tar_larger_than_may_come_leaves_nothing_b36(objects: Objects, tmp_path: Path) -> None:
    with pytest.raises(Exhausted, match="need more than the"), objects.leased(1000) as lease:
        tar_into(objects, lease, reader(gzip.compress(tar(member("big", bytes(5_000_000))))))
    assert not list((tmp_path / "objects/new").glob("*/*")) and objects.size == 0


def test_huge_hole_is_refused_by_its_size_b35(
    objects: Objects, lease: Lease, spool: io.BufferedRandom
) -> None:
    with pytest.raises(Exhausted):
        tar_into(objects, lease, reader(sparse(1 << 40)))
    with pytest.raises(Exhausted):
        TarSource(reader(sparse(1 << 40)), spool, limit=1 << 20).scan(())


@pytest.mark.parametrize("number", [0, 1])
def test_broken_tar_of_a_client_says_so_each_time(number: int, spool: io.BufferedRandom) -> None:
    source = TarSource(reader([HOSTILE["cut"], b"no tar"][number]), spool)
    said = []
    for _ in range(2):
        with pytest.raises(FlotaError) as failure:
            source.scan(())
        said.append(str(failure.value))
    assert said[0] == said[1]


def test_dockerfile_of_a_tar_is_a_file_in_it_b37(spool: io.BufferedRandom) -> None:
    data = tar(
        member("big", b"x" * 200),
        folder("dir"),
        link("out", "../../etc/passwd"),
        link("in", "dir/../real"),
        member("real", b"FROM x"),
        link("loop", "loop"),
        member("pipe", type=tarfile.FIFOTYPE),
    )
    source = TarSource(reader(data), spool)
    assert source.file("in", 100) == source.file("./dir/../../real", 100) == b"FROM x"
    for path, kind, says in (
        ("big", InvalidInput, "has 200 bytes; at most 100 are read"),
        ("dir", InvalidInput, "dir of the build context is a folder"),
        ("out", NotFound, "out is not in the build context"),
        ("none/Dockerfile", NotFound, "is not in the build context"),
        ("real/Dockerfile", NotFound, "real is no folder"),
        ("loop", InvalidInput, "more than 40 links"),
        ("pipe", InvalidInput, "a named pipe"),
        (".", InvalidInput, "a folder"),
    ):
        with pytest.raises(kind, match=says):
            source.file(path, 100)


@pytest.mark.parametrize("packed", PACKED.values(), ids=PACKED)
def test_stream_that_drips_is_told_and_read_whole(
    packed: Callable[[bytes], bytes], objects: Objects, lease: Lease
) -> None:
    head, source = begun(io.BufferedReader(Dripping(packed(PLAIN))))
    assert kind_of_stream(head) == "tar"
    root, _ = tar_into(objects, lease, source)
    assert root == tar_into(objects, lease, reader(PLAIN))[0]


def test_stream_on_standard_input_is_told_by_its_head() -> None:
    for pack in PACKED.values():
        assert kind_of_stream(pack(PLAIN)[:HEAD]) == "tar"
    assert kind_of_stream(b"# syntax\nFROM scratch\n" + b"RUN x\n" * 100) == "text"
    assert kind_of_stream(bytes(1024)) == "tar" and kind_of_stream(b"") == "empty"
