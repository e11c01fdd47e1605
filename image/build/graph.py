"""Which stages a build needs, where each of them begins, and whose files it reads. Pure.

A stage refers to earlier ones alone, by name (case does not count; of equal names the nearest earlier one is
meant) or, in COPY --from, by number; any other name is a named context or else an image. So the order of the
file is an order of work, and there are no cycles. A named context of a stage's name replaces that stage.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from image.build.step import FromContext, FromImage, FromStage, Origin
from image.build.variables import Variables
from image.dockerfile.faults import DockerfileFault
from image.dockerfile.instruction import AnyInstruction, Copy, Dockerfile, Run, Spot, Stage, Workdir
from image.platforms import parsed_platform
from image.reference import familiar, parse
from model.errors import InvalidInput
from model.spec import Struct
from model.status import Platform

SCRATCH = "scratch"
MAX_STAGES = 1000
RESERVED = (SCRATCH, "context")
"""No named context's."""


class Node(Struct):
    """A stage, and where it begins: `base` None is scratch."""

    index: int
    stage: Stage
    base: Origin | None
    platform: Platform | None = None
    """Of FROM --platform."""
    replaced: bool = False
    """By a named context: its instructions are not done."""

    @property
    def name(self) -> str:
        return self.stage.head.name or f"stage-{self.index}"


class Scene(Struct):
    """What of a request decides the graph. `own`: the platform that builds; `contexts`: the named ones, each
    to the image that it is, or empty."""

    args: Mapping[str, str] = {}
    target: str = ""
    platform: Platform = Platform()
    own: Platform = Platform()
    contexts: Mapping[str, str] = {}
    file: str = "Dockerfile"


class Outline(Struct):
    nodes: tuple[Node, ...]
    target: int
    given: Mapping[str, str] = {}
    """Arguments that a stage sees once an ARG without a default names them."""
    declared: frozenset[str] = frozenset()
    """Names of the ARGs before the first FROM."""


def outline(dockerfile: Dockerfile, scene: Scene) -> Outline:
    """Raises DockerfileFault."""
    if len(dockerfile.stages) > MAX_STAGES:
        head = dockerfile.stages[MAX_STAGES].head
        raise DockerfileFault(f"it has more than {MAX_STAGES} stages", head.spot, file=scene.file)
    given = _global_args(dockerfile, scene)
    variables = Variables(given, escape=dockerfile.escape, file=scene.file)
    nodes: list[Node] = []
    for index, stage in enumerate(dockerfile.stages):
        nodes.append(_node(index, stage, nodes, variables, scene))
    declared = frozenset(pair.key for arg in dockerfile.args for pair in arg.args)
    return Outline(nodes=tuple(nodes), target=_target(nodes, scene), given=given, declared=declared)


def needed(outline: Outline, uses: Mapping[int, Iterable[Origin]]) -> tuple[int, ...]:
    """Indexes of the stages that the target needs, in order; `uses` is what instructions of each refer to."""
    found: set[int] = set()
    waiting = [outline.target]
    while waiting:
        index = waiting.pop()
        if index in found:
            continue
        found.add(index)
        node = outline.nodes[index]
        origins = (node.base,) if node.replaced else (node.base, *uses.get(index, ()))
        waiting += [origin.index for origin in origins if isinstance(origin, FromStage)]
    return tuple(sorted(found))


def uses_of(
    outline: Outline, node: Node, instructions: Iterable[AnyInstruction], scene: Scene
) -> tuple[Origin, ...]:
    """Whose files they read, the main context's left out. Raises DockerfileFault."""
    found: list[Origin] = []
    for instruction in instructions:
        for name in _names(instruction):
            found.append(origin_of(outline.nodes, node.index, name, instruction.spot, scene))
    return tuple(dict.fromkeys(found))


def origin_of(
    nodes: Collection[Node], index: int, name: str, spot: Spot, scene: Scene, *, numbers: bool = True
) -> Origin:
    """What the name means in the stage `index`. Raises DockerfileFault."""
    if "$" in name:
        raise DockerfileFault(
            f"from={name[:80]}: variables are not expanded here",
            spot,
            file=scene.file,
            hint="Give it a name by a stage of its own: FROM ${VARIABLE} AS name",
        )
    earlier = [node for node in nodes if node.index < index]
    if numbers and name.isascii() and name.isdigit():
        if len(name) < 9 and int(name) < index:
            return FromStage(index=int(name))
        raise DockerfileFault(
            f"there is no stage {name[:20]} before this one",
            spot,
            file=scene.file,
            hint=f"Stages are numbered from 0; this one is {index}",
        )
    for node in reversed(earlier):
        if node.stage.head.name and node.stage.head.name == name.lower():
            return FromStage(index=node.index)
    if (context := _context(name, scene)) is not None:
        return context
    _refuse_later(nodes, index, name, spot, scene)
    return _image(name, spot, scene, [node.stage.head.name for node in earlier if node.stage.head.name])


def default_args(scene: Scene) -> dict[str, str]:
    """The arguments that are there without being given (Docker's reference, "Automatic platform ARGs")."""
    made: dict[str, str] = {}
    for prefix, platform in (("BUILD", scene.own), ("TARGET", scene.platform)):
        made |= {
            f"{prefix}PLATFORM": shown(platform),
            f"{prefix}OS": platform.os,
            f"{prefix}OSVERSION": "",
            f"{prefix}ARCH": platform.arch,
            f"{prefix}VARIANT": platform.variant,
        }
    made["TARGETSTAGE"] = scene.target or "default"
    return {key: scene.args.get(key, value) for key, value in made.items()}


