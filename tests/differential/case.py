"""A case of the differential test: one rule of the Dockerfile reference as a Dockerfile and its context.

Every builder that `knows` the rule builds it. All but those in `dissent` must come to the same image, flota
too; those in `dissent` must not (else the entry is out of date). `golden` and `config` are what the
reference itself says, and hold for all that agree: they are needed where no other builder knows the rule.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.differential.trees import Entry

CLASSIC, BUILDKIT, BUILDAH, FLOTA = "classic", "buildkit", "buildah", "flota"
ALL = (CLASSIC, BUILDKIT, BUILDAH)
DOCKER = (CLASSIC, BUILDKIT)
NONE = ()
BK = (BUILDKIT, BUILDAH)
STRIPS = "takes setuid and setgid away"
THEN = 981_173_106
"""Time of every context file, unless said otherwise: 2001-02-03 04:05:06 UTC."""
TREE = {"f": "1", "d/a": "2", "d/sub/b": "3", "e/a": "4"}
"""A context for cases that care for no other."""


# -- contexts -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class F:
    """A file. `mtime` in seconds; `xattrs` by full name."""

    content: bytes | str = ""
    mode: int = 0o644
    mtime: int = THEN
    owner: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class D:
    """A folder; only needed where it is empty or its mode matters."""

    mode: int = 0o755
    owner: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class L:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Hard:
    """Another name of a file of the context."""

    other: str


@dataclass(frozen=True)
class Fifo:
    pass


Item = F | D | L | Hard | Fifo | str | bytes
Context = Mapping[str, Item]


def write(context: Context, folder: Path) -> None:
    """The context's files on disk. Links come last, times and folders' modes at the very end."""
    folder.mkdir(parents=True, exist_ok=True)
    late: list[tuple[Path, D]] = []
    for name, item in sorted(context.items(), key=lambda pair: isinstance(pair[1], Hard)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match item:
            case str() | bytes():
                _file(path, F(item))
            case F():
                _file(path, item)
            case D():
                path.mkdir(exist_ok=True)
                late.append((path, item))
            case L():
                path.symlink_to(item.target)
                os.utime(path, (THEN, THEN), follow_symlinks=False)
            case Hard():
                os.link(folder / item.other, path)
            case Fifo():
                os.mkfifo(path)
    for path, item in late:
        os.chown(path, *item.owner)
        path.chmod(item.mode)


def _file(path: Path, item: F) -> None:
    path.write_bytes(item.content.encode() if isinstance(item.content, str) else item.content)
    os.chown(path, *item.owner)
    path.chmod(item.mode)
    for key, value in item.xattrs.items():
        os.setxattr(path, key, value)
    os.utime(path, (item.mtime, item.mtime))


def archive(compression: str = "", **members: Item) -> bytes:
    """A tar of `members`; `__` in a name is a slash. compression: empty, gz, bz2 or xz."""
    return tar_of({name.replace("__", "/"): item for name, item in members.items()}, compression)


def tar_of(members: Mapping[str, Item], compression: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for name, item in members.items():
            info = tarfile.TarInfo(name)
            info.mtime = THEN
            content = b""
            match item:
                case F():
                    content = item.content.encode() if isinstance(item.content, str) else item.content
                    info.mode, info.mtime = item.mode, item.mtime
                    info.uid, info.gid = item.owner
                case D():
                    info.type, info.mode = tarfile.DIRTYPE, item.mode
                    info.uid, info.gid = item.owner
                case L():
                    info.type, info.linkname = tarfile.SYMTYPE, item.target
                case Hard():
                    info.type, info.linkname = tarfile.LNKTYPE, item.other
                case Fifo():
                    info.type = tarfile.FIFOTYPE
                case _:
                    content = item.encode() if isinstance(item, str) else item
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# -- expected entries of a result ---------------------------------------------------------------------
def file(
    content: bytes | str = "",
    mode: int = 0o644,
    owner: tuple[int, int] = (0, 0),
    mtime: int | None = None,
    **xattrs: bytes,
) -> Entry:
    """`mtime` None: that of the build. Of xattrs, `__` is a dot."""
    data = content.encode() if isinstance(content, str) else content
    named = tuple(sorted((key.replace("__", "."), value) for key, value in xattrs.items()))
    return Entry("file", mode, *owner, data, named, mtime)


def copied(
    content: bytes | str = "", mode: int = 0o644, owner: tuple[int, int] = (0, 0), **xattrs: bytes
) -> Entry:
    """A file of the context: its time stays."""
    return file(content, mode, owner, THEN, **xattrs)


def folder(mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Entry:
    return Entry("dir", mode, *owner)


def link(target: str, owner: tuple[int, int] = (0, 0)) -> Entry:
    return Entry("link", 0o777, *owner, target.encode())


# -- cases --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Case:
    """`rule` in one line, of the reference. `before`: images made first by the same builder, name →
    Dockerfile, with the same context. `flags` go to every builder; `{{context}}` in them is the folder.
    `error`: words that flota's refusal says, in any case of letters; all that agree refuse it too.
    `quick`: part of the default run."""

    name: str
    rule: str
    dockerfile: str
    context: Context = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    knows: tuple[str, ...] = ALL
    dissent: Mapping[str, str] = field(default_factory=dict)
    golden: Mapping[str, Entry | None] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    error: tuple[str, ...] | None = None
    before: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, Context] = field(default_factory=dict)
    """Named contexts, as folders beside the main one: `{{name}}` in flags is such a folder."""
    file: str = "Dockerfile"
    quick: bool = False

    @property
    def agreeing(self) -> tuple[str, ...]:
        return tuple(builder for builder in self.knows if builder not in self.dissent)


def busybox(text: str) -> str:
    """A Dockerfile on the common base."""
    return f"FROM base:1\n{text}\n"
