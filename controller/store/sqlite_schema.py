"""The schema of the embedded store's file: its tables, and the way from each older one to the newest.

Invariant: a file is of one schema or of the next, never between: each step is one transaction, which ends
with the number. Before the first step the file is copied to `store.db.before-N` (the last such copy is kept),
N being the schema that it is about to get: an older flota can go on with that
(`flota restore --before-upgrade`).
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from aio.durable import sync_folder
from model.errors import Damaged, Unavailable, Unsupported
from model.spec import Struct
from model.version import VERSION

APPLICATION_ID = 0x666C6F74
"""`flot`: says whose file this is (SQLite's PRAGMA application_id)."""
HINT = "Stop the controller, move its folder away and restore it: flota restore FILE; or begin an empty fleet"
COPY = ".before-"


class Migration(Struct):
    to: int
    why: str
    statements: tuple[str, ...]


FIRST = (
    "CREATE TABLE records (kind TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL,"
    " checksum INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO meta VALUES ('revision', 0), ('epoch', 0)",
)
"""Schema 1. Later ones are made by the table below, in new files as in old ones."""

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        to=2,
        why="the file says which flota brought it to which schema, for who must go back",
        statements=(
            "CREATE TABLE history (schema INTEGER PRIMARY KEY, release TEXT NOT NULL, at REAL NOT NULL)",
        ),
    ),
)
SCHEMA = MIGRATIONS[-1].to


def create(connection: sqlite3.Connection) -> None:
    """The tables of an empty store, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in FIRST:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    for migration in MIGRATIONS:
        _step(connection, migration)
    connection.execute("COMMIT")


def check_header(connection: sqlite3.Connection, path: Path) -> int:
    """The file's schema. Raises Damaged, Unavailable, Unsupported (a newer one)."""
    try:
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.OperationalError as error:
        raise Unavailable(f"{path} can't be opened: {error}", hint="Check its owner and mode") from error
    if owner != APPLICATION_ID:
        raise Damaged(f"{path} is not a flota store", hint=HINT)
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise Damaged(f"{path} is damaged: {problem}", hint=HINT)
    if version > SCHEMA:
        raise Unsupported(
            f"{path} has schema {version}{_writer(connection, version)}, this flota {VERSION} knows {SCHEMA}",
            hint="Start the newer flota again, or go back to what was before: flota restore --before-upgrade",
        )
    return version


def _writer(connection: sqlite3.Connection, version: int) -> str:
    """Who brought it to that schema, in words."""
    try:
        row = connection.execute("SELECT release FROM history WHERE schema = ?", (version,)).fetchone()
    except sqlite3.Error:
        return ""
    return f" of flota {str(row[0])[:40]}" if row else ""


def migrate(
    connection: sqlite3.Connection, path: Path | None, table: tuple[Migration, ...] = MIGRATIONS
) -> None:
    """Bring an open file to the table's newest schema; a copy of it is kept beside it. `path` None: it is in
    memory, and needs none."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    steps = [migration for migration in table if migration.to > version]
    if not steps:
        return
    if path is not None:
        keep_copy(connection, path, steps[-1].to)
    for migration in steps:
        connection.execute("BEGIN IMMEDIATE")
        try:
            _step(connection, migration)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _step(connection: sqlite3.Connection, migration: Migration) -> None:
    for statement in migration.statements:
        connection.execute(statement)
    row = (migration.to, VERSION, time.time())
    connection.execute("INSERT OR REPLACE INTO history VALUES (?, ?, ?)", row)
    connection.execute(f"PRAGMA user_version = {migration.to}")


def keep_copy(connection: sqlite3.Connection, path: Path, schema: int) -> None:
    """`PATH.before-SCHEMA`, whole and durable; copies of earlier migrations go."""
    kept = path.with_name(f"{path.name}{COPY}{schema}")
    aside = path.with_name(f"{path.name}.copying")
    aside.unlink(missing_ok=True)
    try:
        os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        copy = sqlite3.connect(aside)
        try:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        finally:
            copy.close()
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        aside.rename(kept)
        sync_folder(path.parent)
    except (OSError, sqlite3.Error) as error:
        aside.unlink(missing_ok=True)
        hint = "See that its disk has room for one more copy"
        raise Unavailable(f"{path} can't be copied before it is migrated: {error}", hint=hint) from error
    for other in copies(path):
        if other != kept:
            other.unlink()


def copies(path: Path) -> list[Path]:
    """Of the file before it was migrated, by the schema that it got."""
    prefix = f"{path.name}{COPY}"
    found = [p for p in path.parent.glob(f"{prefix}*") if p.name.removeprefix(prefix).isdecimal()]
    return sorted(found, key=lambda p: int(p.name.removeprefix(prefix)))
