"""Paths below a directory that somebody changes: no link on the way is followed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from image import openat
from image.context.scan import Scanner
from image.context.serve import FolderSource, Gone
from tests.support.contexts import grow

FLAGS = os.O_RDONLY


@pytest.fixture(params=["openat2", "name by name"])
def old(request: pytest.FixtureRequest) -> Iterator[None]:
    """Kernels with the call, and without."""
    openat._has_openat2()
    before = openat._known[:]
    openat._known[:] = [request.param == "openat2" and before[0]]
    yield
    openat._known[:] = before


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    grow(tmp_path / "outside", {"deep/secret": b"secret"})
    grow(tmp_path / "top", {"deep/deeper/file": b"file", "to": "../outside", "deep/up": "../../outside/deep"})
    fd = os.open(tmp_path / "top", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.usefixtures("old")
def test_file_is_opened_at_any_depth(top: int, tmp_path: Path) -> None:
    deep = b"/".join([b"d" * 200] * 30)
    here = os.dup(top)
    for name in deep.split(b"/"):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open(b"file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)
    for path in (b"deep/deeper/file", deep + b"/file"):
        os.close(openat.beneath(top, path, FLAGS))
        with openat.folder_of(top, path, last=True) as (folder, name):
            assert name == b"file" and os.stat(name, dir_fd=folder)


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("path", [b"to/deep/secret", b"deep/up/secret", b"to"])
def test_link_on_the_way_is_refused(top: int, path: bytes) -> None:
    with pytest.raises(OSError):
        openat.beneath(top, path, FLAGS)
    if b"/" in path:
        with pytest.raises(OSError), openat.folder_of(top, path, last=True):
            pass


@pytest.mark.usefixtures("old")
def test_folder_that_became_a_link_after_the_scan_gives_nothing_of_what_is_there(
    top: int, tmp_path: Path
) -> None:
    """With the very content that was scanned: else its digest would tell."""
    grow(tmp_path / "outside", {"deeper/file": b"file"})
    source = FolderSource(Scanner(os.fspath(tmp_path / "top")))
    source.scan(())
    os.rename(tmp_path / "top/deep", tmp_path / "moved")
    os.symlink("../outside", tmp_path / "top/deep")
    with pytest.raises(Gone):
        list(source.pieces("sha256:" + hashlib.sha256(b"file").hexdigest()))
