"""A stage from its first instruction to its last: variables expanded, the configuration edited, steps and
lines of history made. Pure.

Invariant: equal stages over equal configurations give equal steps, whoever builds them; what a step's process
gets but its cache must not see (proxies) stands apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from image.build import written
from image.build.graph import Node
from image.build.state import MAX_NAMES, edited, joined, with_shell
from image.build.step import (
    SCRIPT,
    CopyStep,
    FromContext,
    InlineFile,
    Origin,
    PlacedMount,
    RunStep,
    Step,
    WorkdirStep,
)
from image.build.variables import DEFAULT_PATH, Variables, env_of, is_proxy, with_env
from image.dockerfile import mounts
from image.dockerfile.faults import DockerfileFault, Mistake
from image.dockerfile.instruction import (
    Add,
    AnyInstruction,
    Arg,
    Cmd,
    Copy,
    Heredoc,
    Maintainer,
    Mount,
    Run,
    Spot,
    Workdir,
)
from image.manifest import MAX_LAYERS
from model.image import ImageConfig
from model.spec import Resources, Struct
from model.status import Platform

MAX_TEXT = 4 << 20
"""Bytes of one environment, one instruction's expansion."""
_MARK = re.compile(r"\d*<<-?\s*[\"']?[^\s<\"']+[\"']?\Z")


class Begin(Struct):
    """What a stage stands on. `args`: declared by the stage that it stands on, in order; None: no value."""

    config: ImageConfig = ImageConfig()
    platform: Platform = Platform()
    author: str = ""
    args: Mapping[str, str | None] = {}


class Wishes(Struct):
    """What of a request decides steps. `given`: arguments that an ARG without a default takes over."""

    args: Mapping[str, str] = {}
    given: Mapping[str, str] = {}
    network: str = ""
    allow: frozenset[str] = frozenset()
    hosts: tuple[str, ...] = ()
    resources: Resources = Resources()
    shm_size: int = 0
    ulimits: Mapping[str, tuple[int, int]] = {}
    epoch: int | None = None
    rewrites: bool = False
    """Files' times are to be no later than the epoch."""
    latest: int | None = None
    """See `RunStep.latest`."""
    escape: str = "\\"
    file: str = "Dockerfile"


class Line(Struct):
    """A line of history, and the step that makes its layer; without one there is no layer."""

    created_by: str = ""
    """Empty: none."""
    step: Step | None = None
    source: str = ""
    """The instruction, for people."""
    spot: Spot = Spot(line=0)


class Evaluated(Struct):
    node: Node
    begin: Begin
    lines: tuple[Line, ...]
    config: ImageConfig
    author: str = ""
    args: Mapping[str, str | None] = {}
    """As in `Begin`, for stages that stand on this one."""

    @property
    def platform(self) -> Platform:
        return self.begin.platform

    @property
    def steps(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.step is not None)


Find = Callable[[str, Spot, bool], Origin]
"""What a name means (whether numbers are names); raises DockerfileFault."""


def evaluate(
    node: Node, begin: Begin, instructions: tuple[AnyInstruction, ...], wishes: Wishes, find: Find
) -> Evaluated:
    """Raises DockerfileFault."""
    return _Stage(node, begin, wishes, find).run(instructions)


