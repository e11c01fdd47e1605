"""An image store on a real file system, two images to put into it, and looks at what it keeps."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from image.drivers.base import StorageDriver
from image.drivers.overlay import OverlayDriver
from image.registry.client import RegistryClient
from image.store import ImageStore
from tests.support.images import docker_archive, folder, image, member, tar

BASE = tar(folder("etc"), member("etc/issue", b"base"), member("gone", b"x"))
TOP = tar(member("etc/motd", b"top"), member(".wh.gone"))
OTHER = tar(member("other", b"y"))
BUILT = image([BASE, TOP], config={"Cmd": ["/bin/sh"], "Env": ["A=1"]})
ARCHIVE = docker_archive(BUILT, [BASE, TOP], names=["app:1"])


def made(root: Path, driver: StorageDriver | None = None) -> ImageStore:
    choice = (driver or OverlayDriver(), "for tests")
    return ImageStore(root / "images", driver_choice=choice, source=RegistryClient())


@contextlib.asynccontextmanager
async def reopened(root: Path) -> AsyncIterator[ImageStore]:
    """A second store on the same folder, as after a crash of the first."""
    store = made(root)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def layers_on_disk(root: Path) -> list[str]:
    return sorted(os.listdir(root / "images/layers"))


def documents(root: Path) -> list[str]:
    """Digests, without their algorithm, of configurations and manifests that are kept."""
    return os.listdir(root / "images/configs")


def disk_usage(path: Path) -> int:
    done = subprocess.run(["du", "-sxk", path], capture_output=True, check=True)
    return int(done.stdout.split()[0]) << 10


def tree(path: str) -> dict[str, bytes]:
    base = Path(path)
    return {p.relative_to(base).as_posix(): p.read_bytes() for p in base.rglob("*") if p.is_file()}
