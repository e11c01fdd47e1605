"""What a COPY takes its files from, as directories that can be looked into: a context's tree, or a mounted
root.

Links are followed by their letters, from the top of what is looked into, as if that were `/`: none leads out
of it (moby's FollowSymlinkInScope). Invariants: nothing here asks the kernel for more than one name at a
time; finding a path costs boundedly much, whatever links it leads through. Pure, but for what a `Folder`
does.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from model.errors import InvalidInput

Kind = Literal["file", "dir", "link", "fifo", "char", "block", "socket"]
MAX_LINKS = 255
"""That one path may lead through, as Docker."""
MAX_DEPTH = 512


class Item(NamedTuple):
    """One entry of a directory. `mode`: permissions with setuid, setgid and sticky."""

    kind: Kind
    mode: int = 0o755
    size: int = 0
    mtime_ns: int = 0
    uid: int = 0
    gid: int = 0
    target: bytes = b""
    device: int = 0
    digest: str = ""
    """Of a file's content or a tree object, where it is known."""
    key: str = ""
    """Of a tree: `model.contexttree.key_of`."""
    same: Hashable | None = None
    """Of a file with several names: which one it is."""


NO_TIME = -(1 << 63)
"""The time of what has none: a context's top."""


class Folder(Protocol):
    """An open directory."""

    @property
    def fd(self) -> int:
        """-1 for one of a tree."""
        ...

    def itself(self) -> Item: ...

    def names(self) -> Sequence[bytes]:
        """In order."""
        ...

    def item(self, name: bytes) -> Item | None: ...

    def enter(self, name: bytes) -> Folder:
        """A directory in it."""
        ...

    def open(self, name: bytes) -> int:
        """A regular file in it, for reading."""
        ...

    def xattrs(self, name: bytes, fd: int) -> Mapping[str, bytes]:
        """Of a file or directory in it that is open as `fd`."""
        ...

    def close(self) -> None: ...


class Found(NamedTuple):
    """`parts` lead to it without a link; none: it is the top."""

    parts: tuple[bytes, ...]
    item: Item


class Missing(Exception):
    """Nothing is at `part`; beside it are `names`. `file`: what should be a directory is none."""

    def __init__(self, part: bytes, names: Sequence[bytes], *, file: bool = False) -> None:
        super().__init__(part)
        self.part = part
        self.names = names
        self.file = file


def parts_of(path: bytes) -> list[bytes]:
    """Cleaned as Go's path.Join("/", path): no `..` leads above the top."""
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return parts


class _Trail:
    """The way from the top to where a search has come; folders are opened when something is looked up in
    them."""

    def __init__(self, top: Folder) -> None:
        self._open = [top]
        self.names: list[bytes] = []
        self._items = [top.itself()]

    @property
    def item(self) -> Item:
        return self._items[-1]

    def look(self, part: bytes) -> Item:
        """Raises Missing."""
        if self.item.kind != "dir":
            raise Missing(self.names[-1], (), file=True)
        while len(self._open) < len(self._items):
            self._open.append(self._open[-1].enter(self.names[len(self._open) - 1]))
        item = self._open[-1].item(part)
        if item is None:
            raise Missing(part, self._open[-1].names())
        return item

    def down(self, part: bytes, item: Item) -> None:
        self.names.append(part)
        self._items.append(item)

    def up(self) -> None:
        if self.names:
            if len(self._open) == len(self._items):
                self._open.pop().close()
            self.names.pop()
            self._items.pop()

    def close(self) -> None:
        for folder in self._open[1:]:
            folder.close()


def find(top: Folder, parts: Sequence[bytes]) -> Found:
    """Where they lead, links followed, the last part's too. Raises Missing; InvalidInput for links in a
    circle."""
    trail, rest, links = _Trail(top), list(reversed(parts)), 0
    try:
        while rest:
            part = rest.pop()
            if part == b"..":
                trail.up()
                continue
            item = trail.look(part)
            if item.kind != "link":
                trail.down(part, item)
                continue
            links += 1
            if links > MAX_LINKS:
                raise InvalidInput(f"{shown(b'/'.join(parts))}: its links lead in a circle")
            if item.target.startswith(b"/"):
                while trail.names:
                    trail.up()
            rest += [part for part in reversed(item.target.split(b"/")) if part not in (b"", b".")]
        return Found(tuple(trail.names), trail.item)
    finally:
        trail.close()


def descend(top: Folder, parts: Sequence[bytes]) -> Folder:
    """The folder that `parts` lead to without a link, to be closed by whoever asked, unless it is `top`."""
    here = top
    for part in parts:
        below = here.enter(part)
        if here is not top:
            here.close()
        here = below
    return here


def shown(path: bytes) -> str:
    """For people."""
    return path[:400].decode(errors="backslashreplace")