def shown(platform: Platform) -> str:
    return "/".join(filter(None, (platform.os, platform.arch, platform.variant)))


# -- parts --------------------------------------------------------------------------------------------
def _global_args(dockerfile: Dockerfile, scene: Scene) -> dict[str, str]:
    last = dockerfile.stages[-1].head.name if dockerfile.stages else ""
    given = default_args(scene) | ({} if scene.target else {"TARGETSTAGE": last or "default"})
    for arg in dockerfile.args:
        for pair in arg.args:
            value = scene.args.get(pair.key)
            if value is None and pair.value is not None:
                value = Variables(given, escape=dockerfile.escape, file=scene.file).word(pair.value, arg.spot)
            if value is not None:
                given[pair.key] = value
    return given


def _node(index: int, stage: Stage, earlier: list[Node], variables: Variables, scene: Scene) -> Node:
    head = stage.head
    replacing = _context(head.name, scene) if head.name else None
    if replacing is not None:
        return Node(index=index, stage=stage, base=replacing, replaced=True)
    name = variables.word(head.image, head.spot)
    if not name:
        unset = ", ".join(sorted(variables.unset)) or head.image
        raise DockerfileFault(
            f"FROM {head.image}: it names no image, as {unset} is not set",
            head.spot,
            file=scene.file,
            hint="Declare it with a default before the first FROM (ARG NAME=value), or give --build-arg",
        )
    platform = _platform(stage, variables, scene) if head.platform else None
    base: Origin | None = None
    if name != SCRATCH:
        base = _base(index, name, earlier, head.spot, scene)
    return Node(index=index, stage=stage, base=base, platform=platform)


def _base(index: int, name: str, earlier: list[Node], spot: Spot, scene: Scene) -> Origin:
    for node in reversed(earlier):
        if node.stage.head.name and node.stage.head.name == name.lower():
            return FromStage(index=node.index)
    context = _context(name, scene)
    known = [node.stage.head.name for node in earlier if node.stage.head.name]
    return context if context is not None else _image(name, spot, scene, known)


def _platform(stage: Stage, variables: Variables, scene: Scene) -> Platform:
    head = stage.head
    text = variables.word(head.platform, head.spot)
    try:
        if text and "/" not in text:  # an architecture or an operating system alone
            return Platform(os="linux", arch=scene.own.arch if text == "linux" else text)
        return parsed_platform(text)
    except InvalidInput as error:
        raise DockerfileFault(
            f"--platform={head.platform}: {text[:80]!r} is no platform",
            head.spot,
            file=scene.file,
            hint="Write os/arch[/variant], linux/arm64 say; $BUILDPLATFORM and $TARGETPLATFORM are known",
        ) from error


def _context(name: str, scene: Scene) -> FromContext | FromImage | None:
    """A named context, which may be called as an image is."""
    if name.lower() in RESERVED or not scene.contexts:
        return None
    called = [name, name.lower()]
    short = _familiar(name)
    called += [short, short.removesuffix(":latest")]
    for one in called:
        if one in scene.contexts:
            ref = scene.contexts[one]
            return FromImage(ref=ref) if ref else FromContext(name=one)
    return None


def _familiar(name: str) -> str:
    """As people call an image; empty for what is none."""
    try:
        return familiar(parse(name).name)
    except InvalidInput:
        return ""


def _image(name: str, spot: Spot, scene: Scene, known: list[str]) -> FromImage:
    if name == SCRATCH:
        return FromImage(ref=SCRATCH)
    if name.startswith((f"{SCRATCH}:", f"{SCRATCH}@")):
        raise DockerfileFault(
            f"{name[:80]}: scratch is no image and has no tags", spot, file=scene.file, hint="FROM scratch"
        )
    try:
        parse(name)
    except InvalidInput as error:
        stages = f"Stages before it: {', '.join(known)}" if known else "No stage before it has a name"
        raise DockerfileFault(
            f"{error.message}, nor is it a stage's name", spot, file=scene.file, hint=stages
        ) from error
    return FromImage(ref=name)


def _refuse_later(nodes: Collection[Node], index: int, name: str, spot: Spot, scene: Scene) -> None:
    for node in nodes:
        if node.index >= index and node.stage.head.name == name.lower() and name:
            why = (
                "this very stage"
                if node.index == index
                else f"a later stage (line {node.stage.head.spot.line})"
            )
            raise DockerfileFault(
                f"{name} is {why}, which has no files yet",
                spot,
                file=scene.file,
                hint="Put the stage that it copies from before this one",
            )


def _target(nodes: list[Node], scene: Scene) -> int:
    if not scene.target:
        return len(nodes) - 1
    for node in reversed(nodes):
        if node.stage.head.name == scene.target.lower():
            return node.index
    number = int(scene.target) if scene.target.isascii() and scene.target.isdigit() else len(nodes)
    if number < len(nodes):
        return number
    known = [node.stage.head.name for node in nodes if node.stage.head.name]
    raise InvalidInput(
        f"{scene.file} has no stage {scene.target[:80]!r}",
        hint=f"It has {', '.join(known)}" if known else "No stage of it has a name",
    )


def _names(instruction: AnyInstruction) -> tuple[str, ...]:
    if isinstance(instruction, Copy):
        return (instruction.origin,) if instruction.origin else ()
    if isinstance(instruction, Run):
        return tuple(mount.origin for mount in instruction.mounts if mount.origin)
    return ()


def steps_in(node: Node) -> int:
    """How many instructions of the stage change files."""
    return sum(isinstance(one, Run | Copy | Workdir) for one in node.stage.instructions)
