"""Folders that a client has come to a host, whole, and of changed ones only what changed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.context.objects import Lease, Objects
from image.context.receive import received
from image.context.scan import Scanner
from image.context.serve import FolderSource
from image.dockerfile.ignore import Ignore
from model.build import Object
from model.errors import Exhausted, Forbidden, InvalidInput, NotFound
from tests.support.contexts import bound_socket, brought, content, grow, listed, store, wire

FILES = {
    "Dockerfile": b"FROM scratch\nCOPY . /\n",
    "src": None,
    "src/a.go": b"package a",
    "src/b.go": b"package b",
    "src/deep/er/c": b"c" * 3_000_000,
    "empty": None,
    "link": "src/a.go",
    "dir": "src/deep",
}


def parents(*files: str) -> dict[str, None]:
    """Folders that `grow` makes by itself."""
    return {name.rsplit("/", count)[0]: None for name in files for count in range(1, name.count("/") + 1)}


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return store(tmp_path / "objects")


@pytest.fixture
def lease(objects: Objects) -> Iterator[Lease]:
    with objects.leased() as one:
        yield one


def source(top: Path, cache: Path | None = None) -> FolderSource:
    return FolderSource(Scanner(os.fspath(top), cache=os.fspath(cache) if cache else ""))


@contextlib.contextmanager
def unprivileged(folder: str) -> Iterator[None]:
    """Not root in the block, which could read everything; the folder is still ours."""
    before = os.geteuid()
    if before == 0:
        os.chown(folder, 65_534, 65_534)
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(before)


async def test_folder_of_a_client_is_whole_on_the_host(
    tmp_path: Path, objects: Objects, lease: Lease
) -> None:
    top = grow(tmp_path / "top", FILES)
    (top / "src/a.go").chmod(0o4711)
    os.utime(top / "src/a.go", ns=(5, 1_500_000_000_123_456_789))
    root = await brought(source(top), objects, lease)
    assert content(objects, root) == FILES | parents(*FILES)
    entry = listed(objects, root)["src/a.go"]
    assert (entry.mode, entry.mtime_ns, entry.size) == (0o4711, 1_500_000_000_123_456_789, 9)


async def test_one_changed_line_sends_less_than_a_hundredth(tmp_path: Path, objects: Objects) -> None:
    files = {f"d{n % 100}/e{n % 10}/f{n}": b"line %d\n" % n * 40 for n in range(10_000)}
    top = grow(tmp_path / "top", files)
    sender, cache = source(top, tmp_path / "cache"), tmp_path / "cache"
    first = wire(sender)
    with objects.leased() as lease:
        await received(first, objects, lease)
    assert len(set(first.objects)) > 10_000
    (top / "d7/e7/f7").write_bytes(b"another line\n" + files["d7/e7/f7"])
    second = wire(source(top, cache))
    with objects.leased() as lease:
        root = await received(second, objects, lease)
        assert content(objects, root)["d7/e7/f7"] == b"another line\n" + files["d7/e7/f7"]
    assert second.bytes * 100 <= sum(map(len, files.values())), second.bytes
    third = wire(source(top, cache))
    with objects.leased() as lease:
        assert await received(third, objects, lease) == root
    assert not third.objects and third.bytes < 200


async def test_one_changed_line_of_a_flat_folder_sends_less_than_a_hundredth(
    tmp_path: Path, objects: Objects
) -> None:
    files = {f"f{n}": b"line %d\n" % n * 40 for n in range(10_000)}
    top, cache = grow(tmp_path / "top", files), tmp_path / "cache"
    with objects.leased() as lease:
        await received(wire(source(top, cache)), objects, lease)
    (top / "f7777").write_bytes(b"another line\n")
    (top / "f8888").unlink()
    (top / "new").write_bytes(b"new")
    second = wire(source(top, cache))
    with objects.leased() as lease:
        root = await received(second, objects, lease)
        found = content(objects, root)
    assert found["f7777"] == b"another line\n" and len(found) == 10_000 and "f8888" not in found
    assert second.bytes * 100 <= sum(map(len, files.values())), second.bytes
    other = store(tmp_path / "other")
    third = wire(source(top, cache))
    with other.leased() as lease:
        assert await received(third, other, lease) == root, "a host that never had the tree gets it whole"


async def test_only_what_sources_name_is_sent_links_followed(
    tmp_path: Path, objects: Objects, lease: Lease
) -> None:
    top = grow(
        tmp_path / "top",
        FILES
        | {
            "abs": "/src/b.go",
            "loop": "loop",
            "up": "../../../src/b.go",
            "through": "dir/er/../../real",
            "src/real": b"r",
        },
    )
    sender = source(top)
    found = {
        path: sorted(name for name in listed(objects, await brought(sender, objects, lease, *path)))
        for path in (
            ("src/*.go",),
            ("link",),
            ("dir/er",),
            ("/abs", "loop"),
            ("../../up",),
            ("through",),
            ("no",),
        )
    }
    deep = ["src/deep", "src/deep/er", "src/deep/er/c"]
    assert found == {
        ("src/*.go",): ["src", "src/a.go", "src/b.go"],
        ("link",): ["link", "src", "src/a.go"],
        ("dir/er",): ["dir", "src", *deep],
        ("/abs", "loop"): ["abs", "loop", "src", "src/b.go"],
        ("../../up",): ["src", "src/b.go", "up"],
        ("through",): ["dir", "src", *deep[:2], "src/real", "through"],
        ("no",): [],
    }


async def test_ignored_files_stay_with_the_client_but_for_exceptions(
    tmp_path: Path, objects: Objects, lease: Lease
) -> None:
    more = {"src/deep/keep": b"k", "node_modules/x/y": b"y", ".git/HEAD": b"ref"}
    top = grow(tmp_path / "top", FILES | more)
    ignore = Ignore.parse(b".git\nnode_modules\nsrc/deep\n!src/deep/keep\n**/b.go\nempty\n!empty/none\n")
    sender = FolderSource(Scanner(os.fspath(top), ignore=ignore))
    root = await brought(sender, objects, lease)
    assert sorted(listed(objects, root)) == [
        "Dockerfile", "dir", "link", "src", "src/a.go", "src/deep", "src/deep/keep"
    ]  # fmt: skip
    only = await brought(sender, objects, lease, "src/deep/er", "src/b.go")
    assert listed(objects, only).keys() == {"src"}
    everything = FolderSource(Scanner(os.fspath(top), ignore=Ignore.parse(b"**\n")))
    assert not content(objects, await brought(everything, objects, lease))


async def test_fifo_socket_and_device_never_block_b32(tmp_path: Path, objects: Objects, lease: Lease) -> None:
    top = grow(tmp_path / "top", {"a": b"a"})
    os.mkfifo(top / "pipe", 0o640)
    bound_socket(top / "sock")
    os.mknod(top / "null", 0o20666, os.makedev(1, 3))
    said: list[str] = []
    root = await received(wire(source(top)), objects, lease, warned=said.extend)
    assert sorted(listed(objects, root)) == ["a", "pipe"]
    assert listed(objects, root)["pipe"].kind == "fifo"
    assert sorted(said) == [
        "null is a device and is left out of the build context",
        "sock is a socket and is left out of the build context",
    ]


@pytest.mark.parametrize("what", ["sub/secret", "sub"])
def test_unreadable_file_is_told_by_its_name_b32(what: str) -> None:
    with tempfile.TemporaryDirectory() as folder, unprivileged(folder):
        top = grow(Path(folder) / "top", {"sub/secret": b"s"})
        (top / what).chmod(0)
        try:
            with pytest.raises(Forbidden, match=rf"^{what} of .* can't be read: Permission.*ignore"):
                Scanner(os.fspath(top)).scan()
        finally:
            (top / what).chmod(0o700)


async def test_vanished_file_is_scanned_again_b33(tmp_path: Path, objects: Objects, lease: Lease) -> None:
    top = grow(tmp_path / "top", {"a": b"a", "b": b"b" * 100})

    def vanish(piece: Object) -> None:
        (top / "b").unlink(missing_ok=True)

    one = wire(source(top), vanish)
    root = await received(one, objects, lease)
    assert content(objects, root) == {"a": b"a"} and one.scans == 2


async def test_growing_file_is_sent_as_it_was_b33(tmp_path: Path, objects: Objects, lease: Lease) -> None:
    top = grow(tmp_path / "top", {"log": b"line\n"})

    def more(piece: Object) -> None:
        with (top / "log").open("ab") as file:
            file.write(b"line\n")

    one = wire(source(top), more)
    assert content(objects, await received(one, objects, lease)) == {"log": b"line\n"} and one.scans == 1


async def test_file_that_is_always_another_ends_with_its_name_b33(
    tmp_path: Path, objects: Objects, lease: Lease
) -> None:
    top = grow(tmp_path / "top", {"a": b"a", "sub/db": b"0"})
    count = 0

    def another(piece: Object) -> None:
        nonlocal count
        count += 1
        (top / "sub/db").write_bytes(b"%d" % count)

    one = wire(source(top), another)
    with pytest.raises(InvalidInput, match=r"^sub/db of the build context changed each of 5 times .*ignore"):
        await received(one, objects, lease)
    assert one.scans == 5 and not list((tmp_path / "objects/new").glob("*/*"))


async def test_shrinking_file_is_scanned_again_b33(tmp_path: Path, objects: Objects, lease: Lease) -> None:
    top = grow(tmp_path / "top", {"b": b"b" * 5_000_000})

    def shrink(piece: Object) -> None:
        os.truncate(top / "b", 10)

    assert content(objects, await received(wire(source(top), shrink), objects, lease)) == {"b": b"b" * 10}


async def test_strange_names_and_loops_arrive_b34(tmp_path: Path, objects: Objects, lease: Lease) -> None:
    names = ("-rf", "new\nline", os.fsdecode(b"\xff\xfe"), "é", "é", "x" * 255, "back\\slash")
    top = grow(tmp_path / "top", dict.fromkeys(names, b"1") | {"a": "b", "b": "a", "out": "/etc"})
    os.link("/etc/hostname", top / "hard") if os.stat("/etc").st_dev == os.stat(top).st_dev else None
    root = await brought(source(top), objects, lease)
    found = content(objects, root)
    assert set(names) <= set(found) and found["out"] == "/etc" and found["a"] == "b"


async def test_paths_longer_than_the_kernel_takes_arrive_b35(
    tmp_path: Path, objects: Objects, lease: Lease
) -> None:
    top = tmp_path / "top"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("n" * 200, dir_fd=fd)
        below = os.open("n" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.symlink("t", "link", dir_fd=fd)
    os.close(fd)
    root = await brought(source(top), objects, lease)
    assert sorted(listed(objects, root))[-1].endswith("/link") and len(listed(objects, root)) == 27


async def test_huge_sparse_file_is_refused_before_it_is_read_b35(
    tmp_path: Path, objects: Objects, lease: Lease
) -> None:
    top = grow(tmp_path / "top", {"sub/big": b""})
    os.truncate(top / "sub/big", 1 << 40)
    with pytest.raises(Exhausted, match=r"sub/big of .* alone has 1099511627776 bytes.*ignore"):
        await brought(source(top), objects, lease)


async def test_times_before_1970_and_in_9999_arrive_b35(
    tmp_path: Path, objects: Objects, lease: Lease
) -> None:
    top = grow(tmp_path / "top", {"old": b"", "new": b""})
    os.utime(top / "old", ns=(-1, -1))
    os.utime(top / "new", (253_402_300_799, 253_402_300_799))
    found = listed(objects, await brought(source(top), objects, lease))
    assert found["old"].mtime_ns < 0 < 1 << 61 < found["new"].mtime_ns


async def test_context_that_is_no_folder_says_so(tmp_path: Path, objects: Objects, lease: Lease) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name in ("file", "missing"):
        with pytest.raises(NotFound, match=rf"the build context '.*/{name}' is no folder"):
            await brought(source(tmp_path / name), objects, lease)
