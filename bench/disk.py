"""A file system of its own for all that is measured, new each time: ext4 in a file.

What a file system went through before decides how fast it is: one without a journal looks for inodes for long
where many were deleted in the last minutes, and a full or worn one is slow for everybody.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SIZE = "24G"
"""At most; the file is as large as what was written."""


class FreshDisk:
    """Below `place`, which is removed with it."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.folder = place / "disk"
        image = place / "image"
        self.folder.mkdir()
        _run("truncate", "-s", SIZE, str(image))
        _run("mkfs.ext4", "-q", "-F", "-E", "nodiscard", str(image))
        _run("mount", "-o", "loop", str(image), str(self.folder))

    def remove(self) -> None:
        """Also when something of it is still in use: it goes with its last user."""
        _run("umount", "--lazy", str(self.folder))
        shutil.rmtree(self._place)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words[0]}: {done.stderr.strip()[-300:]}")
