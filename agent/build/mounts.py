"""What the mounts of a RUN come to: defaults filled in, targets absolute, what can't be is refused. Pure.

The source is Docker's Dockerfile reference (RUN --mount). Invariants: each target once, none that hides what
the container is made of; an id never becomes a path.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Sequence

from image.build.step import PlacedMount
from image.dockerfile.instruction import Mount
from model.errors import InvalidInput
from model.spec import Struct

MOST = 200
"""Mounts of one RUN."""
MAX_SECRET = 500 << 10
"""Bytes, as Docker's."""
SECRETS, AGENTS = "/run/secrets", "/run/buildkit/ssh_agent"
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_OURS = ("/proc", "/sys")
"""Nothing is mounted there or below."""


class Wanted(Struct):
    """One mount. `index`: its number among those of the step. `target` is empty where a secret is a variable
    alone; `source` is absolute, in the files that it is from."""

    index: int
    mount: Mount
    target: str
    source: str = "/"
    ident: str = ""
    read_only: bool = False

    @property
    def uid(self) -> int:
        return self.mount.uid or 0

    @property
    def gid(self) -> int:
        return self.mount.gid or 0

    def mode(self, default: int) -> int:
        return default if self.mount.mode is None else self.mount.mode & 0o7777


def wanted(placed: Sequence[PlacedMount], workdir: str) -> tuple[Wanted, ...]:
    """In the order written. Raises InvalidInput."""
    if len(placed) > MOST:
        raise InvalidInput(f"RUN has {len(placed)} mounts: {MOST} at most")
    made = tuple(_wanted(index, one.mount, workdir) for index, one in enumerate(placed))
    targets: set[str] = set()
    for one in made:
        if one.target in targets:
            raise InvalidInput(f"duplicate mount point: {one.target}")
        if one.target:
            targets.add(one.target)
    return made


def _wanted(index: int, mount: Mount, workdir: str) -> Wanted:
    target, ident = mount.target, mount.ident
    if mount.kind == "secret":
        target, ident = _secret(mount)
    elif mount.kind == "ssh":
        target, ident = target or f"{AGENTS}.{index}", ident or "default"
    if target or mount.kind != "secret":
        target = _target(target, workdir, mount.kind)
    if mount.kind == "cache":
        ident = ident or target
    if any(not 0 <= number < 1 << 31 for number in (mount.uid or 0, mount.gid or 0)):
        raise InvalidInput(f"mount of type {mount.kind}: uid and gid are 0 to {(1 << 31) - 1}")
    if mount.size < 0:
        raise InvalidInput(f"mount at {target}: its size is negative")
    read_only = mount.kind == "bind" if mount.read_only is None else mount.read_only
    return Wanted(
        index=index,
        mount=mount,
        target=target,
        source=_source(mount.source),
        ident=ident,
        read_only=read_only,
    )


def _secret(mount: Mount) -> tuple[str, str]:
    """(target, id)."""
    if mount.env and not _ENV.match(mount.env):
        raise InvalidInput(f"secret: {mount.env[:60]!r} is no name of a variable")
    ident = mount.source or mount.ident or posixpath.basename(mount.target)
    if not ident:
        raise InvalidInput("secret: it has neither an id nor a target", hint="Write id=NAME")
    name = posixpath.basename(ident)
    if mount.target or mount.env:
        return mount.target, ident
    if name in ("", ".", ".."):
        raise InvalidInput(
            f"secret {ident[:60]!r}: the id is no name of a file", hint="Write target=PATH too"
        )
    return f"{SECRETS}/{name}", ident


def _target(target: str, workdir: str, kind: str) -> str:
    if not target:
        raise InvalidInput(f"mount of type {kind}: it has no target", hint="Write target=PATH")
    if "\0" in target:
        raise InvalidInput(f"mount of type {kind}: its target has a NUL byte")
    path = posixpath.normpath(posixpath.join("/", workdir, target))
    path = "/" + path.lstrip("/")
    if path == "/":
        raise InvalidInput(f"invalid mount target {target[:80]!r}: it is the root itself")
    check_place(path, target)
    return path


def check_place(path: str, target: str) -> None:
    """Where a target leads, links followed. Raises InvalidInput for what the container itself has there."""
    if path in ("/", "/dev") or any(path == ours or path.startswith(f"{ours}/") for ours in _OURS):
        raise InvalidInput(f"invalid mount target {target[:80]!r}: nothing can be mounted on {path[:80]}")


def _source(source: str) -> str:
    if "\0" in source:
        raise InvalidInput("mount: its source has a NUL byte")
    return posixpath.normpath("/" + source.lstrip("/")) if source else "/"


def cache_key(one: Wanted, base: str) -> str:
    """Names the files of a cache. As in BuildKit, caches that begin differently are different ones: by owner,
    mode, and what is in them at first (`base`: which files those are of, empty for none)."""
    parts = (one.ident, str(one.uid), str(one.gid), f"{one.mode(0o755):o}", base, one.source if base else "")
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
