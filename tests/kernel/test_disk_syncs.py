"""A few files are synced one by one, in an order that holds; what can't be, with the whole file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from image import writeback

pytestmark = pytest.mark.kernel


def test_few_files_are_listed_before_the_folders_that_name_them(tmp_path: Path) -> None:
    (tmp_path / "fs/a/b").mkdir(parents=True)
    (tmp_path / "fs/a/b/one").write_text("x")
    (tmp_path / "blob").write_text("y")
    found = writeback.few(tmp_path)
    assert found is not None
    names = [os.path.relpath(path, tmp_path) for path in found]
    assert sorted(names) == [".", "blob", "fs", "fs/a", "fs/a/b", "fs/a/b/one"]
    for name in names:
        assert name == "." or names.index(name) < names.index(os.path.dirname(name) or ".")
    writeback.to_disk(tmp_path)


@pytest.mark.parametrize("what", ["link", "link to a folder", "fifo", "device", "many", "many folders"])
def test_what_cannot_be_synced_alone_or_is_many_is_left_to_the_file_system(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "fs"
    folder.mkdir()
    if what == "link":
        (folder / "l").symlink_to("/nowhere")
    elif what == "link to a folder":
        (folder / "l").symlink_to(tmp_path)
    elif what == "fifo":
        os.mkfifo(folder / "f")
    elif what == "device":
        os.mknod(folder / "d", 0o020600, os.makedev(0, 0))
    for number in range(100 if what.startswith("many") else 0):
        (folder / str(number)).mkdir() if "folders" in what else (folder / str(number)).write_text("x")
    assert writeback.few(tmp_path) is None
    writeback.to_disk(tmp_path)
