"""What a build does, as values: variables expanded, users and paths as written, origins resolved. Pure.

Steps change files; all else that a Dockerfile says only edits the image's configuration and becomes a line of
history. Invariant: a step's `definition` names all that decides its result but the files that it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from image.dockerfile.instruction import Heredoc, Mount, Spot
from model.spec import Resources, Struct


class FromContext(Struct, tag="context"):
    """A named context, or with an empty name the main one."""

    name: str = ""


class FromStage(Struct, tag="stage"):
    index: int


class FromImage(Struct, tag="image"):
    ref: str


Origin = FromContext | FromStage | FromImage


class PlacedMount(Struct):
    """A mount of RUN, and whose files it shows (None: none, as of tmpfs and secrets)."""

    mount: Mount
    origin: Origin | None = None


class RunStep(Struct, tag="run"):
    """`args` is what the process is started with, the stage's SHELL already before it."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    """`KEY=value`: of the stage, and of the ARGs that RUN sees."""
    proxies: tuple[str, ...] = ()
    """As `env`, of the predefined proxy arguments that no ARG names: the process has them, the cache and the
    history don't."""
    user: str = ""
    workdir: str = "/"
    script: Heredoc | None = None
    """A file that the process gets, executable, in a folder of its own; its path stands in `args` as
    `image.build.step.SCRIPT`."""
    mounts: tuple[PlacedMount, ...] = ()
    network: str = "default"
    insecure: bool = False
    devices: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    resources: Resources = Resources()
    shm_size: int = 0
    ulimits: Mapping[str, tuple[int, int]] = {}
    discarded: tuple[str, ...] = ()
    """Declared volumes: what is changed in them does not stay (`Work.keep` sees to it)."""
    latest: int | None = None
    """Unix seconds: times of files in the layer are no later (`rewrite-timestamp` of an output)."""
    spot: Spot = Spot(line=0)


SCRIPT = "/dev/pipes/EOF"
"""Stands in `RunStep.args` for the path of the script."""


class InlineFile(Struct):
    """A heredoc of COPY or ADD."""

    name: str
    content: bytes


class CopyStep(Struct, tag="copy"):
    """`target` is absolute, a trailing slash kept: it says that this is a directory. `sources` are as the
    Dockerfile says, expanded; of ADD they may be URLs and git repositories."""

    sources: tuple[str, ...]
    target: str
    origin: Origin = FromContext()
    inline: tuple[InlineFile, ...] = ()
    owner: str = ""
    mode: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    add: bool = False
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None
    epoch: int | None = None
    """SOURCE_DATE_EPOCH: times of what is made are no later."""
    latest: int | None = None
    spot: Spot = Spot(line=0)


class WorkdirStep(Struct, tag="workdir"):
    """Makes the folder, and those above, where they are not there."""

    path: str
    owner: str = ""
    epoch: int | None = None
    """As of CopyStep."""
    latest: int | None = None
    spot: Spot = Spot(line=0)


Step = RunStep | CopyStep | WorkdirStep
StepKind = Literal["run", "copy", "workdir"]


def kind_of(step: Step) -> StepKind:
    return "run" if isinstance(step, RunStep) else "copy" if isinstance(step, CopyStep) else "workdir"
