"""Which storage driver this host uses, and why: the visible table of drivers is here."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from image.drivers.base import StorageDriver
from image.drivers.btrfs import BtrfsDriver
from image.drivers.mounts import unmount
from image.drivers.overlay import OverlayDriver
from image.drivers.vfs import VfsDriver
from image.full import BALLAST, Ballast
from model.errors import FlotaError, InUse, Unsupported

TRIAL = "trial-"
DRIVERS: Mapping[str, Callable[[], StorageDriver]] = {
    OverlayDriver.name: OverlayDriver,
    BtrfsDriver.name: BtrfsDriver,
    VfsDriver.name: VfsDriver,
}
"""The best first."""
_WORKS = {
    OverlayDriver.name: "overlayfs works on this file system",
    BtrfsDriver.name: "containers are snapshots",
    VfsDriver.name: "each container is a copy",
}


def choose(root: Path, wanted: str = "") -> tuple[StorageDriver, str]:
    """(driver, reason): `wanted`, the one that made the containers below `root`, or the best that works
    there. Raises Unsupported, and InUse where there are containers of another driver than is wanted."""
    if wanted and wanted not in DRIVERS:
        raise Unsupported(f"no storage driver {wanted!r}", hint=f"There is {', '.join(DRIVERS)}")
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    for left in root.glob(f"{TRIAL}*"):  # a crash in the midst of a trial
        unmount(str(left / "root"))
        shutil.rmtree(left)
    if kept := _kept(root):
        if wanted not in ("", kept):
            raise InUse(
                f"storage driver {wanted}: the containers in {root} were made by {kept}",
                hint=f"Start with --storage-driver {kept}, and remove them before you change it",
            )
        return DRIVERS[kept](), "asked for" if wanted else "containers here were made by it"
    if wanted:
        driver = DRIVERS[wanted]()
        if why_not := try_out(driver, root):
            raise Unsupported(
                f"storage driver {wanted} does not work on {root}: {why_not}", hint=_hint(wanted)
            )
        return driver, "asked for"
    return _best(root)


def _best(root: Path) -> tuple[StorageDriver, str]:
    reasons: list[str] = []
    for name, make in DRIVERS.items():
        driver = make()
        why_not = try_out(driver, root)
        if not why_not:
            return driver, "; ".join((*reasons, _WORKS[name]))
        reasons.append(f"{name} does not work on this file system ({why_not})")
    raise Unsupported(f"no storage driver works on {root}: {'; '.join(reasons)}")


def _kept(root: Path) -> str:
    """The driver that made the containers below `root`; empty: there are none."""
    for record in sorted(root.glob("roots/*/root.json")):
        for name, make in DRIVERS.items():
            if make().made(str(record.parent)):
                return name
    return ""


def _hint(wanted: str) -> str:
    match wanted:
        case OverlayDriver.name:
            return "Put the state folder on ext4, xfs or btrfs (not on another overlay), or use vfs"
        case BtrfsDriver.name:
            return "Put the state folder on a btrfs, or use overlay2"
        case _:
            return "Is the disk full?"


def try_out(driver: StorageDriver, root: Path) -> str:
    """Stack a layer and write on it below `root`: what went wrong, or nothing. On a full disk with the room
    that the image store has set aside there; it takes it again when it opens."""
    said = list[str]()
    try:
        Ballast(root / BALLAST).write(lambda: said.append(_stack(driver, root)))
    except OSError as error:
        return str(error)
    return said[0]


def _stack(driver: StorageDriver, root: Path) -> str:
    """What went wrong for the driver, or nothing. Raises OSError."""
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
            driver.discard(trial)
    except FlotaError as error:
        return str(error).removeprefix(f"overlay mount of {trial} failed: ")
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    return ""
