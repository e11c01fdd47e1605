"""Which storage driver this host uses, and why: the visible table of drivers is here."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from image.drivers.base import StorageDriver
from image.drivers.overlay import OverlayDriver
from model.errors import FlotaError, Unsupported


def choose(root: Path) -> tuple[StorageDriver, str]:
    """(driver, reason) by trying: a layer is stacked and mounted below `root`. Raises Unsupported."""
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    driver = OverlayDriver()
    trial = tempfile.mkdtemp(prefix="trial-", dir=root)
    try:
        lower = os.path.join(trial, "lower")
        os.mkdir(lower)
        driver.prepare(trial, [lower])
        driver.mount(trial, [lower])
        driver.unmount(trial)
        return driver, "overlayfs works on this file system"
    except (FlotaError, OSError) as error:
        raise Unsupported(
            f"overlayfs does not work on {root}: {error}",
            hint="Put the state folder on ext4, xfs or btrfs (not on another overlay)",
        ) from error
    finally:
        shutil.rmtree(trial, ignore_errors=True)
