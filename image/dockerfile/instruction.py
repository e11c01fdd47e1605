"""The instructions of a Dockerfile as values: what was written, variables not yet expanded. Pure.

The source is Docker's Dockerfile reference. Invariant: an instruction is well-formed in itself; whether the
stages and variables that it names exist is the graph's question (`image.build.graph`).
"""

from __future__ import annotations

from typing import Literal

from model.spec import HealthCheck, Struct


class Spot(Struct):
    """A place in a Dockerfile, counted from 1."""

    line: int
    column: int = 1


class Heredoc(Struct):
    """`<<NAME`; `expand`: its name stood without quotes; `chomp`: `<<-`, tabs before lines are gone."""

    name: str
    content: str
    expand: bool = True
    chomp: bool = False
    fd: int = 0
    """`3<<NAME`; 0: none was written."""


class Instruction(Struct):
    """`source` is the whole instruction on one line, continuations joined, as history shows it; `lines` the
    first and last line of it. `trigger`: it comes from an ONBUILD of the base."""

    source: str
    spot: Spot
    last_line: int = 0
    trigger: bool = False
    comments: tuple[str, ...] = ()
    """That stand right before it, without their #: descriptions, and `check=skip=…`."""


class Command(Struct):
    """Exec form: `words` as they are. Shell form: `text`, given to the stage's SHELL."""

    words: tuple[str, ...] = ()
    text: str = ""
    shell: bool = False
    heredocs: tuple[Heredoc, ...] = ()
    """Of RUN. With a `text` of the first's mark alone, its content is the script."""


class From(Instruction, tag="FROM", kw_only=True):
    image: str
    """May be the name of an earlier stage, or `scratch`."""
    name: str = ""
    """Lower case."""
    platform: str = ""


class Mount(Struct):
    """RUN --mount. Fields may hold variables where the reference allows them (`source`, `target`, `from`,
    `id`)."""

    kind: Literal["bind", "cache", "tmpfs", "secret", "ssh"] = "bind"
    target: str = ""
    source: str = ""
    origin: str = ""
    """`from`: a stage, an image or a named context; empty: the main context (of a cache: an empty folder)."""
    ident: str = ""
    read_only: bool | None = None
    """None: the kind's default."""
    sharing: Literal["shared", "private", "locked"] = "shared"
    required: bool = False
    env: str = ""
    """Of a secret: the variable that gets it."""
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int = 0
    """Of a tmpfs, bytes."""
    text: str = ""
    """The whole mount as written, if any of its fields holds a variable: what it comes to is then
    `image.dockerfile.mounts.parsed(text, expand)`."""


class Run(Instruction, tag="RUN", kw_only=True):
    command: Command
    mounts: tuple[Mount, ...] = ()
    network: Literal["", "default", "none", "host"] = ""
    security: Literal["", "sandbox", "insecure"] = ""
    devices: tuple[str, ...] = ()


class Copy(Instruction, tag="COPY", kw_only=True):
    """`heredocs` are sources of their own, named as they are written, after `sources`."""

    sources: tuple[str, ...]
    target: str
    heredocs: tuple[Heredoc, ...] = ()
    origin: str = ""
    """`--from`."""
    owner: str = ""
    """`--chown`."""
    mode: str = ""
    """`--chmod`, octal or symbolic."""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


class Add(Copy, tag="ADD", kw_only=True):
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None
    """None: local archives are unpacked, those of URLs are not."""


class Pair(Struct):
    key: str
    value: str


class Env(Instruction, tag="ENV", kw_only=True):
    pairs: tuple[Pair, ...]
    old_form: bool = False
    """`ENV key the value`."""


class Label(Instruction, tag="LABEL", kw_only=True):
    pairs: tuple[Pair, ...]
    old_form: bool = False


class ArgPair(Struct):
    key: str
    value: str | None = None
    """None: no default."""


class Arg(Instruction, tag="ARG", kw_only=True):
    args: tuple[ArgPair, ...]


class Cmd(Instruction, tag="CMD", kw_only=True):
    command: Command


class Entrypoint(Instruction, tag="ENTRYPOINT", kw_only=True):
    command: Command


class Expose(Instruction, tag="EXPOSE", kw_only=True):
    ports: tuple[str, ...]
    """Sorted, as history shows them; what a word comes to is `image.dockerfile.fields.ports`."""


class Volume(Instruction, tag="VOLUME", kw_only=True):
    paths: tuple[str, ...]


class User(Instruction, tag="USER", kw_only=True):
    user: str


class Workdir(Instruction, tag="WORKDIR", kw_only=True):
    path: str


class StopSignal(Instruction, tag="STOPSIGNAL", kw_only=True):
    signal: str


class Shell(Instruction, tag="SHELL", kw_only=True):
    words: tuple[str, ...]


class Maintainer(Instruction, tag="MAINTAINER", kw_only=True):
    name: str


class Onbuild(Instruction, tag="ONBUILD", kw_only=True):
    """The trigger is checked here, and parsed again where it fires."""

    expression: str


class Healthcheck(Instruction, tag="HEALTHCHECK", kw_only=True):
    """`check.disabled`: NONE. Of a shell form the probe's command is text, of the stage's SHELL."""

    check: HealthCheck
    command: Command | None = None


AnyInstruction = (
    Run
    | Copy
    | Add
    | Env
    | Label
    | Arg
    | Cmd
    | Entrypoint
    | Expose
    | Volume
    | User
    | Workdir
    | StopSignal
    | Shell
    | Maintainer
    | Onbuild
    | Healthcheck
)


class Stage(Struct):
    """FROM and what follows to the next FROM."""

    head: From
    instructions: tuple[AnyInstruction, ...] = ()


class Warned(Struct):
    """A finding that stops nothing. `code` is in CamelCase, Docker's where it has one."""

    code: str
    message: str
    spot: Spot
    hint: str = ""


class Dockerfile(Struct):
    stages: tuple[Stage, ...]
    args: tuple[Arg, ...] = ()
    """Before the first FROM."""
    escape: str = "\\"
    syntax: str = ""
    """Of `# syntax=`; nothing is run for it."""
    check: str = ""
    """Of `# check=`."""
    warnings: tuple[Warned, ...] = ()
