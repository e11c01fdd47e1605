"""A folder as tree objects: one walk from its top, by the ignore rules and the wish.

No link is followed and nothing but regular files is opened. Files are hashed in threads, those that are as
the cache knows them not at all; a directory in which nothing changed keeps its tree object. Sockets and
devices are left out with a warning; what vanishes meanwhile was not there. Blocking; runs in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from image.context import scancache
from image.context.follow import OpenFolder, followed
from image.context.reading import read_all
from image.context.scancache import Known
from image.context.walk import MAX_FILES, Walk
from image.context.wish import EVERYTHING, wish_of
from image.dockerfile.ignore import Ignore
from model.contexttree import decode, delta, digest_of
from model.errors import Forbidden, NotFound

_GROUP = 64


class Scan:
    """The outcome: `root` is the digest of the root's tree."""

    def __init__(self, folders: dict[bytes, Known], warnings: Sequence[str], read: int) -> None:
        self.root = folders[b""].digest
        self.files, self.size = folders[b""].totals
        self.warnings = tuple(warnings)
        self.read = read
        """Entries that had to be read."""
        self._folders = folders
        self._trees: dict[str, bytes] | None = None
        self._paths: dict[str, tuple[bytes, int]] | None = None
        self._changed: dict[str, Known] | None = None

    def tree(self, digest: str) -> bytes | None:
        if self._trees is None:
            self._trees = {known.digest: known.tree for known in self._folders.values()}
        return self._trees.get(digest)

    def delta(self, digest: str) -> tuple[str, bytes] | None:
        """Of a large tree: (base, delta) to the one that was in its place before, if that is the less to
        send."""
        if self._changed is None:
            self._changed = {known.digest: known for known in self._folders.values() if known.before}
        known = self._changed.get(digest)
        if known is None:
            return None
        change = delta(decode(known.before), decode(known.tree))
        return (digest_of(known.before), change) if len(change) * 2 < len(known.tree) else None

    def file(self, digest: str) -> tuple[bytes, int] | None:
        """Path from the top, and size, of a file with that content."""
        if self._paths is None:
            self._paths = {
                entry.digest: (folder + b"/" + entry.name if folder else entry.name, entry.size)
                for folder, known in self._folders.items()
                for entry in decode(known.tree).entries
                if entry.kind == "file"
            }
        return self._paths.get(digest)


class Scanner:
    """Of one folder. `cache`: where what is known of it is kept between runs; empty: nowhere. `most`: so many
    files are taken."""

    def __init__(
        self,
        top: str,
        *,
        ignore: Ignore | None = None,
        cache: str = "",
        workers: int = 0,
        most: int = MAX_FILES,
    ) -> None:
        self.top = os.path.realpath(top)
        self._name = top
        self._ignore = ignore
        self._cache = cache
        self._workers = workers or min(8, (os.cpu_count() or 1) + 1)
        self._most = most
        self._known: dict[bytes, Known] | None = None

    def scan(self, paths: Sequence[str] = ()) -> Scan:
        """Of what the sources `paths` name; none: of all. Raises NotFound, Forbidden, InvalidInput,
        Exhausted."""
        if self._known is None:
            self._known = scancache.load(self._cache, os.fsencode(self.top)) if self._cache else {}
        fd = self._open()
        try:
            wish = wish_of(followed(OpenFolder(fd), paths)) if paths else EVERYTHING
            walk = Walk(self._ignore, self._known, self._most)
            walk.run(fd, wish)
            self._read(fd, walk)
        finally:
            os.close(fd)
        folders = walk.finish()
        if walk.changed:
            self._remember(folders if wish.everything else {**self._known, **folders})
        return Scan(folders, walk.warnings, len(walk.unknown))

    def forget(self, path: bytes) -> None:
        """What is known of a file is wrong: it is read again next time, with others of its folder."""
        if self._known is not None:
            self._known.pop(path.rpartition(b"/")[0], None)

    def _open(self) -> int:
        try:
            return os.open(self.top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"the build context {self._name!r} is no folder: {error.strerror}") from error
        except OSError as error:
            raise Forbidden(f"the build context {self._name!r} can't be read: {error.strerror}") from error

    def _read(self, fd: int, walk: Walk) -> None:
        wanted = [(path, row) for _, path, row in walk.unknown]
        groups = [wanted[start : start + _GROUP] for start in range(0, len(wanted), _GROUP)]
        if len(groups) < 2:
            walk.heard(read_all(fd, wanted))
            return
        from concurrent.futures import ThreadPoolExecutor  # most scans need none

        with ThreadPoolExecutor(self._workers) as pool:
            try:
                found = pool.map(lambda group: read_all(fd, group), groups)
                walk.heard([one for group in found for one in group])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _remember(self, folders: dict[bytes, Known]) -> None:
        self._known = folders
        if self._cache:
            try:
                scancache.save(self._cache, os.fsencode(self.top), folders)
            except OSError:
                self._cache = ""  # it is for speed alone; without it all is read each time
