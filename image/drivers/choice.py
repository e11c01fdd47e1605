"""Which storage driver this host uses, and why: the visible table of drivers is here."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from image.drivers.base import StorageDriver
from image.drivers.mounts import unmount
from image.drivers.overlay import OverlayDriver
from image.drivers.vfs import VfsDriver
from model.errors import FlotaError, Unsupported

TRIAL = "trial-"
DRIVERS = {OverlayDriver.name: OverlayDriver, VfsDriver.name: VfsDriver}


def choose(root: Path, wanted: str = "") -> tuple[StorageDriver, str]:
    """(driver, reason): `wanted`, or the best that works below `root`. Raises Unsupported."""
    if wanted and wanted not in DRIVERS:
        raise Unsupported(f"no storage driver {wanted!r}", hint=f"There is {', '.join(DRIVERS)}")
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    for left in root.glob(f"{TRIAL}*"):  # a crash in the midst of a trial
        unmount(str(left / "root"))
        shutil.rmtree(left)
    if wanted == VfsDriver.name:
        return VfsDriver(), "asked for"
    driver = OverlayDriver()
    why_not = try_out(driver, root)
    if not why_not:
        return driver, "asked for" if wanted else "overlayfs works on this file system"
    if wanted:
        raise Unsupported(
            f"overlayfs does not work on {root}: {why_not}",
            hint="Put the state folder on ext4, xfs or btrfs (not on another overlay), or use vfs",
        )
    return VfsDriver(), f"overlayfs does not work on this file system ({why_not}); each container is a copy"


def try_out(driver: StorageDriver, root: Path) -> str:
    """Stack a layer and write on it below `root`: what went wrong, or nothing."""
    trial = tempfile.mkdtemp(prefix=TRIAL, dir=root)
    try:
        lower = os.path.join(trial, "lower")
        os.makedirs(os.path.join(lower, "folder"))
        driver.prepare(trial, [lower])
        path = driver.mount(trial, [lower])
        try:
            os.rmdir(os.path.join(path, "folder"))
        finally:
            driver.unmount(trial)
    except (FlotaError, OSError) as error:
        return str(error).removeprefix(f"overlay mount of {trial} failed: ")
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    return ""
