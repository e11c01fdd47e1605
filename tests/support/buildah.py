"""Images made with buildah, out of nothing and in a storage of their own: what changes a root is a layer."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

Step = Callable[[Path, "Buildah"], None]


def call(*argv: str | Path) -> str:
    """What it prints. AssertionError with what it says when it fails."""
    done = subprocess.run(argv, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return done.stdout.decode().strip()


class Buildah:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._container = ""
        self._storage = (
            *("buildah", "--root", folder / "storage", "--runroot", folder / "run"),
            *("--storage-driver", "vfs"),
        )

    def image(self, *steps: Step, form: str = "oci") -> Path:
        """An OCI layout whose tag `it` has a layer for each step, compressed with gzip. A step is given the
        root that it may change."""
        target = self.folder / "made"
        self._container = self("from", "scratch")
        for number, step in enumerate(steps):
            root = Path(self("mount", self._container))
            step(root, self)
            self("umount", self._container)
            last = number == len(steps) - 1
            name = f"oci:{target}:it" if last else f"step{number}"
            self("commit", "-q", "--format", form, "--disable-compression=false", self._container, name)
            if not last:
                self("rm", self._container)
                self._container = self("from", "--pull-never", f"localhost/{name}")
        self("rm", self._container)
        return target

    def run(self, command: str) -> None:
        """In the root of the image that is being made."""
        self("run", "--isolation", "chroot", self._container, "/bin/sh", "-c", command)

    def __call__(self, *argv: str | Path) -> str:
        return call(*self._storage, *argv)


def unpacked_tar(made: Path) -> Step:
    """A step: a root file system's tar."""

    def step(root: Path, buildah: Buildah) -> None:
        del buildah
        call("tar", "-C", root, "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", made)
        os.sync()

    return step
