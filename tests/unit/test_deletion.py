"""Trees that are deleted, whatever somebody made of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.trees import remove_tree
from aio.deletion import delete, deletion
from aio.diskusage import disk_usage
from image.trash import deletion_in

DEPTH = 1500
"""More than Python calls functions."""


def deep(folder: Path, depth: int = DEPTH) -> Path:
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    return folder


def test_tree_deeper_than_python_calls_is_deleted_by_all_who_delete(tmp_path: Path) -> None:
    delete(deep(tmp_path / "a"))
    remove_tree(deep(tmp_path / "b"))
    deep(tmp_path / "c")
    fd = os.open(tmp_path, os.O_RDONLY)
    deletion_in(fd, b"c")
    os.close(fd)
    assert not os.listdir(tmp_path)


def test_tree_is_deleted_and_nothing_behind_its_links(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "inner").mkdir(parents=True)
    (victim / "file").write_text("untouched")
    folder = tmp_path / "gone"
    (folder / "x/y").mkdir(parents=True)
    (folder / "x/link").symlink_to(victim)
    (folder / "link").symlink_to("../victim/inner")
    os.mkfifo(folder / "x/y/fifo")
    (folder / os.fsdecode(b"\xff")).mkdir()
    steps = list(deletion(folder))
    assert len(steps) == 3 and os.listdir(tmp_path) == ["victim"]
    assert (victim / "file").read_text() == "untouched" and (victim / "inner").is_dir()
    (tmp_path / "link").symlink_to(victim)
    delete(tmp_path / "link")
    assert os.listdir(tmp_path) == ["victim"] and len(os.listdir(victim)) == 2
    with pytest.raises(FileNotFoundError):
        delete(tmp_path / "none")
    remove_tree(tmp_path / "none")


def test_tree_without_end_is_counted_as_far_as_it_goes(tmp_path: Path) -> None:
    def block(path: Path) -> int:
        return os.lstat(path).st_blocks * 512

    folder = tmp_path / "some"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/f").write_bytes(bytes(10_000))
    (folder / "a/b/link").symlink_to(tmp_path)
    paths = [folder / name for name in ("a", "a/b", "a/f", "a/b/link")]
    assert disk_usage(folder) == sum(map(block, paths)) and disk_usage(folder / "a/f") == 0
    assert disk_usage(tmp_path / "none") == 0
    before = len(os.listdir("/proc/self/fd"))
    assert disk_usage(deep(tmp_path / "deep")) >= 0
    assert len(os.listdir("/proc/self/fd")) == before
    delete(tmp_path / "deep")
