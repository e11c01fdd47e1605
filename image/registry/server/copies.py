"""A registry's content as copies of it elsewhere have it: its state in one document, and the way back.

Invariant: a document taken in never takes away what came since this registry was opened; a blob of which no
file is here is `lost`: nobody sees it until its bytes have come back, verified.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from image.registry.server.digests import algorithm
from image.registry.server.documents import Document, parse
from image.registry.server.index import Connection, Index
from model.errors import Damaged
from model.spec import Struct


class Head(Struct):
    """Which state a document tells. A greater generation of one lineage is the newer."""

    lineage: str
    generation: int


class Kept(Struct):
    digest: str
    media_type: str
    data: bytes


class Repository(Struct):
    manifests: tuple[Kept, ...] = ()
    tags: Mapping[str, str] = {}
    """Tag → digest."""
    blobs: tuple[str, ...] = ()


class Snapshot(Struct):
    head: Head
    repositories: Mapping[str, Repository] = {}
    blobs: Mapping[str, int] = {}
    """Digest → size of all that repositories link to."""
    lineages: Mapping[str, int] = {}
    """Those that it has taken in, each up to which generation."""


def head(index: Index) -> Head:
    state = dict(index.rows("SELECT key, value FROM state"))
    return Head(lineage=state["lineage"], generation=state["generation"])


def lineages(index: Index) -> dict[str, int]:
    """Whose content this one has, up to which generation; its own among them."""
    own = head(index)
    return {**dict(index.rows("SELECT id, generation FROM lineages")), own.lineage: own.generation}


def begin(index: Index) -> None:
    """What comes from now on is of a lineage of its own: else a folder that was put back to what it was would
    with some pushes pass for newer than what hosts have of the time after."""
    with index.change() as connection:
        own = head(index)
        connection.execute(
            "INSERT INTO lineages SELECT ?, ?, value != ? FROM state WHERE key = 'began'",
            (own.lineage, own.generation, own.generation),
        )
        connection.execute("UPDATE state SET value = lower(hex(randomblob(16))) WHERE key = 'lineage'")
        connection.execute("UPDATE state SET value = ? WHERE key = 'began'", (own.generation,))


def held(index: Index) -> dict[str, int]:
    """digest → size of the blobs whose files are here."""
    return dict(index.rows("SELECT digest, size FROM blobs"))


def lost(index: Index) -> dict[str, int]:
    """digest → size of those that are to come back."""
    return dict(index.rows("SELECT digest, size FROM lost"))


def snapshot(index: Index) -> Snapshot:
    with index.lock:
        repositories = {}
        for ident, name in index.rows("SELECT id, name FROM repositories"):
            manifests = index.rows(
                "SELECT digest, media_type, data FROM manifests WHERE repository = ?", ident
            )
            links = index.rows("SELECT digest FROM links WHERE repository = ?", ident)
            repositories[name] = Repository(
                manifests=tuple(Kept(digest=d, media_type=m, data=data) for d, m, data in manifests),
                tags=dict(index.rows("SELECT name, digest FROM tags WHERE repository = ?", ident)),
                blobs=tuple(digest for (digest,) in links),
            )
        sizes = {**lost(index), **held(index)}
        linked = {digest for repository in repositories.values() for digest in repository.blobs}
        return Snapshot(
            head=head(index),
            repositories=repositories,
            blobs={digest: size for digest, size in sizes.items() if digest in linked},
            lineages={who: at for who, at in lineages(index).items() if who != head(index).lineage},
        )


def take_in(index: Index, told: Snapshot, now: float) -> None:
    """Where nothing but states came since this registry was opened, one that has all of them in it is the
    whole truth; else what is here and isn't there stays, and its tags win. Raises Refusal, Damaged for a
    document that no registry wrote or that is no newer than what is here, and then nothing is changed."""
    parsed = {
        kept.digest: parse(kept.data, kept.media_type, algorithm(kept.digest))
        for repository in told.repositories.values()
        for kept in repository.manifests
    }
    if wrong := [digest for digest, document in parsed.items() if document.digest != digest]:
        raise Damaged(f"manifest {wrong[0]} is not what its digest says")
    with index.lock, index.change() as connection:
        own, known = head(index), lineages(index)
        theirs = {**told.lineages, told.head.lineage: told.head.generation}
        if told.head.generation <= known.get(told.head.lineage, -1):
            raise Damaged("it is no newer than what is here")
        added = index.rows("SELECT id, generation FROM lineages WHERE adds")
        unchanged = index.rows("SELECT value FROM state WHERE key = 'began'") == [(own.generation,)]
        if unchanged and all(at <= theirs.get(who, -1) for who, at in added):
            for table in ("repositories", "links", "manifests", "holds", "tags"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 (a table of ours)
        connection.executemany(
            "INSERT OR IGNORE INTO lost SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE digest = ?)",
            [(digest, size, digest) for digest, size in told.blobs.items()],
        )
        _add(index, connection, told, parsed, now)
        connection.executemany(
            "INSERT INTO lineages VALUES (?, ?, 1)"
            " ON CONFLICT (id) DO UPDATE SET generation = MAX(generation, excluded.generation), adds = 1",
            [(who, at) for who, at in theirs.items() if who != own.lineage],
        )
        connection.execute(
            "UPDATE state SET value = MAX(value, ?) + 1 WHERE key = 'generation'", (told.head.generation,)
        )
        if unchanged:
            connection.execute(
                "UPDATE state SET value = (SELECT value FROM state WHERE key = 'generation')"
                " WHERE key = 'began'"
            )


def _add(
    index: Index, connection: Connection, told: Snapshot, parsed: Mapping[str, Document], now: float
) -> None:
    """What it names, beside what is here; its tags win. `parsed`: its manifests, by digest."""
    for name, repository in told.repositories.items():
        ident = index.made(connection, name)
        for kept in repository.manifests:
            document = parsed[kept.digest]
            row = (ident, kept.digest, document.media_type, document.subject, document.artifact_type,
                   msgspec.json.encode(document.descriptor), kept.data)  # fmt: skip
            connection.execute("INSERT OR IGNORE INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            holds = [(ident, digest, kept.digest) for digest in (*document.blobs, *document.manifests)]
            connection.executemany("INSERT OR IGNORE INTO holds VALUES (?, ?, ?)", holds)
        links = [(ident, digest, now) for digest in repository.blobs]
        connection.executemany("INSERT OR IGNORE INTO links VALUES (?, ?, ?)", links)
        tags = [(ident, tag, digest) for tag, digest in repository.tags.items()]
        connection.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?, ?)", tags)


def came_back(index: Index, digest: str) -> bool:
    """Its verified file has its name; False where nobody waits for it any more."""
    with index.change() as connection:
        connection.execute(
            "INSERT OR REPLACE INTO blobs SELECT digest, size FROM lost WHERE digest = ?", (digest,)
        )
        return connection.execute("DELETE FROM lost WHERE digest = ?", (digest,)).rowcount > 0
