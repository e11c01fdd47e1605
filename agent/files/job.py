"""What a process that works on a container's files is told, and what it tells at its end. Pure."""

from __future__ import annotations

from typing import Literal

from image.layertar import Changed
from model.containerfiles import PathStat
from model.errors import ErrorBody
from model.spec import Struct


class Bound(Struct):
    """A host's directory or file that a container has at `target`."""

    source: str
    target: str
    read_only: bool = False


class Place(Struct):
    """A container's root: of the process `pid`, whose cgroup is that of `container`, with all that is mounted
    there; or, where none runs, a mounted `folder` with `mounts` put into it, for one process's eyes alone."""

    container: str
    name: str
    """For messages."""
    pid: int = 0
    folder: str = ""
    mounts: tuple[Bound, ...] = ()
    read_only: bool = False
    """Its root is, though the `folder` is not."""


class Job(Struct):
    """`verb`: `stat` tells of a path; `get` writes a path as a tar, `tree` the whole root as one; `put` reads
    a tar into the directory `path`; `changes` writes lines of JSON, each a `model.api.Change`."""

    verb: Literal["stat", "get", "put", "tree", "changes"]
    place: Place
    path: str = "/"
    under: str = ""
    """`tree`: as if the root were this folder."""
    replace: bool = False
    """`put`: a file may take a directory's place, and a directory a file's."""
    changed: Changed | None = None
    lower: tuple[str, ...] = ()
    """`changes`: directories of the layers below, top first."""


class Result(Struct):
    """The last line on stderr."""

    stat: PathStat | None = None
    error: ErrorBody | None = None
