"""Files of a build context as objects by digest: a tree lists one directory, a blob is one file. Pure.

The idea is that of a Merkle tree (as git's, or the Remote Execution API's input root): who has an object has
all that it names, once it has been given. `key` leaves times out, so that it is what the build cache goes by
(Docker's rule: content and attributes count, mtime does not). Names of one file are told by numbers, never
by paths, so that none has to be believed. Invariant: equal directories have equal digests, whoever made them;
entries are sorted by name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Annotated, Literal

import msgspec

from model.codec import UNREADABLE
from model.errors import Damaged
from model.spec import Struct

MAX_TREE = 64 << 20
"""Bytes of one tree object."""
MAX_ENTRIES = 1_000_000
"""Of one directory: so many are believed before any of them is read."""
MAX_DEPTH = 512
MAX_SIZE = 1 << 62
"""Of a file in bytes, and of a time in nanoseconds either way: years 1823 to 2116."""
MAX_TARGET = 4096
MAX_GROUP = 1 << 31
MAX_XATTR = 64 << 10
PREFIX = "sha256:"
CAPABILITY = "security.capability"
"""The one extended attribute that a context has, as Docker's."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")

Kind = Literal["file", "tree", "link", "fifo"]


class Entry(Struct):
    """Names are bytes: a file system's names need not be UTF-8. Owners are not told: in a build all is
    root's. Sockets and devices are left out of contexts."""

    name: bytes
    kind: Kind = "file"
    mode: int = 0o644
    """Permissions, with setuid, setgid and sticky."""
    size: int = 0
    mtime_ns: int = 0
    digest: str = ""
    """Of a file's content or of the tree object."""
    key: str = ""
    """Of a tree: see above. Empty of anything else."""
    target: bytes = b""
    """Of a link."""
    xattrs: Mapping[str, bytes] = {}
    group: int = 0
    """Of a file with several names in the context: one of equal digest and number is the same (`grouped`). 0:
    it has no other."""

    @property
    def same(self) -> tuple[str, int, int, int] | None:
        """Equal for names of one file; attributes are part of it, as whoever made the tree may lie."""
        return (self.digest, self.group, self.mode, self.mtime_ns) if self.group else None


class Tree(Struct):
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=MAX_ENTRIES)] = ()


def grouped(names: Iterable[tuple[bytes, str, Hashable]]) -> dict[bytes, int]:
    """`Entry.group` of paths that share a file, of (path, digest, which file): files of one content are
    numbered from 1 by their first path. A path that is alone has none."""
    files: dict[tuple[str, Hashable], list[bytes]] = {}
    for path, digest, file in names:
        files.setdefault((digest, file), []).append(path)
    found: dict[bytes, int] = {}
    last: dict[str, int] = {}
    for _, digest, paths in sorted((min(p), d, p) for (d, _), p in files.items() if len(p) > 1):
        last[digest] = last.get(digest, 0) + 1
        found.update(dict.fromkeys(paths, last[digest]))
    return found


def encode(tree: Tree) -> bytes:
    return msgspec.msgpack.encode(tree)


class Delta(Struct):
    """From one tree to another."""

    entries: tuple[Entry, ...] = ()
    """New ones, and those that are not as they were."""
    gone: tuple[bytes, ...] = ()


def delta(base: Tree, tree: Tree) -> bytes:
    """What makes `tree` of `base`: of a large directory with few changes it is small."""
    old = {entry.name: entry for entry in base.entries}
    new = {entry.name for entry in tree.entries}
    changed = tuple(entry for entry in tree.entries if old.get(entry.name) != entry)
    return msgspec.msgpack.encode(Delta(entries=changed, gone=tuple(name for name in old if name not in new)))


def patched(base: Tree, data: bytes) -> bytes:
    """The encoded tree that a delta makes of its base; whether it is the right one, its digest tells. Raises
    Damaged."""
    try:
        change = msgspec.msgpack.decode(data, type=Delta)
    except UNREADABLE as error:
        raise Damaged(f"a tree of the build context can't be read: {error}") from error
    entries = {entry.name: entry for entry in base.entries} | {entry.name: entry for entry in change.entries}
    for name in change.gone:
        entries.pop(name, None)
    return encode(Tree(entries=tuple(entries[name] for name in sorted(entries))))


def digest_of(data: bytes) -> str:
    return PREFIX + hashlib.sha256(data).hexdigest()


def decode(data: bytes) -> Tree:
    """Raises Damaged for what is no tree, names that could lead out of it, and attributes that can't be."""
    try:
        tree = msgspec.msgpack.decode(data, type=Tree)
    except UNREADABLE as error:
        raise Damaged(f"a tree of the build context can't be read: {error}") from error
    previous = b""
    for entry in tree.entries:
        name = entry.name
        if not name or name in (b".", b"..") or b"/" in name or b"\0" in name or len(name) > 255:
            raise Damaged(f"a tree of the build context has a name that can't be: {name[:80]!r}")
        if name <= previous:
            raise Damaged("a tree of the build context is not in order")
        previous = name
        if not _is_sound(entry):
            raise Damaged(f"a tree of the build context says what can't be of {name[:80]!r}")
    return tree


def _is_sound(entry: Entry) -> bool:
    named, tree = entry.kind in ("file", "tree"), entry.kind == "tree"
    return (
        0 <= entry.mode <= 0o7777
        and 0 <= entry.size < MAX_SIZE
        and -MAX_SIZE <= entry.mtime_ns <= MAX_SIZE
        and (entry.kind == "file" or not (entry.size or entry.group))
        and 0 <= entry.group < MAX_GROUP
        and (_DIGEST.match(entry.digest) is not None if named else not entry.digest)
        and (_DIGEST.match(entry.key) is not None if tree else not entry.key)
        and (0 < len(entry.target) <= MAX_TARGET and b"\0" not in entry.target) == (entry.kind == "link")
        and all(key == CAPABILITY and len(value) <= MAX_XATTR for key, value in entry.xattrs.items())
    )


def key_of(tree: Tree) -> str:
    """What the cache goes by: all but times."""
    hasher = hashlib.sha256()
    for entry in tree.entries:
        part: tuple[object, ...] = (
            entry.name,
            entry.kind,
            entry.mode if entry.kind != "link" else 0,
            entry.key or entry.digest,
            entry.target,
            sorted(entry.xattrs.items()),
        )
        part += (entry.group,) if entry.group else ()
        hasher.update(msgspec.msgpack.encode(part))
    return PREFIX + hasher.hexdigest()