class _Stage:
    def __init__(self, node: Node, begin: Begin, wishes: Wishes, find: Find) -> None:
        self._node = node
        self._begin = begin
        self._wishes = wishes
        self._find = find
        self._args: dict[str, str | None] = dict(begin.args)
        self._author = begin.author
        self._lines: list[Line] = []
        self._steps = 0
        self._cmd = False
        config = begin.config
        if "PATH" not in env_of(config.env):
            config = replace(config, env=with_env(config.env, ("PATH", DEFAULT_PATH)))
        self._config = replace(config, onbuild=())

    def run(self, instructions: tuple[AnyInstruction, ...]) -> Evaluated:
        if isinstance(self._node.base, FromContext):
            self._begin_with(self._node.base)
        for instruction in instructions:
            self._one(instruction)
        return Evaluated(
            node=self._node,
            begin=self._begin,
            lines=tuple(self._lines),
            config=self._config,
            author=self._author,
            args=self._args,
        )

    def _begin_with(self, context: FromContext) -> None:
        """A named context in place of an image: its files are the first layer."""
        step = CopyStep(
            sources=("/",), target="/", origin=context, epoch=self._wishes.epoch, latest=self._wishes.latest
        )
        self._add(step, written.copy(step, "/"), f"FROM {context.name}", self._node.stage.head.spot)

    def _one(self, instruction: AnyInstruction) -> None:
        match instruction:
            case Arg():
                self._arg(instruction)
            case Run():
                self._run(instruction)
            case Copy():
                self._copy(instruction)
            case Workdir():
                self._workdir(instruction)
            case Maintainer(name=name):
                self._author = name
                self._note(f"MAINTAINER {name}", instruction)
            case _:
                self._config, told = edited(
                    self._config,
                    instruction,
                    self._variables(),
                    lambda reason, hint: self._fault(reason, instruction, hint),
                    keep_cmd=self._cmd,
                )
                self._cmd = self._cmd or isinstance(instruction, Cmd)
                if sum(map(len, self._config.env)) > MAX_TEXT:
                    raise self._fault(f"the environment is larger than {MAX_TEXT >> 20} MiB", instruction)
                if told:
                    self._note(told, instruction)

    # -- arguments ----------------------------------------------------------------------------------
    def _arg(self, instruction: Arg) -> None:
        told = []
        for pair in instruction.args:
            value = self._wishes.args.get(pair.key)
            if value is None and pair.value is not None:
                value = self._variables().word(pair.value, instruction.spot)
            elif value is None:
                value = self._wishes.given.get(pair.key)
            self._args[pair.key] = value
            told.append(pair.key if value is None else f"{pair.key}={value}")
        if len(self._args) > MAX_NAMES:
            raise self._fault(f"a stage has at most {MAX_NAMES} arguments", instruction)
        self._note("ARG " + " ".join(told), instruction)

    def _variables(self) -> Variables:
        known = {key: value for key, value in self._args.items() if value is not None}
        return Variables(known | env_of(self._config.env), escape=self._wishes.escape, file=self._wishes.file)

    def _seen(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Of a RUN: its environment, and what history tells of its arguments."""
        env = env_of(self._config.env)
        own = [f"{key}={value}" for key, value in self._args.items() if value is not None and key not in env]
        told = [f"{key}={env.get(key, value or '')}" for key, value in self._args.items()]
        return (*own, *self._config.env), tuple(told)

    # -- steps --------------------------------------------------------------------------------------
    def _run(self, run: Run) -> None:
        script = _script(run)
        env, told = self._seen()
        args = with_shell(self._config, replace(run.command, text=_text(run, script)))
        wishes = self._wishes
        step = RunStep(
            args=args,
            env=env,
            proxies=tuple(
                f"{key}={value}" for key, value in sorted(wishes.args.items()) if self._is_extra(key)
            ),
            user=self._config.user,
            workdir=self._config.workdir or "/",
            script=script,
            mounts=tuple(self._placed(mount, run) for mount in run.mounts),
            network=self._network(run),
            insecure=self._insecure(run),
            devices=run.devices,
            hosts=wishes.hosts,
            resources=wishes.resources,
            shm_size=wishes.shm_size,
            ulimits=wishes.ulimits,
            discarded=self._config.volumes,
            latest=wishes.latest,
            spot=run.spot,
        )
        shown = [f"/dev/pipes/{script.name}" if script and word == SCRIPT else word for word in args]
        self._add(step, written.run(shown, told), _shown(run), run.spot)

    def _is_extra(self, key: str) -> bool:
        return is_proxy(key) and key not in self._args and key not in env_of(self._config.env)

    def _network(self, run: Run) -> str:
        wished = run.network if run.network not in ("", "default") else ""
        if wished == "host" and "network.host" not in self._wishes.allow and self._wishes.network != "host":
            raise self._fault(
                "RUN --network=host is not allowed", run, "Allow it: flota build --allow network.host"
            )
        return wished or self._wishes.network or "default"

    def _insecure(self, run: Run) -> bool:
        if run.security == "insecure" and "security.insecure" not in self._wishes.allow:
            raise self._fault(
                "RUN --security=insecure is not allowed",
                run,
                "Allow it: flota build --allow security.insecure",
            )
        if run.devices and "device" not in self._wishes.allow:
            raise self._fault("RUN --device is not allowed", run, "Allow it: flota build --allow device")
        return run.security == "insecure"

    def _placed(self, mount: Mount, run: Run) -> PlacedMount:
        if mount.text:  # variables stand in it
            variables = self._variables()
            try:
                mount = mounts.parsed(mount.text, lambda text: variables.word(text, run.spot))
            except Mistake as error:
                raise self._fault(f"--mount: {error.message}", run, error.hint) from error
        target = mount.target
        if target:
            target = joined(self._config.workdir, target).rstrip("/") or "/"
        elif mount.kind in ("bind", "cache", "tmpfs"):
            raise self._fault(f"--mount=type={mount.kind} has no target", run, "Give target=/path")
        if target == "/":
            raise self._fault("nothing can be mounted at /", run, "Give the mount another target")
        origin: Origin | None = None
        if mount.origin and mount.kind in ("bind", "cache"):
            origin = self._find(mount.origin, run.spot, True)
        elif mount.kind == "bind":
            origin = FromContext()
        return PlacedMount(mount=replace(mount, target=target), origin=origin)

    def _copy(self, copy: Copy) -> None:
        variables, spot = self._variables(), copy.spot
        target = variables.word(copy.target, spot)
        add = copy if isinstance(copy, Add) else None
        step = CopyStep(
            sources=tuple(variables.word(source, spot) for source in copy.sources),
            target=joined(self._config.workdir, target),
            origin=self._find(copy.origin, spot, True) if copy.origin else FromContext(),
            inline=tuple(self._inline(heredoc, variables, spot) for heredoc in copy.heredocs),
            owner=variables.word(copy.owner, spot) if copy.owner else "",
            mode=variables.word(copy.mode, spot) if copy.mode else "",
            link=copy.link,
            parents=copy.parents,
            exclude=copy.exclude,
            add=add is not None,
            checksum=variables.word(add.checksum, spot) if add and add.checksum else "",
            keep_git_dir=add is not None and add.keep_git_dir,
            unpack=add.unpack if add else None,
            epoch=self._wishes.epoch,
            latest=self._wishes.latest,
            spot=spot,
        )
        self._add(step, written.copy(step, target), _shown(copy), spot)

    def _inline(self, heredoc: Heredoc, variables: Variables, spot: Spot) -> InlineFile:
        content = heredoc.content
        if heredoc.expand:
            content = variables.document(content, spot)
        return InlineFile(name=heredoc.name, content=content.encode())

    def _workdir(self, workdir: Workdir) -> None:
        path = self._variables().word(workdir.path, workdir.spot)
        if "\0" in path:
            raise self._fault("a path can't hold a NUL", workdir)
        place = joined(self._config.workdir, path).rstrip("/") or "/"
        self._config = replace(self._config, workdir=place)
        told = f"WORKDIR {place}"
        if place == "/":
            self._note(told, workdir)
            return
        wishes = self._wishes
        step = WorkdirStep(
            path=place,
            owner=self._config.user,
            epoch=wishes.epoch,
            latest=wishes.latest,
            spot=workdir.spot,
        )
        self._add(step, told, _shown(workdir), workdir.spot)

    # -- lines --------------------------------------------------------------------------------------
    def _note(self, created_by: str, instruction: AnyInstruction) -> None:
        self._lines.append(Line(created_by=created_by, source=_shown(instruction), spot=instruction.spot))

    def _add(self, step: Step, created_by: str, source: str, spot: Spot) -> None:
        self._steps += 1
        if self._steps > MAX_LAYERS:  # now, as each of them may tell of much
            raise DockerfileFault(
                f"a stage with more than {MAX_LAYERS} instructions that make layers can't be built",
                spot,
                file=self._wishes.file,
                hint="Join RUN instructions",
            )
        self._lines.append(Line(created_by=created_by, step=step, source=source, spot=spot))

    def _fault(self, reason: str, instruction: AnyInstruction, hint: str = "") -> DockerfileFault:
        if instruction.trigger:
            reason = f"ONBUILD {instruction.source[:80]} of the base {self._node.stage.head.image}: {reason}"
        return DockerfileFault(reason, instruction.spot, file=self._wishes.file, hint=hint)


def _script(run: Run) -> Heredoc | None:
    """A heredoc that is the whole command and names its own interpreter."""
    heredocs = run.command.heredocs
    alone = bool(heredocs) and _MARK.match(run.command.text.strip()) is not None
    return heredocs[0] if alone and heredocs[0].content.startswith("#!") else None


def _text(run: Run, script: Heredoc | None) -> str:
    """What the shell is given."""
    command = run.command
    if script is not None:
        return SCRIPT
    if not command.heredocs:
        return command.text
    if _MARK.match(command.text.strip()):
        return command.heredocs[0].content
    return command.text + "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in command.heredocs)


def _shown(instruction: AnyInstruction) -> str:
    before = "ONBUILD " if instruction.trigger else ""
    return before + instruction.source.strip()
