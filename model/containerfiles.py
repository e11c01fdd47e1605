"""What is asked and told of a container's files: `cp`, `diff`, `commit`. Pure."""

from __future__ import annotations

from typing import Literal

from model.spec import Struct


class PathStat(Struct):
    """A path in a container, its last part not followed when it is a link."""

    name: str
    size: int = 0
    mode: int = 0
    """Kind and permissions, as `st_mode`."""
    mtime: float = 0.0
    link_target: str = ""
    """Of a link: where it leads in the container in the end, an absolute path."""


class Change(Struct):
    """What a container has that its image has not: `A`dded, `C`hanged, `D`eleted."""

    kind: Literal["A", "C", "D"]
    path: str


class CommitRequest(Struct):
    """`changes` are Dockerfile instructions, as of an import."""

    ref: str = ""
    author: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    pause: bool = True
    """Nothing runs in the container while it is read."""
