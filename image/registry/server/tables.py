"""The tables of a registry's index. Pure.

Invariant: a release only adds to them, so that the one before it still reads the file: its `user_version` is
that of the tables which both know.
"""

from __future__ import annotations

SCHEMA = 1
# Columns in the order of their primary key: else quick_check of some SQLite (3.40) finds NULLs that are none.
TABLES = """
CREATE TABLE repositories (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE links (repository INTEGER NOT NULL, digest TEXT NOT NULL, touched REAL NOT NULL,
    PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE INDEX links_of_blob ON links (digest);
CREATE TABLE manifests (repository INTEGER NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL,
    subject TEXT NOT NULL, artifact_type TEXT NOT NULL, descriptor BLOB NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (repository, digest));
CREATE INDEX referrers ON manifests (repository, subject, digest) WHERE subject != '';
CREATE TABLE holds (repository INTEGER NOT NULL, digest TEXT NOT NULL, manifest TEXT NOT NULL,
    PRIMARY KEY (repository, digest, manifest)) WITHOUT ROWID;
CREATE INDEX holds_of_manifest ON holds (repository, manifest);
CREATE TABLE tags (repository INTEGER NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (repository, name)) WITHOUT ROWID;
CREATE INDEX tags_of_manifest ON tags (repository, digest);
CREATE TABLE uploads (id TEXT PRIMARY KEY, repository TEXT NOT NULL, started REAL NOT NULL) WITHOUT ROWID;
"""

_COUNTED = [
    (f"{table}_{act}", f"{act.upper()} ON {table}", f" WHEN NOT EXISTS {same}" if table == "blobs" else "")
    for table in ("manifests", "tags", "blobs")
    for act, same in (
        ("insert", "(SELECT 1 FROM lost WHERE digest = NEW.digest)"),
        ("delete", "(SELECT 1 FROM lost WHERE digest = OLD.digest)"),
    )
]
ADDED = (
    # What this content is a state of: `lineage` is made each time that it is opened, `generation` counts its
    # changes, up to `began` there is nothing in it but what other lineages brought.
    "CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "INSERT OR IGNORE INTO state VALUES ('generation', 0), ('began', 0),"
    " ('lineage', lower(hex(randomblob(16))))",
    # Others that this content has in it, each up to which generation, and whether that adds to the rest.
    "CREATE TABLE IF NOT EXISTS lineages (id TEXT PRIMARY KEY, generation INTEGER NOT NULL,"
    " adds INTEGER NOT NULL) WITHOUT ROWID",
    # Blobs that repositories still link to, and of which no whole file is here.
    "CREATE TABLE IF NOT EXISTS lost (digest TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID",
    # That a blob is lost or has come back is no change of what there is: else a disk that lost many would
    # pass for newer than its copies.
    *(
        f"CREATE TRIGGER IF NOT EXISTS count_{name} AFTER {what}{when} BEGIN"  # noqa: S608 (tables of ours)
        " UPDATE state SET value = value + 1 WHERE key = 'generation'; END"
        for name, what, when in _COUNTED
    ),
)
"""Since then; made where they are missing."""
