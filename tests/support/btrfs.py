"""A btrfs of its own for a test, on a loop device over a file."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_until

SIZE = 512 << 20


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """Its root, until the block ends. The file is sparse."""
    image, place = folder / "btrfs.img", folder / "btrfs"
    with open(image, "wb") as file:
        file.truncate(SIZE)
    place.mkdir()
    _run("mkfs.btrfs", "--quiet", "--metadata", "single", str(image))
    _run("mount", "-t", "btrfs", "-o", "loop", str(image), str(place))
    try:
        yield place
    finally:
        wait_until(
            lambda: _ended("umount", str(place)).returncode == 0, deadline=10, what="nobody uses the btrfs"
        )
        image.unlink()


def _ended(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def _run(*argv: str) -> None:
    done = _ended(*argv)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
