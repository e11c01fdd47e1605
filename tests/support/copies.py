"""A root that COPY writes to, a context and other places that it takes from, and beside them a victim that
must stay as it is.

Everything goes through `image.build.copying.Copying`, in real processes with real roots.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from image.build.base import Chosen, RootSource, Source, TreeSource
from image.build.copying import Copying
from image.build.step import CopyStep, WorkdirStep
from model.contexttree import Entry, Tree, digest_of, encode, key_of

Wanted = Mapping[str, Any]
"""By path: bytes or text of a file, `Link`, `Fifo`, None for a directory; or one of these and a mode."""


class Link(str):
    pass


CONTEXT = {
    "a.txt": "aaa",
    "b.txt": ("bbb", 0o600),
    "run": ("#!", 0o4755),
    "link": Link("a.txt"),
    "sub": (None, 0o750),
    "sub/x": "xxx",
    "sub/inner/y": ("yyy", 0o400),
    "sub/away": Link("/etc/passwd"),
    "empty": None,
}
"""For tests: modes, links, what is empty."""


class Objects:
    """An object store on disk, as `image.context.objects` lays it out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, data: bytes) -> str:
        digest = digest_of(data)
        path = self.folder / "blobs" / digest[7:9] / digest[7:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return digest

    def tree(self, *entries: Entry) -> Entry:
        """An object of entries; what stands for it in another."""
        tree = Tree(entries=tuple(sorted(entries, key=lambda entry: entry.name)))
        return Entry(name=b"-", kind="tree", mode=0o755, digest=self.put(encode(tree)), key=key_of(tree))

    def of(self, folder: Path | bytes) -> Entry:
        """A real directory."""
        top = os.fsencode(folder)
        return self.tree(*(self._entry(top, name) for name in os.listdir(top)))

    def _entry(self, folder: bytes, name: bytes) -> Entry:
        path = os.path.join(folder, name)
        status = os.lstat(path)
        mode, mtime = stat.S_IMODE(status.st_mode), status.st_mtime_ns
        if stat.S_ISDIR(status.st_mode):
            below = self.of(path)
            return Entry(
                name=name, kind="tree", mode=mode, mtime_ns=mtime, digest=below.digest, key=below.key
            )
        if stat.S_ISLNK(status.st_mode):
            return Entry(name=name, kind="link", mtime_ns=mtime, target=os.readlink(path))
        if stat.S_ISFIFO(status.st_mode):
            return Entry(name=name, kind="fifo", mode=mode, mtime_ns=mtime)
        with open(path, "rb") as file:
            digest = self.put(file.read())
        xattrs = {key: os.getxattr(path, key) for key in os.listxattr(path)}
        return Entry(name=name, mode=mode, size=status.st_size, mtime_ns=mtime, digest=digest, xattrs=xattrs)


class CopyPlace:
    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "root"
        self.context = base / "context"
        self.stage = base / "stage"
        self.victim = base / "victim"
        for folder in (self.root, self.context, self.stage):
            folder.mkdir(mode=0o755)
        self.victim.mkdir(mode=0o750)
        for name, content in (("file", "untouched"), ("hello", "secret")):
            (self.victim / name).write_text(content)
            os.chmod(self.victim / name, 0o640)
        self.objects = Objects(base / "objects")
        self.objects.folder.mkdir()
        self.copying = Copying(str(self.objects.folder))
        self._before = self.census()

    def census(self) -> list[tuple[Any, ...]]:
        """The victim, by name, inode, mode, owner, links, times and content."""
        found = []
        for path in sorted([*self.victim.rglob("*"), self.victim]):
            s = os.lstat(path)
            content = path.read_bytes() if path.is_file() else sorted(os.listdir(path))
            found.append(
                (str(path), s.st_ino, s.st_mode, s.st_uid, s.st_nlink, s.st_mtime_ns, s.st_ctime_ns, content)
            )
        return found

    async def close(self) -> None:
        """Asserts that nothing of the victim changed, nor came into the root."""
        await self.copying.close()
        assert self.census() == self._before
        outside = {os.lstat(path).st_ino for path in (self.victim, *self.victim.iterdir())}
        for path in self.root.rglob("*"):
            assert os.lstat(path).st_ino not in outside
            if stat.S_ISREG(os.lstat(path).st_mode):
                assert path.stat().st_size > 1 << 20 or path.read_bytes() not in (b"untouched", b"secret")

    # -- files ----------------------------------------------------------------------------------------
    def has(self, folder: Path, files: Wanted) -> None:
        """Make them there."""
        for name, content in files.items():
            fill(folder / name, content)

    def of_context(self) -> TreeSource:
        return TreeSource(root=self.objects.of(self.context).digest)

    def of_stage(self) -> RootSource:
        return RootSource(path=str(self.stage))

    # -- steps ----------------------------------------------------------------------------------------
    async def choose(self, *sources: str, place: Source | None = None, **fields: Any) -> Chosen:
        step = CopyStep(sources=sources, target=fields.pop("target", "/"), **fields)
        return await self.copying.choose(step, [place or self.of_context()] * len(sources))

    async def copy(self, *sources: str, target: str, place: Source | None = None, **fields: Any) -> Chosen:
        """As a build does it: chosen, then copied."""
        step = CopyStep(sources=sources, target=target, **fields)
        places = [place or self.of_context()] * len(sources)
        chosen = await self.copying.choose(step, places)
        await self.copying.copy(str(self.root), step, places)
        return chosen

    async def add(self, *sources: str, target: str, **fields: Any) -> Chosen:
        return await self.copy(*sources, target=target, add=True, **fields)

    async def workdir(self, path: str, **fields: Any) -> bool:
        return await self.copying.workdir(str(self.root), WorkdirStep(path=path, **fields))

    def seen(self, folder: Path | None = None) -> dict[str, str]:
        """All in the root, by path: kind, mode, owner, and content or link."""
        top = folder or self.root
        return {str(path.relative_to(top)): told(path) for path in sorted(top.rglob("*"))}


def fill(path: Path, content: Any) -> None:
    mode = None
    if isinstance(content, tuple):
        content, mode = content
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.mkdir(exist_ok=True)
    elif isinstance(content, Link):
        path.symlink_to(content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if mode is not None:
        os.chmod(path, mode)


def told(path: Path) -> str:
    s = os.lstat(path)
    kind = {stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFREG: "f", stat.S_IFIFO: "p"}.get(
        stat.S_IFMT(s.st_mode), "?"
    )
    what = f"{kind} {stat.S_IMODE(s.st_mode):04o} {s.st_uid}:{s.st_gid}"
    if kind == "l":
        return f"l {s.st_uid}:{s.st_gid} {os.readlink(path)}"
    if kind == "f":
        data = path.read_bytes() if s.st_size < 1 << 16 else b""
        content = data.decode(errors="replace") if len(data) < 80 else hashlib.sha256(data).hexdigest()[:12]
        return f"{what} {content}"
    return what
