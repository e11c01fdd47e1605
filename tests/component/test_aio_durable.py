"""Whole files: there as they were or as they shall be, whatever ends the writer."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aio.durable import write_file

ROOT = Path(__file__).resolve().parents[2]
DYING = """
import os, signal, sys
from aio.durable import write_file
left = int(sys.argv[2])
def dying(real):
    def call(*args, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **named)
    return call
for name in ("open", "fdopen", "fchmod", "fsync", "rename", "close"):
    setattr(os, name, dying(getattr(os, name)))
write_file(sys.argv[1], b"new" * 100_000)
"""
FULL = """
import resource, sys
from aio.durable import write_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_file(sys.argv[1], b"new" * 1000)
except OSError as error:
    print(error.errno)
"""


def test_file_is_replaced_with_its_mode_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o666)
    write_file(path, b"new", 0o640)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o640)
    write_file(path, b"")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"", 0o600)
    assert os.listdir(tmp_path) == ["file"]


def test_file_in_the_folder_at_hand_is_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_file("file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_writer_killed_anywhere_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    old, new, seen, number = b"old", b"new" * 100_000, set[bytes](), 0
    path = tmp_path / "file"
    while True:
        path.write_bytes(old)
        done = subprocess.run([sys.executable, "-c", DYING, str(path), str(number)], cwd=ROOT, check=False)
        found = path.read_bytes()
        assert found in (old, new)
        seen.add(found)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        number += 1
    assert seen == {old, new} and number > 5
    write_file(path, b"again")
    assert os.listdir(tmp_path) == ["file"]


def test_writer_without_room_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    words = [sys.executable, "-c", FULL, str(path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{errno.EFBIG}\n"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_link_that_waits_where_it_writes_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"kept")
    (tmp_path / ".file.new").symlink_to(other)
    with pytest.raises(OSError):
        write_file(tmp_path / "file", b"new")
    assert other.read_bytes() == b"kept"
