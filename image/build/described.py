"""What a Dockerfile offers to whoever builds it: its stages, and of a target the arguments, secrets and
agents that it takes. Pure.

Descriptions are comments right before a FROM or ARG that begin with the name, as Docker's `--call` has it.
Invariant: of a target only what it needs is told, stages that it does not need have no say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from image.build.graph import Node, Outline, Scene, needed, outline, uses_of
from image.build.variables import Variables
from image.dockerfile.checkwords import used
from image.dockerfile.instruction import Arg, Dockerfile, Instruction, Run
from model.spec import Struct


class Target(Struct):
    """A stage that `--target` can name. `default`: the one without."""

    name: str
    base: str
    description: str = ""
    default: bool = False
    line: int = 0


class Argument(Struct):
    """`value` None: neither given nor with a default."""

    name: str
    value: str | None = None
    description: str = ""
    line: int = 0


class Asked(Struct):
    """A secret or an SSH agent of the client's."""

    name: str
    required: bool = False
    line: int = 0


class Described(Struct):
    target: str
    description: str = ""
    args: tuple[Argument, ...] = ()
    secrets: tuple[Asked, ...] = ()
    ssh: tuple[Asked, ...] = ()


def targets(dockerfile: Dockerfile) -> tuple[Target, ...]:
    """Stages that have a name, and the last whether it has one or not."""
    last = len(dockerfile.stages) - 1
    return tuple(
        Target(
            name=stage.head.name or str(index),
            base=stage.head.image,
            description=_description(stage.head, stage.head.name),
            default=index == last,
            line=stage.head.spot.line,
        )
        for index, stage in enumerate(dockerfile.stages)
        if stage.head.name or index == last
    )


def described(dockerfile: Dockerfile, scene: Scene) -> Described:
    """Of `scene.target`, with `scene.args` given. Raises DockerfileFault."""
    graph = outline(dockerfile, scene)
    uses = {node.index: uses_of(graph, node, node.stage.instructions, scene) for node in graph.nodes}
    nodes = [graph.nodes[index] for index in needed(graph, uses) if not graph.nodes[index].replaced]
    target = graph.nodes[graph.target]
    runs = [one for node in nodes for one in node.stage.instructions if isinstance(one, Run)]
    return Described(
        target=target.name,
        description=_description(target.stage.head, target.stage.head.name),
        args=tuple(_arguments(dockerfile, graph, nodes, scene)),
        secrets=_asked(runs, "secret"),
        ssh=_asked(runs, "ssh"),
    )


def _description(one: Instruction, name: str) -> str:
    found = (comment.partition(" ") for comment in one.comments)
    return next((rest.strip() for first, _, rest in found if name and first == name), "")


def _arguments(dockerfile: Dockerfile, graph: Outline, nodes: list[Node], scene: Scene) -> Iterator[Argument]:
    own: dict[str, Argument] = {}
    inherited: set[str] = set()
    for node in nodes:
        head = node.stage.head
        inherited |= {name for text in (head.image, head.platform) for name, _ in used(text)}
        values = dict(graph.given)
        for one in node.stage.instructions:
            for found in _of(one, values, dockerfile, scene):
                if found.name in graph.declared and found.value == graph.given.get(found.name):
                    inherited.add(found.name)
                else:
                    own.setdefault(found.name, found)
    yield from _global(dockerfile, graph, inherited)
    yield from sorted(own.values(), key=lambda found: found.line)


def _of(one: Instruction, values: dict[str, str], dockerfile: Dockerfile, scene: Scene) -> Iterator[Argument]:
    """Of an ARG of a stage; `values` learns what it sets."""
    if not isinstance(one, Arg):
        return
    for pair in one.args:
        value = scene.args.get(pair.key)
        if value is None and pair.value is not None:
            variables = Variables(values, escape=dockerfile.escape, file=scene.file)
            value = variables.word(pair.value, one.spot)
        value = values.get(pair.key) if value is None else value
        if value is not None:
            values[pair.key] = value
        description = _description(one, pair.key)
        yield Argument(name=pair.key, value=value, description=description, line=one.spot.line)


def _global(dockerfile: Dockerfile, graph: Outline, inherited: set[str]) -> Iterator[Argument]:
    """Those before the first FROM that stages take over, or that the values of such hold."""
    pairs = [(pair, arg) for arg in dockerfile.args for pair in arg.args]
    for pair, _ in reversed(pairs):
        if pair.key in inherited:
            inherited |= {name for name, _ in used(pair.value or "", dockerfile.escape)}
    for pair, arg in pairs:
        if pair.key in inherited:
            yield Argument(
                name=pair.key,
                value=graph.given.get(pair.key),
                description=_description(arg, pair.key),
                line=arg.spot.line,
            )


def _asked(runs: Iterable[Run], kind: str) -> tuple[Asked, ...]:
    """By id; required if any mount of it is."""
    found: dict[str, Asked] = {}
    for run in runs:
        for mount in run.mounts:
            if mount.kind == kind:
                before = found.get(mount.ident)
                found[mount.ident] = Asked(
                    name=mount.ident,
                    required=mount.required or (before is not None and before.required),
                    line=before.line if before else run.spot.line,
                )
    return tuple(found.values())
