"""The walk of a scan: down through the folders for what is there, and up again for the trees of it.

Invariants: a directory's tree is a function of the rows of what is included of it and of its folders'
digests, so that whatever rules and wish chose them, equal rows and digests mean the tree that is known
already.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable

from msgspec.structs import replace

from image.context.reading import KINDS, clamped, shown, unreadable
from image.context.scancache import Known, Row
from image.context.wish import Wish
from image.dockerfile.ignore import Ignore
from image.dockerfile.patterns import Folder as Rules
from model.contexttree import MAX_DEPTH, Entry, Tree, decode, digest_of, encode, grouped, key_of
from model.errors import Exhausted, InvalidInput

MAX_FILES = 1_000_000
MAX_BYTES = 256 << 30
MAX_WARNINGS = 100
LARGE = 8192
"""Bytes of a tree from which on it is worth telling its changes alone."""
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
_ENCODING = sys.getfilesystemencoding()
_HINT = "Leave out what the build does not need by a .dockerignore file"


class _Folder:
    __slots__ = ("entries", "known", "path", "rows", "same", "subs")

    def __init__(self, path: bytes, known: Known | None) -> None:
        self.path = path
        self.known = known
        self.rows: list[Row] = []
        """Sorted, of all that is included."""
        self.subs: list[bytes] = []
        """Names of its folders, sorted."""
        self.same = False
        """Its rows are as they are known."""
        self.entries: dict[bytes, Entry] = {}
        """Of all but folders, if they are not, or are asked for (`_entries`)."""


class Walk:
    def __init__(self, ignore: Ignore | None, known: dict[bytes, Known], most: int) -> None:
        self._most = most
        self._ignore = ignore
        self._partial = False
        self._known = known
        self._folders: list[_Folder] = []
        """A parent before what is in it."""
        self._count = 0
        self._shared: dict[tuple[int, int], list[tuple[_Folder, bytes]]] = {}
        """Files with other names somewhere, by device and inode: folder and name."""
        self.unknown: list[tuple[_Folder, bytes, Row]] = []
        """What must be read: its folder, its path from the top."""
        self.warnings: list[str] = []
        self.changed = False

    def run(self, top: int, wish: Wish) -> None:
        """Raises Forbidden, InvalidInput, Exhausted."""
        self._partial = not wish.everything
        rules = self._ignore.root if self._ignore is not None else None
        self._enter(top, b"", wish, rules, depth=0)

    # -- down ---------------------------------------------------------------------------------------
    def _enter(self, fd: int, path: bytes, wish: Wish, rules: Rules | None, *, depth: int) -> bool:
        """Whether it is part of the context: one that the rules leave out only if something in it is."""
        if depth > MAX_DEPTH:
            raise InvalidInput(f"{shown(path)} is deeper than {MAX_DEPTH} folders", hint=_HINT)
        folder, place, before = _Folder(path, self._known.get(path)), len(self._folders), len(self.unknown)
        self._folders.append(folder)
        for name, row, below, inner in sorted(self._list(fd, folder, wish, rules), key=_first):
            child = _open(fd, name, path)
            if child < 0:
                continue
            try:
                there = self._enter(child, _join(path, name), below, inner, depth=depth + 1)
            finally:
                os.close(child)
            if there:
                folder.subs.append(name)
                folder.rows.append(row)
        if rules is not None and rules.matched and depth and not folder.rows:
            del self._folders[place:], self.unknown[before:]
            return False
        folder.rows.sort()
        self._compare(folder)
        return True

    def _list(
        self, fd: int, folder: _Folder, wish: Wish, rules: Rules | None
    ) -> list[tuple[bytes, Row, Wish, Rules | None]]:
        """Its folders, with what counts in them; all else that is included goes into its `rows`."""
        path, rows = folder.path, folder.rows
        folders: list[tuple[bytes, Row, Wish, Rules | None]] = []
        if rules is not None and rules.settled and not rules.matched:
            rules = None
        plain = rules is None and wish.everything
        try:
            entries = os.scandir(fd)
        except OSError as error:
            raise unreadable(path, error) from error
        with entries:
            for entry in entries:
                name = entry.name.encode(_ENCODING, "surrogateescape")
                below, inner = wish, rules
                if not plain:
                    chosen = wish.below(name)
                    if chosen is None:
                        continue
                    below = chosen
                    if rules is not None:
                        if entry.is_dir(follow_symlinks=False):
                            inner = rules.enter(entry.name)
                            if inner.matched and inner.settled:
                                continue
                        elif rules.matches(entry.name):
                            continue
                try:
                    s = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise unreadable(_join(path, name), error) from error
                mode = s.st_mode
                if mode & 0o170000 == 0o040000:
                    # its size and inode say nothing of what it is in the tree
                    folders.append((name, (name, mode, 0, s.st_mtime_ns, 0, 0, 0), below, inner))
                elif mode & 0o170000 in KINDS:
                    rows.append((name, mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev))
                    if s.st_nlink > 1 and mode & 0o170000 == 0o100000:
                        self._shared.setdefault((s.st_dev, s.st_ino), []).append((folder, name))
                else:
                    self._leave_out(_join(path, name), mode)
        self._count += len(rows) + len(folders)
        if self._count > self._most:
            raise Exhausted(f"the build context has more than {self._most} files", hint=_HINT)
        return folders

    def _leave_out(self, path: bytes, mode: int) -> None:
        what = "a socket" if stat.S_ISSOCK(mode) else "a device"
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(f"{shown(path)} is {what} and is left out of the build context")

    def _compare(self, folder: _Folder) -> None:
        """What of it must be read."""
        known = folder.known
        if known is not None and known.rows == folder.rows:
            folder.same = True
            return
        had = {} if known is None else _had(known)
        for row in folder.rows:
            if stat.S_ISDIR(row[1]):
                continue
            entry = had.get(row)
            if entry is not None:
                folder.entries[row[0]] = entry
                continue
            path = _join(folder.path, row[0])
            if row[2] > MAX_BYTES:
                raise Exhausted(f"{shown(path)} of the build context alone has {row[2]} bytes", hint=_HINT)
            self.unknown.append((folder, path, row))

    # -- up -----------------------------------------------------------------------------------------
    def heard(self, found: Iterable[tuple[Row, Entry] | None]) -> None:
        """What was read, in the order of `unknown`; None: it is gone."""
        fresh: dict[int, dict[bytes, Row | None]] = {}
        for (folder, _, row), one in zip(self.unknown, found, strict=True):
            rows = fresh.setdefault(id(folder), {})
            rows[row[0]] = None if one is None else one[0]
            if one is not None:
                folder.entries[row[0]] = one[1]
        for folder in self._folders:
            if id(folder) in fresh:
                new = fresh[id(folder)]
                folder.rows = [r for row in folder.rows if (r := new.get(row[0], row)) is not None]

    def finish(self) -> dict[bytes, Known]:
        """By path."""
        made: dict[bytes, Known] = {}
        groups = self._groups()
        for folder in reversed(self._folders):
            known, own = folder.known, groups.get(folder.path, {})
            children = [made[_join(folder.path, name)] for name in folder.subs]
            same = folder.same and known and known.groups == own
            if same and known and known.children == [child.digest for child in children]:
                made[folder.path] = known
                continue
            self.changed = True
            made[folder.path] = _made(
                folder,
                dict(zip(folder.subs, children, strict=True)),
                _others(folder) if self._partial else [],
                own,
            )
        if made[b""].totals[1] > MAX_BYTES:
            raise Exhausted(f"the build context has more than {MAX_BYTES} bytes", hint=_HINT)
        return made

    def _groups(self) -> dict[bytes, dict[bytes, int]]:
        """By folder and name, of files that have several of the names that are included."""
        found: dict[bytes, tuple[_Folder, bytes]] = {}
        told: list[tuple[bytes, str, tuple[int, int]]] = []
        rows: dict[bytes, dict[bytes, Row]] = {}
        for file, names in self._shared.items():
            for folder, name in names if len(names) > 1 else ():
                if folder.path not in rows:
                    rows[folder.path] = {row[0]: row for row in folder.rows}
                row = rows[folder.path].get(name)
                if row is None or (row[6], row[5]) != file:  # it went, or another took its place
                    continue
                path = _join(folder.path, name)
                found[path] = folder, name
                told.append((path, _entries(folder)[name].digest, file))
        groups: dict[bytes, dict[bytes, int]] = {}
        for path, number in grouped(told).items():
            folder, name = found[path]
            groups.setdefault(folder.path, {})[name] = number
        return groups


def _entries(folder: _Folder) -> dict[bytes, Entry]:
    """Of all but folders."""
    known = folder.known
    if folder.same and known is not None and not folder.entries:
        folder.entries = {entry.name: entry for entry in decode(known.tree).entries if entry.kind != "tree"}
    return folder.entries


def _made(
    folder: _Folder,
    children: dict[bytes, Known],
    others: list[tuple[Row, Entry]],
    groups: dict[bytes, int],
) -> Known:
    known, own = folder.known, _entries(folder)
    entries: list[Entry] = []
    for row in folder.rows:
        child = children.get(row[0])
        if child is None:
            entry, group = own[row[0]], groups.get(row[0], 0)
            entries.append(entry if entry.group == group else replace(entry, group=group))
        else:
            entries.append(
                Entry(
                    name=row[0],
                    kind="tree",
                    mode=stat.S_IMODE(row[1]),
                    mtime_ns=clamped(row[3]),
                    digest=child.digest,
                    key=child.key,
                )
            )
    tree = Tree(entries=tuple(entries))
    data = encode(tree)
    return Known(
        rows=folder.rows,
        children=[child.digest for child in children.values()],
        tree=data,
        digest=digest_of(data),
        key=key_of(tree),
        totals=(
            len(entries) + sum(child.totals[0] for child in children.values()),
            sum(entry.size for entry in entries) + sum(child.totals[1] for child in children.values()),
        ),
        others=others,
        before=known.tree if known is not None and len(known.tree) > LARGE else b"",
        groups=groups,
    )


def _others(folder: _Folder) -> list[tuple[Row, Entry]]:
    """What was known and is not asked for this time."""
    if folder.known is None:
        return []
    names = {row[0] for row in folder.rows}
    return [(row, entry) for row, entry in _had(folder.known).items() if row[0] not in names]


def _had(known: Known) -> dict[Row, Entry]:
    """Entries but folders, by what was seen of them."""
    by_name = {entry.name: entry for entry in decode(known.tree).entries if entry.kind != "tree"}
    rows = {row: by_name[row[0]] for row in known.rows if row[0] in by_name}
    return {**dict(known.others), **rows}


def _open(fd: int, name: bytes, path: bytes) -> int:
    """A folder; -1 when it is gone."""
    try:
        return os.open(name, _FLAGS, dir_fd=fd)
    except OSError as error:
        if error.errno in _GONE:
            return -1
        raise unreadable(_join(path, name), error) from error


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _first(sub: tuple[bytes, Row, Wish, Rules | None]) -> bytes:
    return sub[0]
