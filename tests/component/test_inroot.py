"""Paths inside a stranger's root: nothing outside is read, made or changed, whatever links the image has."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import inroot
from model.errors import InvalidInput


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"sentinel")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_bytes(b"root:x:0:0::/:\n")
    before = os.stat(outside)
    yield root
    after = os.stat(outside)
    assert (before.st_mtime_ns, before.st_mode, before.st_ino) == (
        after.st_mtime_ns,
        after.st_mode,
        after.st_ino,
    )
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"sentinel"


def test_read_file_gives_a_regular_file_up_to_its_limit(root: Path) -> None:
    assert inroot.read_file(str(root), "/etc/passwd") == b"root:x:0:0::/:\n"
    assert inroot.read_file(str(root), "etc/passwd", limit=4) == b"root"
    assert inroot.read_file(str(root), "/etc/none") == b""


@pytest.mark.parametrize(
    "link", ["../../outside/secret", "/../outside/secret", "/proc/self/root/etc/hostname"]
)
def test_read_file_link_outside_stays_inside(root: Path, link: str) -> None:
    (root / "etc/group").symlink_to(link)
    assert inroot.read_file(str(root), "/etc/group") == b""


def test_read_file_absolute_link_is_taken_from_the_root(root: Path) -> None:
    (root / "etc/group").symlink_to("/etc/passwd")
    assert inroot.read_file(str(root), "/etc/group") == b"root:x:0:0::/:\n"


def test_read_file_fifo_device_or_directory_does_not_block(root: Path) -> None:
    os.mkfifo(root / "etc/fifo")
    (root / "etc/loop").symlink_to("loop")
    for name in ("fifo", "loop", ""):
        assert inroot.read_file(str(root), f"/etc/{name}") == b""


def test_has_abi32_sees_a_loader_of_the_image_only(root: Path) -> None:
    assert not inroot.has_abi32(str(root))
    (root / "lib").symlink_to("../outside")
    assert not inroot.has_abi32(str(root))
    (root / "outside").mkdir()
    (root / "outside/ld-musl-i386.so.1").touch()
    assert inroot.has_abi32(str(root))


def test_make_directory_makes_what_is_missing(root: Path) -> None:
    assert (
        inroot.make_directory(str(root), "/a/b/c", mode=0o750, uid=os.getuid(), gid=os.getgid()) == "/a/b/c"
    )
    assert (root / "a/b/c").is_dir()
    assert inroot.make_directory(str(root), "/a/b/c") == "/a/b/c"
    assert inroot.make_directory(str(root), "/") == "/"


@pytest.mark.parametrize("link", ["../outside", "../../outside", "/", "/../outside"])
def test_make_directory_through_links_stays_inside(root: Path, link: str) -> None:
    (root / "up").symlink_to(link)
    place = root / "outside"
    if "outside" in link:
        with pytest.raises(InvalidInput):
            inroot.make_directory(str(root), "/up/made")
        place.mkdir()
    inside = inroot.make_directory(str(root), "/up/made")
    assert inside == ("/made" if link == "/" else "/outside/made")
    assert (root / inside[1:]).is_dir()


def test_make_directory_dotdot_in_the_path_stays_inside(root: Path) -> None:
    assert inroot.make_directory(str(root), "/../../outside/made") == "/outside/made"


def test_make_directory_over_a_file_or_fifo_is_refused(root: Path) -> None:
    os.mkfifo(root / "fifo")
    for path in ("/etc/passwd", "/etc/passwd/x", "/fifo"):
        with pytest.raises(InvalidInput, match="can't be"):
            inroot.make_directory(str(root), path)


def test_make_directory_while_links_are_swapped_stays_inside(root: Path) -> None:
    (root / "real").mkdir()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            # The other side may have made a directory under the name meanwhile: then this round fails.
            with contextlib.suppress(OSError):
                (root / "next").symlink_to("../outside")
            with contextlib.suppress(OSError):
                os.rename(root / "real", root / "kept")
                os.rename(root / "next", root / "real")
                os.unlink(root / "real")
            with contextlib.suppress(OSError):
                os.rename(root / "kept", root / "real")

    attacker = threading.Thread(target=swap)
    attacker.start()
    try:
        for number in range(500):
            try:
                inroot.make_directory(str(root), f"/real/{number}")
            except InvalidInput:
                continue
    finally:
        stop.set()
        attacker.join()


@pytest.mark.parametrize(
    ("target", "resolved"),
    [("/data", "/data"), ("/etc/x/y", "/etc/x/y"), ("/link/sub", "/etc/sub"), ("/etc/passwd", "/etc/passwd"),
     ("/../data", "/data"), ("/var/run", "/run")],
)  # fmt: skip
def test_resolve_target_follows_the_images_links(root: Path, target: str, resolved: str) -> None:
    (root / "link").symlink_to("/etc")
    (root / "run").mkdir()
    (root / "var").mkdir()
    (root / "var/run").symlink_to("../../../run")
    assert inroot.resolve_target(str(root), target) == resolved


@pytest.mark.parametrize("link", ["/", "/proc", "/proc/self", "nowhere", "loop"])
def test_resolve_target_to_root_proc_or_nowhere_is_refused(root: Path, link: str) -> None:
    (root / "proc").mkdir()
    (root / "loop").symlink_to(link)
    with pytest.raises(InvalidInput, match="mount target"):
        inroot.resolve_target(str(root), "/loop")
