"""Builds on a disk that is full, or becomes so meanwhile: told in one line, given back, gone on after."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.build.parts import StepFailed
from model.errors import FlotaError
from tests.support.buildlab import SaidSession, mounts_below
from tests.support.killedbuilds import TEXT
from tests.support.waiting import until
from tests.support.wholebuilds import WholeBuilds, whole_builds

pytestmark = pytest.mark.kernel
MADE = {"b": b"a\n", "c": b"a\n", "d": b"a\na\n"}
MIB = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 128 MiB."""
    disk, place = tmp_path / "disk", tmp_path / "small"
    place.mkdir()
    with open(disk, "wb") as file:
        file.truncate(128 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-N", "4000", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def free(place: Path) -> int:
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


def fill(place: Path, rest: int) -> Path:
    """All but `rest` bytes."""
    ballast = place / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, free(place) - MIB)
        file.seek(0, os.SEEK_END)
        with contextlib.suppress(OSError):
            while free(place) > rest:
                file.write(bytes(4096))
                os.fsync(file.fileno())
    return ballast


async def right(builds: WholeBuilds) -> None:
    done = await builds.build(TEXT, SaidSession(), names=("out:1",), no_cache=True)
    assert await builds.files(done) == MADE
    assert builds.lab.left() == []


async def test_step_that_fills_the_disk_fails_and_its_room_is_given_back(small: Path) -> None:
    async with whole_builds(small) as builds:
        before, session = free(small), SaidSession()
        text = "FROM busybox:1\nRUN --network=none dd if=/dev/zero of=/big bs=1048576\n"
        with pytest.raises(StepFailed, match="exit code 1"):
            await builds.build(text, session)
        assert b"No space left on device" in session.err
        assert builds.lab.left() == []
        await until(lambda: free(small) > before - MIB, deadline=20, what="its room")
        await right(builds)
    assert mounts_below(small) == []


@pytest.mark.parametrize("rest", [0, 40, 80, 160, 320, 900])
async def test_build_with_little_room_is_done_or_told_in_one_line_and_the_next_is_right(
    small: Path, rest: int
) -> None:
    """`rest`: KiB that are left when it begins."""
    async with whole_builds(small) as builds:
        ballast = fill(small, rest << 10)
        try:
            done = await builds.build(TEXT, SaidSession(), no_cache=True)
        except FlotaError as error:
            assert "\n" not in error.message and "Traceback" not in error.message
            told = error.message
        else:
            told = ""
            assert await builds.files(done) == MADE
        assert builds.lab.left() == []
        assert os.listdir(small / "state/images/builds") == []
        assert told or rest
        ballast.unlink()
        await right(builds)
    assert mounts_below(small) == []
    async with whole_builds(small) as builds:
        await right(builds)
