"""Files of a context that comes as a stream, as a tree in memory, in any order, until its trees can be made.
Pure.

Names are taken as Docker takes a tar's: cleaned by their letters, then from the context's top through links
of the context itself; the last part of a name is never followed, the later of two entries stands, a folder
keeps what is in it. Invariants: nothing is above the top; what there is, and how long it is looked for, is
bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from msgspec.structs import replace

from image.context.wish import EVERYTHING, Wish
from model.contexttree import MAX_DEPTH, MAX_TARGET, Entry, Tree, digest_of, encode, grouped, key_of
from model.errors import Damaged, Exhausted

MAX_NODES = 1_000_000
MAX_LINKS = 40
MAX_LOOKED = 20_000_000
_DEFAULT = Entry(name=b"", kind="tree", mode=0o755)


class Node:
    """`children`: of a folder alone. `file`: of a file with several names, which one it is; else 0."""

    __slots__ = ("children", "entry", "file")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.file = 0
        self.children: dict[bytes, Node] = {}

    @property
    def is_folder(self) -> bool:
        return self.entry.kind == "tree"


class NodeFolder:
    """A folder of them, as `image.context.follow` looks into one."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def names(self) -> list[bytes]:
        return list(self._node.children)

    def target(self, name: bytes) -> bytes | None:
        child = self._node.children.get(name)
        return child.entry.target if child is not None and child.entry.kind == "link" else None

    def enter(self, name: bytes) -> NodeFolder:
        child = self._node.children.get(name)
        if child is None or not child.is_folder:
            raise NotADirectoryError
        return NodeFolder(child)

    def close(self) -> None:
        pass


class Nodes:
    def __init__(self) -> None:
        self.top = Node(_DEFAULT)
        self._count = 0
        self._looked = 0
        self._files = 0
        """That have several names."""

    def add(self, name: bytes, entry: Entry, file: int = 0) -> None:
        """`entry.name` is filled in here. Raises Damaged, Exhausted."""
        parts = cleaned(name)
        if not parts:
            if entry.kind != "tree":
                raise Damaged(f"{shown(name)} stands for the whole context and is a {entry.kind}")
            return
        folder = self._folder(parts[:-1], name)
        self._put(folder, parts[-1], entry).file = file

    def link(self, name: bytes, target: bytes) -> None:
        """A hard link. Raises Damaged."""
        parts = cleaned(target)
        found = self._folder(parts[:-1], target).children.get(parts[-1]) if parts else None
        if found is None or found.is_folder:
            raise Damaged(f"{shown(name)} is a hard link to {shown(target)}, which is no file before it")
        if not found.file and found.entry.kind == "file":
            self._files += 1
            found.file = self._files
        self.add(name, found.entry, found.file)

    def _put(self, folder: Node, name: bytes, entry: Entry) -> Node:
        entry = replace(entry, name=name)
        there = folder.children.get(name)
        if there is not None and there.is_folder and entry.kind == "tree":
            there.entry = entry
            return there
        self._count += there is None
        if self._count > MAX_NODES:
            raise Exhausted(f"the build context has more than {MAX_NODES} files")
        node = folder.children[name] = Node(entry)
        return node

    def _folder(self, parts: list[bytes], name: bytes) -> Node:
        """The folder of that path, made where it is missing."""
        path = [self.top]
        rest = parts[::-1]
        links = 0
        while rest:
            part = rest.pop()
            self._looked += 1
            if self._looked > MAX_LOOKED:
                raise Damaged("the build context has more and deeper folders than an honest one")
            if part == b"..":
                path = path[: max(1, len(path) - 1)]
                continue
            there = path[-1].children.get(part)
            if there is not None and there.entry.kind == "link":
                links += 1
                if links > MAX_LINKS:
                    raise Damaged(f"{shown(name)} is behind more than {MAX_LINKS} links")
                target = there.entry.target
                path = [self.top] if target.startswith(b"/") else path
                rest += [one for one in target.split(b"/")[::-1] if one not in (b"", b".")]
                continue
            if there is None or not there.is_folder:
                there = self._put(path[-1], part, _DEFAULT)
            path.append(there)
            if len(path) > MAX_DEPTH:
                raise Damaged(f"{shown(name)} is deeper than {MAX_DEPTH} folders")
        return path[-1]

    def made(self, keep: Callable[[str, bytes], object], wish: Wish = EVERYTHING) -> str:
        """The root's digest; `keep` gets each tree object (digest, bytes), those of folders before it."""
        groups = grouped(_shared(self.top, wish, b"")) if self._files else {}
        return _made(self.top, wish, keep, groups, b"").digest


def _shared(node: Node, wish: Wish, path: bytes) -> Iterator[tuple[bytes, str, int]]:
    """(path, digest, which file) of what has several names."""
    for name, child in node.children.items():
        below = wish.below(name)
        if below is None:
            continue
        if child.is_folder:
            yield from _shared(child, below, path + name + b"/")
        elif child.file:
            yield path + name, child.entry.digest, child.file


def _made(
    node: Node, wish: Wish, keep: Callable[[str, bytes], object], groups: Mapping[bytes, int], path: bytes
) -> Entry:
    """`path` ends with a slash."""
    entries: list[Entry] = []
    for name in sorted(node.children):
        child = node.children[name]
        below = wish.below(name)
        if below is None:
            continue
        if child.is_folder:
            entries.append(_made(child, below, keep, groups, path + name + b"/" if groups else b""))
        else:
            group = groups.get(path + name, 0) if child.file else 0
            entries.append(replace(child.entry, group=group) if group else child.entry)
    tree = Tree(entries=tuple(entries))
    data = encode(tree)
    digest = digest_of(data)
    keep(digest, data)
    return replace(node.entry, digest=digest, key=key_of(tree))


def cleaned(name: bytes) -> list[bytes]:
    """Its parts from the top. Raises Damaged for a name that leads out, or is too long."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not parts:
                raise Damaged(f"{shown(name)} leads out of the build context")
            parts.pop()
            continue
        if len(part) > 255:
            raise Damaged(f"{shown(name)} has a part of more than 255 bytes")
        parts.append(part)
    return parts


def checked_target(name: bytes, target: bytes) -> bytes:
    """A symbolic link's. Raises Damaged."""
    if not target or len(target) > MAX_TARGET:
        raise Damaged(f"{shown(name)} is a link to nothing, or to more than {MAX_TARGET} bytes")
    return target


def shown(name: bytes) -> str:
    return repr(name[:200].decode(errors="replace"))
