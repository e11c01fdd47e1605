"""From a Dockerfile to the stages that will be built, with what each begins with.

What a stage begins with is an image's word, so images are got here, before any step is done; their ONBUILD
triggers may name further stages and images. Invariant: all of a plan is known to be right before its first
step is done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from aio.supervisor import in_thread
from aio.together import together
from image.build import graph
from image.build.evaluate import Begin, Evaluated, Wishes, evaluate
from image.build.graph import Node, Outline, Scene
from image.build.step import CopyStep, FromContext, FromImage, FromStage, Origin, PlacedMount, RunStep
from image.build.variables import is_proxy
from image.build.wishes import dated
from image.dockerfile.faults import DockerfileFault
from image.dockerfile.globs import literal
from image.dockerfile.instruction import AnyInstruction, Arg, Dockerfile, Onbuild, Spot, Warned
from image.dockerfile.parser import parse_trigger
from image.manifest import MAX_LAYERS
from model.image import ImageConfig, ImageRecord
from model.status import Platform

Resolve = Callable[[str, Platform, Node], Awaitable[ImageRecord]]
"""An image by its reference, made for a platform, on this host; of the stage that asks."""


@dataclass(frozen=True, slots=True)
class Plan:
    outline: Outline
    stages: Mapping[int, Evaluated]
    """Those that are needed, in order."""
    bases: Mapping[int, ImageRecord]
    """Of the stages that begin with an image."""
    warnings: tuple[Warned, ...] = ()
    """Of the request; those of the Dockerfile are `image.dockerfile.check`'s."""
    epoch: int | None = None

    @property
    def target(self) -> Evaluated:
        return self.stages[self.outline.target]

    def context_paths(self, name: str) -> tuple[str, ...]:
        """Sources that are read in a context, as they are written."""
        found: set[str] = set()
        for stage in self.stages.values():
            for line in stage.steps:
                found.update(_read(line.step, FromContext(name=name)))
        return tuple(sorted(found))


class Planner:
    def __init__(self, dockerfile: Dockerfile, scene: Scene, wishes: Wishes, resolve: Resolve) -> None:
        self._dockerfile = dockerfile
        self._scene = scene
        self._outline = graph.outline(dockerfile, scene)
        self._wishes = dated(wishes, self._outline.given)
        self._resolve = resolve
        self._bases: dict[int, ImageRecord] = {}
        self._work: dict[int, tuple[AnyInstruction, ...]] = {}

    async def run(self) -> Plan:
        """Raises DockerfileFault, and whatever a pull does."""
        needed = await self._needed()
        stages: dict[int, Evaluated] = {}
        for index in needed:
            node = self._outline.nodes[index]
            find = _finder(self._outline, node, self._scene)
            begin = self._begin(node, stages)
            work = (node, begin, self._work[index], self._wishes, find)
            stages[index] = await in_thread(evaluate, *work)  # other builds go on meanwhile
            self._refuse_too_many(stages, index)
        return Plan(
            outline=self._outline,
            stages=stages,
            bases={index: base for index, base in self._bases.items() if index in stages},
            warnings=self._unused(needed),
            epoch=self._wishes.epoch,
        )

    async def _needed(self) -> tuple[int, ...]:
        """Indexes of the stages, each with its images here and its triggers read."""
        uses: dict[int, tuple[Origin, ...]] = {}
        while True:
            needed = graph.needed(self._outline, uses)
            new = [self._outline.nodes[index] for index in needed if index not in self._work]
            if not new:
                return needed
            await together(self._begun(node) for node in new)
            for node in sorted(new, key=lambda node: node.index):
                self._work[node.index] = () if node.replaced else self._instructions(node)
                uses[node.index] = graph.uses_of(self._outline, node, self._work[node.index], self._scene)

    async def _begun(self, node: Node) -> None:
        if isinstance(node.base, FromImage):
            platform = node.platform or self._scene.platform
            self._bases[node.index] = await self._resolve(node.base.ref, platform, node)

    def _instructions(self, node: Node) -> tuple[AnyInstruction, ...]:
        """The base's triggers, then its own."""
        texts: tuple[str, ...] = ()
        if node.index in self._bases:
            texts = self._bases[node.index].config.onbuild
        elif isinstance(node.base, FromStage):
            stage = self._outline.nodes[node.base.index]
            above = () if stage.replaced else stage.stage.instructions
            texts = tuple(one.expression for one in above if isinstance(one, Onbuild))
        return (*(self._trigger(text, node) for text in texts), *node.stage.instructions)

    def _trigger(self, text: str, node: Node) -> AnyInstruction:
        head = node.stage.head
        return parse_trigger(text, head.spot, file=self._scene.file)

    def _begin(self, node: Node, stages: Mapping[int, Evaluated]) -> Begin:
        if isinstance(node.base, FromStage):
            above = stages[node.base.index]
            return Begin(config=above.config, platform=above.platform, author=above.author, args=above.args)
        wanted = node.platform or self._scene.platform
        base = self._bases.get(node.index)
        if base is None:
            return Begin(config=ImageConfig(workdir="/"), platform=wanted)
        platform = base.platform if base.platform.arch else wanted
        return Begin(config=base.config, platform=platform, author=base.author)

    def _refuse_too_many(self, stages: Mapping[int, Evaluated], index: int) -> None:
        """Of layers: overlayfs stacks no more."""
        node, count = self._outline.nodes[index], 0
        while True:
            steps = stages[node.index].steps
            count += len(steps)
            if not isinstance(node.base, FromStage):
                break
            node = self._outline.nodes[node.base.index]
        base = self._bases.get(node.index)
        below = len(base.layers) if base is not None else 0
        if below + count > MAX_LAYERS:
            steps = stages[index].steps
            spot = steps[-1].spot if steps else stages[index].node.stage.head.spot
            raise DockerfileFault(
                f"the image would have {below + count} layers, and there can be {MAX_LAYERS}",
                spot,
                file=self._scene.file,
                hint="Join RUN instructions, or copy what matters into a stage of its own",
            )

    def _unused(self, needed: tuple[int, ...]) -> tuple[Warned, ...]:
        """Of --build-arg."""
        declared = set(self._outline.declared) | graph.default_args(self._scene).keys()
        for index in needed:
            for one in self._work[index]:
                if isinstance(one, Arg):
                    declared |= {pair.key for pair in one.args}
        unused = [
            key
            for key in sorted(self._scene.args)
            if key not in declared
            and not is_proxy(key)
            and key not in ("SOURCE_DATE_EPOCH", "BUILDKIT_SYNTAX")
        ]
        if not unused:
            return ()
        told = f"build arguments that no ARG names: {', '.join(unused)}"
        return (Warned(code="UnusedBuildArg", message=told, spot=Spot(line=0)),)


def _finder(outline: Outline, node: Node, scene: Scene) -> Callable[[str, Spot, bool], Origin]:
    def find(name: str, spot: Spot, numbers: bool) -> Origin:
        return graph.origin_of(outline.nodes, node.index, name, spot, scene, numbers=numbers)

    return find


def mount_source(placed: PlacedMount) -> str:
    """As a source of COPY: a mount's is a path, whatever characters it has."""
    return literal(placed.mount.source) or "/"


def _read(step: object, context: FromContext) -> tuple[str, ...]:
    """Paths of the context."""
    if isinstance(step, CopyStep) and step.origin == context:
        return step.sources
    if isinstance(step, RunStep):
        return tuple(mount_source(placed) for placed in step.mounts if placed.origin == context)
    return ()
