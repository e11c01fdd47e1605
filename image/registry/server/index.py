"""Which repository has which manifests, tags and blobs: one SQLite file. Every call blocks, for a commit at
most.

Invariants: one connection, which writes and checkpoints (WAL, FULL); each change is one transaction; no
manifest names a blob that its repository had not when it came. Calls come from any thread: whoever needs two
of them to be one holds `lock`, which the same thread may take again.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from image.registry.server.documents import Document
from image.registry.server.ranges import Page
from image.registry.server.refusal import Refusal
from image.registry.server.tables import ADDED, SCHEMA, TABLES
from model.errors import Damaged, Exhausted, InUse, Unavailable, Unsupported
from model.spec import Struct

Connection = sqlite3.Connection
APPLICATION_ID = 0x666C7267
"""`flrg` (SQLite's PRAGMA application_id)."""
_HINT = "Restore the registry's folder from a backup, or move it away to begin an empty one"


class Stored(Struct):
    """A manifest as it was pushed."""

    digest: str
    media_type: str
    data: bytes


class Begun(Struct):
    """An upload that was begun; `started` in unix seconds."""

    id: str
    repository: str
    started: float


class Index:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.lock = threading.RLock()

    @classmethod
    def open(cls, path: Path) -> Index:
        """Make the file if there is none. Raises Damaged, InUse, Unsupported, Unavailable."""
        try:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
        except sqlite3.Error as error:
            raise Unavailable(f"{path} can't be opened: {error}") from error
        try:
            path.chmod(0o600)
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            _check(connection, path)
            for statement in ADDED:
                connection.execute(statement)
        except sqlite3.OperationalError as error:
            connection.close()
            if "locked" in str(error):
                raise InUse(f"another process uses {path}", hint="Stop it first") from error
            raise Unavailable(f"{path} can't be opened: {error}") from error
        except sqlite3.DatabaseError as error:
            connection.close()
            raise Damaged(f"{path} is damaged: {error}", hint=_HINT) from error
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    def close(self) -> None:
        with self.lock, contextlib.suppress(sqlite3.Error):  # the WAL that is left is as good
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    @contextlib.contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises Exhausted where the disk is full."""
        with self.lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                self._undo()
                if "full" in str(error):
                    raise Exhausted(
                        "the registry's disk is full", hint="Delete images, or give it room"
                    ) from error
                raise Unavailable(f"the registry's index can't be written: {error}") from error
            except BaseException:
                self._undo()
                raise

    def _undo(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def rows(self, query: str, *values: Any) -> list[Any]:
        with self.lock:
            return self._connection.execute(query, values).fetchall()

    def _value(self, query: str, *values: Any) -> Any:
        """The first column of the first row, or None."""
        found = self.rows(query, *values)
        return found[0][0] if found else None

    def repository(self, name: str) -> int | None:
        found: int | None = self._value("SELECT id FROM repositories WHERE name = ?", name)
        return found

    def made(self, connection: sqlite3.Connection, name: str) -> int:
        """The repository, which is made with its first content, within a change."""
        connection.execute("INSERT OR IGNORE INTO repositories (name) VALUES (?)", (name,))
        found = connection.execute("SELECT id FROM repositories WHERE name = ?", (name,)).fetchone()
        return int(found[0])

    # -- blobs --------------------------------------------------------------------------------------
    def blob(self, digest: str) -> int | None:
        """The size of a blob that some repository has."""
        found: int | None = self._value("SELECT size FROM blobs WHERE digest = ?", digest)
        return found

    def linked(self, name: str, digest: str) -> tuple[int, float] | None:
        """(size, when it was last asked for) of a blob that a repository has."""
        found = self.rows(
            "SELECT size, touched FROM links JOIN blobs USING (digest) JOIN repositories ON id = repository"
            " WHERE name = ? AND digest = ?",
            name,
            digest,
        )
        return found[0] if found else None

    def repositories_with(self, digest: str, most: int) -> list[str]:
        query = (
            "SELECT name FROM links JOIN repositories ON id = repository WHERE digest = ?"
            " ORDER BY name LIMIT ?"
        )
        return [name for (name,) in self.rows(query, digest, most)]

    def link(self, name: str, digest: str, now: float, *, size: int | None = None, upload: str = "") -> None:
        """A repository has a blob from now on, or still. With a size it is a new one; the upload that brought
        it is over."""
        with self.change() as connection:
            if size is not None:
                connection.execute("INSERT OR REPLACE INTO blobs VALUES (?, ?)", (digest, size))
                connection.execute("DELETE FROM lost WHERE digest = ?", (digest,))
            ident = self.made(connection, name)
            connection.execute("INSERT OR REPLACE INTO links VALUES (?, ?, ?)", (ident, digest, now))
            if upload:
                connection.execute("DELETE FROM uploads WHERE id = ?", (upload,))

    def unlink(self, name: str, digest: str) -> bool:
        """The repository has it no longer; False where it hadn't."""
        with self.change() as connection:
            gone = connection.execute(
                "DELETE FROM links WHERE digest = ?"
                " AND repository = (SELECT id FROM repositories WHERE name = ?)",
                (digest, name),
            )
            return gone.rowcount > 0

    def lose(self, digest: str) -> None:
        """Its file is no more: no repository has it until it is pushed again, or comes back from a copy."""
        with self.change() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO lost SELECT digest, size FROM blobs WHERE digest = ?", (digest,)
            )
            connection.execute("DELETE FROM blobs WHERE digest = ?", (digest,))

    # -- manifests and tags -------------------------------------------------------------------------
    def put(self, name: str, document: Document, data: bytes, tag: str = "") -> None:
        """Raises Refusal (MANIFEST_BLOB_UNKNOWN) where the repository lacks what it holds."""
        with self.change() as connection:
            ident = self.made(connection, name)
            missing = [
                d for d in document.blobs if not _has(connection, "links JOIN blobs USING (digest)", ident, d)
            ]
            missing += [d for d in document.manifests if not _has(connection, "manifests", ident, d)]
            if missing:
                raise Refusal(
                    "MANIFEST_BLOB_UNKNOWN",
                    f"{name} has not what the manifest holds: {', '.join(missing[:3])}",
                    detail=[{"digest": digest} for digest in missing[:100]],
                    hint="Push that first",
                )
            row = (
                ident,
                document.digest,
                document.media_type,
                document.subject,
                document.artifact_type,
                msgspec.json.encode(document.descriptor),
                data,
            )
            connection.execute("INSERT OR REPLACE INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            held = [(ident, digest, document.digest) for digest in (*document.blobs, *document.manifests)]
            connection.executemany("INSERT OR IGNORE INTO holds VALUES (?, ?, ?)", held)
            if tag:
                connection.execute(
                    "INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", (ident, tag, document.digest)
                )

    def manifest(self, name: str, tag: str, digest: str) -> Stored | None:
        """By its tag, or else by its digest."""
        if tag:
            digest = self._value(
                "SELECT digest FROM tags JOIN repositories ON id = repository"
                " WHERE repositories.name = ? AND tags.name = ?",
                name,
                tag,
            )
        found = self.rows(
            "SELECT digest, media_type, data FROM manifests JOIN repositories ON id = repository"
            " WHERE name = ? AND digest = ?",
            name,
            digest,
        )
        return Stored(digest=found[0][0], media_type=found[0][1], data=found[0][2]) if found else None

    def untag(self, name: str, tag: str) -> bool:
        with self.change() as connection:
            ident = self.repository(name)
            gone = connection.execute("DELETE FROM tags WHERE repository = ? AND name = ?", (ident, tag))
            return gone.rowcount > 0

    def remove(self, name: str, digest: str) -> bool:
        """A manifest, and its tags."""
        with self.change() as connection:
            key = (self.repository(name), digest)
            connection.execute("DELETE FROM tags WHERE repository = ? AND digest = ?", key)
            connection.execute("DELETE FROM holds WHERE repository = ? AND manifest = ?", key)
            gone = connection.execute("DELETE FROM manifests WHERE repository = ? AND digest = ?", key)
            return gone.rowcount > 0

    # -- lists --------------------------------------------------------------------------------------
    def tags(self, name: str, page: Page) -> list[str] | None:
        """One more than the page has, in the order of their bytes; None: there is no such repository."""
        with self.lock:
            ident = self.repository(name)
            if ident is None:
                return None
            query = "SELECT name FROM tags WHERE repository = ? AND name > ? ORDER BY name LIMIT ?"
            return [tag for (tag,) in self.rows(query, ident, page.last, page.number + 1)]

    def tagged(self, name: str) -> list[tuple[str, str, str]]:
        """(tag, digest, media type), in the order of the tags' bytes."""
        return self.rows(
            "SELECT tags.name, tags.digest, manifests.media_type FROM tags"
            " JOIN repositories ON id = tags.repository JOIN manifests"
            " ON manifests.repository = tags.repository AND manifests.digest = tags.digest"
            " WHERE repositories.name = ? ORDER BY tags.name",
            name,
        )

    def names(self, after: str, most: int) -> list[str]:
        """Of repositories."""
        query = "SELECT name FROM repositories WHERE name > ? ORDER BY name LIMIT ?"
        return [name for (name,) in self.rows(query, after, most)]

    def referrers(
        self, name: str, subject: str, artifact_type: str, after: str, most: int
    ) -> list[tuple[str, bytes]]:
        """(digest, descriptor as JSON) of manifests with that subject."""
        found: list[tuple[str, bytes]] = self.rows(
            "SELECT digest, descriptor FROM manifests WHERE repository = ? AND subject = ? AND digest > ?"
            " AND (? = '' OR artifact_type = ?) ORDER BY digest LIMIT ?",
            self.repository(name),
            subject,
            after,
            artifact_type,
            artifact_type,
            most,
        )
        return found

    # -- uploads ------------------------------------------------------------------------------------
    def begin(self, begun: Begun) -> None:
        with self.change() as connection:
            connection.execute(
                "INSERT INTO uploads VALUES (?, ?, ?)", (begun.id, begun.repository, begun.started)
            )

    def end(self, ident: str) -> None:
        with self.change() as connection:
            connection.execute("DELETE FROM uploads WHERE id = ?", (ident,))

    def begun(self) -> list[Begun]:
        return [
            Begun(id=ident, repository=repository, started=started)
            for ident, repository, started in self.rows("SELECT id, repository, started FROM uploads")
        ]

    # -- what nobody holds --------------------------------------------------------------------------
    def release(self, before: float) -> list[str]:
        """Let go of what no manifest of its repository holds and nobody asked for since `before`, and of
        repositories with nothing in them; the blobs that no repository has any more."""
        with self.change() as connection:
            connection.execute(
                "DELETE FROM links WHERE touched < ? AND NOT EXISTS (SELECT 1 FROM holds WHERE"
                " holds.repository = links.repository AND holds.digest = links.digest)",
                (before,),
            )
            connection.execute(
                "DELETE FROM repositories WHERE NOT EXISTS (SELECT 1 FROM links WHERE repository = id)"
                " AND NOT EXISTS (SELECT 1 FROM manifests WHERE repository = id)"
            )
            connection.execute(
                "DELETE FROM lost WHERE NOT EXISTS (SELECT 1 FROM links WHERE digest = lost.digest)"
            )
            query = (
                "SELECT digest FROM blobs WHERE NOT EXISTS (SELECT 1 FROM links WHERE digest = blobs.digest)"
            )
            return [digest for (digest,) in connection.execute(query)]

    def drop_unlinked(self, digest: str) -> bool:
        """The blob's record, unless a repository has it again meanwhile."""
        with self.change() as connection:
            gone = connection.execute(
                "DELETE FROM blobs WHERE digest = ? AND NOT EXISTS (SELECT 1 FROM links WHERE digest = ?)",
                (digest, digest),
            )
            return gone.rowcount > 0

    def blobs(self, prefix: str) -> dict[str, int]:
        """digest → size of all that begin so."""
        query = "SELECT digest, size FROM blobs WHERE digest >= ? AND digest < ?"
        return dict(self.rows(query, prefix, f"{prefix}g"))

    def totals(self) -> tuple[int, int, int]:
        """(repositories, blobs, their bytes)."""
        found = self.rows("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM blobs")[0]
        return int(self._value("SELECT COUNT(*) FROM repositories")), int(found[0]), int(found[1])


def _has(connection: sqlite3.Connection, table: str, repository: int, digest: str) -> bool:
    query = f"SELECT 1 FROM {table} WHERE repository = ? AND digest = ?"  # noqa: S608 (a table of ours)
    return connection.execute(query, (repository, digest)).fetchone() is not None


def _check(connection: sqlite3.Connection, path: Path) -> None:
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    empty = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0
    if empty and not owner:
        connection.execute("BEGIN IMMEDIATE")
        for statement in filter(str.strip, TABLES.split(";")):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute("COMMIT")
        return
    if owner != APPLICATION_ID:
        raise Damaged(f"{path} is no index of a registry", hint=_HINT)
    if version > SCHEMA:
        raise Unsupported(
            f"{path} has schema {version}, this flota knows {SCHEMA}", hint="Start the newer one"
        )
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise Damaged(f"{path} is damaged: {problem}", hint=_HINT)
