"""What a host lacks of a tree, level by level, and whether what it has is what the tree says.

Whoever sent a tree may have made it: it names sizes and keys of other objects, and the cache of the fleet
goes by keys. Invariant: a tree counts as whole only when every entry below it is here, with the size and the
key that its parent claims, and all together keep to the limits, however often one tree stands in it.
"""

from __future__ import annotations

from typing import NamedTuple

from image.context.objects import Lease, Objects, Totals
from model.contexttree import MAX_DEPTH, Tree, key_of
from model.errors import Damaged, Exhausted

MAX_FILES = 1_000_000
MAX_BYTES = 256 << 30


class Lack(NamedTuple):
    """Digests to ask for, in the order in which they are met; none: all is here."""

    trees: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.trees or self.files)


def lacking(objects: Objects, lease: Lease, root: str) -> Lack:
    """What is here is held by the lease from now on. Raises Damaged, Exhausted. Blocking."""
    if lease.hold_root(root):
        return Lack()
    survey = _Survey(objects, lease)
    survey.run(root)
    lack = Lack(tuple(survey.trees), tuple(survey.files))
    if not lack:
        lease.holds(root, frozenset(survey.here))
    return lack


class _Open:
    """A tree on the way from the root, and how far its entries are looked at."""

    __slots__ = ("at", "depth", "digest", "size", "total", "tree", "whole")

    def __init__(self, digest: str, tree: Tree) -> None:
        self.digest = digest
        self.tree = tree
        self.at = 0
        self.whole = True
        self.total = 0
        self.size = 0
        self.depth = 1


class _Survey:
    def __init__(self, objects: Objects, lease: Lease) -> None:
        self._objects = objects
        self._lease = lease
        self.trees: dict[str, None] = {}
        self.files: dict[str, None] = {}
        self.here: set[str] = set()
        self._seen: dict[str, Totals | None] = {}
        """Trees looked at this time; None: something of it is missing."""
        self._looked = 0

    def run(self, root: str) -> None:
        path: list[_Open] = []
        self._enter(root, path)
        while path:
            here = path[-1]
            if here.at < len(here.tree.entries):
                entry = here.tree.entries[here.at]
                if entry.kind == "tree":
                    if entry.digest not in self._seen and self._enter(entry.digest, path):
                        continue  # this entry again once it is known
                    totals = self._seen[entry.digest]
                    if totals is None:
                        here.whole = False
                    else:
                        self._add(here, totals, entry.key)
                elif entry.kind == "file":
                    self._file(here, entry.digest, entry.size)
                here.at += 1
                continue
            path.pop()
            self._leave(here)

    def _enter(self, digest: str, path: list[_Open]) -> bool:
        """Whether there is anything to look at."""
        if len(path) >= MAX_DEPTH + 1:
            raise Damaged(f"the build context is deeper than {MAX_DEPTH} folders")
        if not self._lease.hold(digest):
            self.trees[digest] = None
            self._seen[digest] = None
            return False
        self.here.add(digest)
        tree = self._objects.tree(digest)
        self._looked += len(tree.entries)
        if self._looked > MAX_FILES:
            raise Exhausted(f"the build context has more than {MAX_FILES} files")
        path.append(_Open(digest, tree))
        return True

    def _add(self, here: _Open, totals: Totals, key: str) -> None:
        count, size, depth, real = totals
        if key != real:
            raise Damaged("a tree of the build context claims another key than its content has")
        here.total += count
        here.size += size
        here.depth = max(here.depth, depth + 1)

    def _file(self, here: _Open, digest: str, size: int) -> None:
        here.size += size
        if not self._lease.hold(digest):
            self.files[digest] = None
            here.whole = False
            return
        self.here.add(digest)
        if self._objects.size_of(digest) != size:
            raise Damaged("a tree of the build context claims another size than a file has")

    def _leave(self, here: _Open) -> None:
        total = here.total + len(here.tree.entries)
        if total > MAX_FILES or here.size > MAX_BYTES or here.depth > MAX_DEPTH + 1:
            raise Exhausted(
                f"the build context has more than {MAX_FILES} files, {MAX_BYTES} bytes or {MAX_DEPTH} levels"
            )
        if not here.whole:
            self._seen[here.digest] = None
            return
        known = self._objects.whole.get(here.digest)
        if known is None:
            known = Totals(total, here.size, here.depth, key_of(here.tree))
        self._seen[here.digest] = self._objects.whole[here.digest] = known
