"""A controller's state folder out of a backup, on a host that has none; or its own from before an upgrade, or
as somebody copied it back.

Blocking. Invariants: the folder is there whole or not at all; none that is there is touched, nor one that is
in use. The state begins in recovery (`controller.recovery`), with an epoch beyond all that the lost
controller had, so that hosts obey no other one any more.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from aio.durable import sync_folder, write_file
from controller import recovery
from controller.backup.archive import Backup
from controller.snapshot import Cluster
from controller.store import sqlite_dump
from controller.store.sqlite_file import FolderLock
from model.errors import AlreadyExists, Exhausted, NotFound, Unavailable
from model.spec import Struct

ASIDE = "restoring"


class Restored(Struct):
    """What is to be told."""

    awaited: tuple[str, ...]
    """Names of hosts that are to say what they know."""
    unheard: tuple[str, ...] = ()
    """Names of hosts that were lost then."""
    kept: str = ""
    """Where the state is that was there before."""


def restore(backup: Backup, folder: Path, now: float) -> Restored:
    """Make `folder` of it. Raises AlreadyExists, InUse, Unavailable, Exhausted."""
    cluster = recovery.restored(backup.cluster, taken_at=backup.manifest.taken_at, now=now)
    data = sqlite_dump.dump(cluster, recovery.epoch_of(backup.epoch, now))
    aside = folder.with_name(f"{folder.name}.{ASIDE}")
    try:
        _make_way(folder)
        if aside.exists():
            shutil.rmtree(aside)
        (aside / "pki").mkdir(mode=0o700, parents=True)
        aside.chmod(0o700)
        write_file(aside / "pki" / "ca.key", backup.key)
        write_file(aside / "pki" / "ca.pem", backup.certificate, 0o644)
        write_file(aside / "store.db", data)
        sync_folder(aside)
        aside.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise _failed(folder, error) from error
    return _words(cluster)


def before_upgrade(folder: Path, now: float) -> Restored:
    """Go back to the copy that was made before the store's file was migrated. What is there now stays beside
    it. Raises NotFound, InUse, Damaged."""
    path = folder / "store.db"
    if not path.exists():
        raise NotFound(f"there is no controller's state in {folder}")
    lock = FolderLock(folder)
    try:
        copy, before, epoch = sqlite_dump.before_upgrade(path)
        cluster = recovery.restored(before, taken_at=copy.stat().st_mtime, now=now)
        kept = sqlite_dump.put_back(path, sqlite_dump.dump(cluster, recovery.epoch_of(epoch, now)))
    except OSError as error:
        raise _failed(folder, error) from error
    finally:
        lock.release()
    words = _words(cluster)
    return Restored(awaited=words.awaited, unheard=words.unheard, kept=str(kept))


def in_place(folder: Path, now: float) -> Restored:
    """Go on with a file that was copied back, as with a backup: hosts obey it only then, and are asked for
    what they were told since. Raises NotFound, InUse, Damaged."""
    path = folder / "store.db"
    if not path.exists():
        raise NotFound(f"there is no controller's state in {folder}")
    lock = FolderLock(folder)
    try:
        taken_at = path.stat().st_mtime
        before, epoch = sqlite_dump.read(sqlite_dump.whole(path), str(path))
        cluster = recovery.restored(before, taken_at=taken_at, now=now)
        kept = sqlite_dump.put_back(path, sqlite_dump.dump(cluster, recovery.epoch_of(epoch, now)))
    except OSError as error:
        raise _failed(folder, error) from error
    finally:
        lock.release()
    words = _words(cluster)
    return Restored(awaited=words.awaited, unheard=words.unheard, kept=str(kept))


def _make_way(folder: Path) -> None:
    """There may be an empty folder, or what a lock leaves. Raises AlreadyExists, InUse."""
    if not folder.exists():
        folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        return
    there = sorted(path.name for path in folder.iterdir() if path.name != "lock")
    if there:
        raise AlreadyExists(
            f"there is a controller's state in {folder} already ({', '.join(there[:3])})",
            hint="Restore on another host, or move that folder away first",
        )
    lock = FolderLock(folder)
    try:
        (folder / "lock").unlink()
        folder.rmdir()
    finally:
        lock.release()


def _words(cluster: Cluster) -> Restored:
    found = cluster.settings.recovery
    if found is None:
        return Restored(awaited=())
    return Restored(
        awaited=tuple(sorted(cluster.host_name(host) for host in found.awaited)),
        unheard=tuple(sorted(cluster.host_name(host) for host in found.unheard)),
    )


def _failed(folder: Path, error: OSError) -> Unavailable | Exhausted:
    full = error.errno in (28, 122)  # ENOSPC, EDQUOT
    words = f"{folder} can't be made: {os.strerror(error.errno or 0)}"
    return Exhausted(words, hint="Free some space") if full else Unavailable(words)
