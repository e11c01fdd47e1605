"""A store's file as bytes: what a backup holds, and how a file is made of it or put back. Blocking.

Invariant: what is read here was verified as a store that is opened is; what is written is there whole or not
at all.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from aio.durable import sync_folder, write_file
from controller.snapshot import Cluster
from controller.store.sqlite_file import load, put_all
from controller.store.sqlite_schema import HINT, check_header, copies, create, migrate
from model.errors import Damaged, FlotaError, NotFound


def dump(cluster: Cluster, epoch: int) -> bytes:
    """A file with these records, of the newest schema."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        create(connection)
        put_all(connection, cluster, epoch)
        return connection.serialize()


def read(data: bytes, name: str) -> tuple[Cluster, int]:
    """The records, and the leader's epoch, of a file of this schema or an older one. Raises Damaged,
    Unsupported."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        try:
            connection.deserialize(_without_log(data))
            return _read(connection, name)
        except sqlite3.Error as error:
            raise Damaged(f"{name} can't be read: {error}") from error


def _without_log(data: bytes) -> bytes:
    """A file in WAL mode can't be opened in memory; its log is none of it (SQLite file format, 1.3.3)."""
    return data[:18] + b"\1\1" + data[20:] if data[18:20] == b"\2\2" else data


def _read(connection: sqlite3.Connection, name: str) -> tuple[Cluster, int]:
    check_header(connection, Path(name))
    migrate(connection, None)
    meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
    if not {"revision", "epoch"} <= meta.keys():
        raise Damaged(f"{name} has lost its revision")
    return load(connection, name, meta["revision"]), meta["epoch"]


def before_upgrade(path: Path) -> tuple[Path, Cluster, int]:
    """The newest copy from before a migration that this flota can read: where it is, its records, its epoch.
    Raises NotFound."""
    found = copies(path)
    for copy in reversed(found):
        with contextlib.suppress(FlotaError):
            return copy, *read(copy.read_bytes(), str(copy))
    raise NotFound(
        f"beside {path} there is no copy from before an upgrade"
        + (f" that this flota can read ({', '.join(copy.name for copy in found)})" if found else ""),
        hint="Restore a backup: flota restore FILE",
    )


def whole(path: Path) -> bytes:
    """A store's file with all that is in its log, which it has no more then. Raises Damaged, OSError."""
    _fold(path)
    return path.read_bytes()


def put_back(path: Path, data: bytes) -> Path:
    """Replace a store's file, which stays beside it under the name that is returned. Raises Damaged,
    OSError."""
    version = _fold(path)  # its log belongs to it, and would be taken for the new one's
    kept = path.with_name(f"{path.name}.schema-{version}")
    kept.unlink(missing_ok=True)
    os.link(path, kept)
    sync_folder(path.parent)
    write_file(path, data)
    return kept


def _fold(path: Path) -> int:
    """Its schema."""
    with _opened(path) as connection:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
    return version


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise Damaged(f"{path} can't be read: {error}", hint=HINT) from error
