"""Doing a build: stages side by side, each step from the cache or made, the image at the end.

Stages run as far as those that they read allow; a step is done once for all builds that want it at the same
time. Invariants: the first failure ends what else is under way; nothing is kept of a step that failed or was
cut short; the image has its names only when all of it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack

from msgspec.structs import replace

from aio.together import together
from image.attestations import Predicate
from image.build import keys, provenance, result
from image.build.base import Bound, Files, Session
from image.build.bases import Bases, familiar_of
from image.build.cache import Record
from image.build.clientlayout import image_of
from image.build.evaluate import Evaluated, Line
from image.build.graph import Node, Scene, shown, steps_in
from image.build.parts import Parts, StepFailed
from image.build.plan import Planner
from image.build.sources import Opened, Sources
from image.build.stating import Stated, stated
from image.build.step import (
    CopyStep,
    FromContext,
    FromImage,
    FromStage,
    RunStep,
    Step,
    WorkdirStep,
    kind_of,
)
from image.build.telling import Teller, Telling
from image.build.wishes import wishes_of
from image.dockerfile.faults import DockerfileFault
from image.dockerfile.instruction import Dockerfile
from image.dockerfile.parser import parse
from image.manifest import Configuration
from image.platforms import wanted_platform
from image.reference import parse as reference
from model.build import BuildRequest, Built, Done
from model.errors import ErrorBody, FlotaError, InvalidInput
from model.image import ImageRecord
from model.status import Platform

MAX_PLATFORMS = 32


async def build(request: BuildRequest, session: Session, parts: Parts) -> Done:
    """The image of each platform that is asked for, in the store under its names. Raises DockerfileFault,
    StepFailed, and what steps and pulls do."""
    dockerfile = parse(request.dockerfile, file=request.file)
    teller = Teller(session, parts.clock)
    names = tuple(reference(name).name for name in request.names)
    platforms = tuple(dict.fromkeys(request.platforms)) or ("",)
    if len(platforms) > MAX_PLATFORMS:
        raise InvalidInput(f"{len(platforms)} platforms are more than one build makes, {MAX_PLATFORMS}")
    terminal, began = _Terminal(), parts.clock.now()
    with ExitStack() as held:
        builds = [
            _Build(request, dockerfile, session, parts, teller, text, held, terminal) for text in platforms
        ]
        await together(one.run() for one in builds)
        stated = [await one.stated(began) for one in builds]
        with teller.step("exporting the image" if len(builds) == 1 else f"exporting {len(builds)} images"):
            made = [await one.finish() for one in builds]
            added = await parts.images.add_built(made, names, stated)
    images = tuple(
        Built(image=image.id, platform=shown(image.platform), digest=digest, size=image.size)
        for image, digest in zip(added.images, added.digests, strict=True)
    )
    told = provenance.metadata([one.platform for one in images], stated)
    return Done(images=images, names=names, digest=added.digest, metadata=told)


class _Terminal:
    """The client's, for the first of the steps that fail: whoever has it ends the build when it is left."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.given = False


class _Build:
    """Of one platform."""

    def __init__(
        self,
        request: BuildRequest,
        dockerfile: Dockerfile,
        session: Session,
        parts: Parts,
        teller: Teller,
        platform: str,
        held: ExitStack,
        terminal: _Terminal,
    ) -> None:
        self._request = request
        self._dockerfile = dockerfile
        self._session = session
        self._parts = parts
        self._teller = teller
        self._held = held
        self._terminal = terminal
        self._several = len(set(request.platforms)) > 1
        self._platform = wanted_platform(platform, parts.platform)
        self._bases = Bases(request, parts, teller, held)
        self._done: dict[int, asyncio.Future[Files]] = {}
        self._made: dict[tuple[int, int], float] = {}
        self._own: set[str] = set()
        """Keys of steps that this build did itself: with --no-cache others' don't count."""
        self._fresh: set[str] = set()
        """Ids of files that it made: nobody elsewhere has done anything on them."""

    async def run(self) -> None:
        request = self._request
        scene = Scene(
            args=request.args,
            target=request.target,
            platform=self._platform,
            own=self._parts.platform,
            contexts={one.name: image_of(one) for one in request.contexts if one.name and one.kind != "none"},
            file=request.file,
        )
        self._plan = await Planner(
            self._dockerfile, scene, wishes_of(request, self._dockerfile.escape), self._base
        ).run()
        for warned in self._plan.warnings:
            self._teller.warn(
                warned.code,
                warned.message,
                line=warned.spot.line,
                column=warned.spot.column,
                hint=warned.hint,
            )
        self._sources = Sources(
            request,
            self._plan,
            self._session,
            snapshots=self._parts.snapshots,
            runner=self._parts.runner,
            cache=self._parts.cache,
            fetcher=self._parts.fetcher,
            files_of=self._files_of,
        )
        loop = asyncio.get_running_loop()
        self._done = {index: loop.create_future() for index in self._plan.stages}
        await together(self._stage(stage) for stage in self._plan.stages.values())

    async def _base(self, ref: str, platform: Platform, node: Node) -> ImageRecord:
        name = f"[{self._prefix(node)}1/{self._total(node)}] FROM {familiar_of(ref)}"
        return await self._bases.image(ref, platform, name, node.stage.head.spot.line)

    # -- stages -------------------------------------------------------------------------------------
    async def _stage(self, stage: Evaluated) -> None:
        files = await self._begun(stage)
        total, count = self._total(stage.node), 0
        first = 2 if stage.node.index in self._plan.bases else 1
        for number, line in enumerate(stage.lines):
            if line.step is None:
                continue
            name = f"[{self._prefix(stage.node)}{first + count}/{total}] {line.source}"
            files, at = await self._step(stage, line, files, name)
            self._made[stage.node.index, number] = at
            count += 1
        self._done[stage.node.index].set_result(files)

    async def _begun(self, stage: Evaluated) -> Files:
        base = stage.node.base
        if isinstance(base, FromStage):
            return await asyncio.shield(self._done[base.index])
        return self._parts.snapshots.of_image(self._plan.bases.get(stage.node.index))

    def _total(self, node: Node) -> int:
        stage = self._plan.stages.get(node.index) if hasattr(self, "_plan") else None
        steps = len(stage.steps) if stage is not None else steps_in(node)
        return steps + isinstance(node.base, FromImage)

    def _prefix(self, node: Node) -> str:
        words = [shown(self._platform)] if self._several else []
        if len(self._dockerfile.stages) > 1 or node.stage.head.name:
            words.append(node.name)
        return "".join(f"{word} " for word in words)

    async def _files_of(self, origin: FromStage | FromImage) -> Files:
        """What a step reads that is no context."""
        if isinstance(origin, FromStage):
            return await asyncio.shield(self._done[origin.index])
        if origin.ref == "scratch":
            return self._parts.snapshots.of_image(None)
        name = f"FROM {familiar_of(origin.ref)}"
        image = await self._bases.image(origin.ref, self._platform, name)
        return self._parts.snapshots.of_image(image)

    async def _context_files(self, name: str) -> Files:
        """A context as a layer over nothing, for what mounts it."""
        step = CopyStep(sources=("/",), target="/", origin=FromContext(name=name))
        line = Line(step=step, source=f"load context {name or 'of the build'}")
        scratch = self._parts.snapshots.of_image(None)
        return (await self._step(None, line, scratch, f"[internal] {line.source}"))[0]

    # -- steps --------------------------------------------------------------------------------------
    async def _step(
        self, stage: Evaluated | None, line: Line, files: Files, name: str
    ) -> tuple[Files, float]:
        """The files after it, and when it was done."""
        step = line.step
        assert step is not None
        platform = stage.platform if stage is not None else self._platform
        linked = isinstance(step, CopyStep) and step.link
        ground = self._parts.snapshots.of_image(None) if linked else files
        with self._in_line(line):
            await self._sources.ready(step)
            with self._teller.step(name, line.spot.line) as telling:
                async with self._sources.opened() as opened:
                    content = await self._content(step, opened)
                    key = keys.key_of(ground.id, step, content, platform)
                    async with AsyncExitStack() as turn:
                        await turn.enter_async_context(self._parts.turns.of(key).alone())
                        record = await self._cached(stage, key, ground)
                        telling.cached, telling.where = record is not None, record.where if record else ""
                        if record is None:
                            record = await self._make(line, ground, key, opened, telling, turn)
                    made = await self._stacked(files, record.files) if linked else record.files
        return made, record.created

    async def _stacked(self, files: Files, linked: Files) -> Files:
        snapshots = self._parts.snapshots
        async with snapshots.stacked(files, linked, keys.stacked_id(files.id, linked.id)) as made:
            self._held.enter_context(snapshots.hold(made))
            if files.id in self._fresh:
                self._fresh.add(made.id)
            return made

    @contextlib.contextmanager
    def _in_line(self, line: Line) -> Iterator[None]:
        """Errors say where in the Dockerfile they happened."""
        try:
            yield
        except FlotaError as error:
            if not line.spot.line or error.line or isinstance(error, DockerfileFault):
                raise
            body = ErrorBody.of(error)
            placed = replace(
                body, message=f"{self._request.file}:{line.spot.line}: {body.message}"
            ).to_error()
            placed.line = line.spot.line
            raise placed from error

    async def _content(self, step: Step, opened: Opened) -> tuple[str, ...]:
        match step:
            case CopyStep():
                return (await self._sources.content(step, opened),)
            case RunStep():
                return await self._sources.read_by(step)
            case WorkdirStep():
                return ()

    async def _cached(self, stage: Evaluated | None, key: str, ground: Files) -> Record | None:
        if stage is not None and self._is_uncached(stage.node) and key not in self._own:
            return None
        record = await self._parts.cache.find(key, elsewhere=ground.id not in self._fresh)
        if record is not None:
            self._held.enter_context(self._parts.snapshots.hold(record.files))
        return record

    def _is_uncached(self, node: Node) -> bool:
        named = {name.lower() for name in self._request.no_cache_stages}
        return self._request.no_cache or node.name in named

    async def _make(
        self, line: Line, files: Files, key: str, opened: Opened, telling: Telling, turn: AsyncExitStack
    ) -> Record:
        """`turn`: what nobody else has meanwhile."""
        parts, step = self._parts, line.step
        assert step is not None
        began = parts.clock.monotonic()
        async with AsyncExitStack() as stack:
            bound: Sequence[Bound | None] = ()
            if isinstance(step, RunStep):  # before the slot, as a context may have to be made a layer for it
                bound = await stack.enter_async_context(self._sources.bound(step, self._context_files))
            await turn.enter_async_context(parts.slots)
            work = await stack.enter_async_context(parts.snapshots.work(files))
            match step:
                case CopyStep():
                    await parts.runner.copy(work.root, step, await opened.sources(step))
                case WorkdirStep():
                    await parts.runner.workdir(work.root, step)
                case RunStep():
                    await self._run(work.root, line, step, bound, telling.number, turn)
            discarded = step.discarded if isinstance(step, RunStep) else ()
            made = await work.keep(parts.new_id(), discarded, step.latest)
            self._held.enter_context(parts.snapshots.hold(made))  # at once: else it may be gone
        if isinstance(step, CopyStep) and step.link:
            made = replace(made, id=key)
        else:
            self._fresh.add(made.id)
        record = Record(
            key=key,
            files=made,
            created=float(self._plan.epoch) if self._plan.epoch is not None else parts.clock.now(),
            used=parts.clock.now(),
            source=line.source,
            kind=kind_of(step),
            seconds=parts.clock.monotonic() - began,
        )
        parts.cache.put(record)
        self._own.add(key)
        return record

    async def _run(
        self,
        root: str,
        line: Line,
        step: RunStep,
        bound: Sequence[Bound | None],
        number: int,
        turn: AsyncExitStack,
    ) -> None:
        """Raises StepFailed."""
        runner = self._parts.runner
        code = await runner.run(root, step, bound, self._session, number)
        if code and self._request.on_failure == "shell":
            await turn.aclose()  # a person may take hours, and nothing of it is kept
            async with self._terminal.turn:
                if not self._terminal.given:
                    self._terminal.given = True
                    await runner.shell(root, step, bound, self._session, number)
        if code:
            raise self._failed(line, code)

    def _failed(self, line: Line, code: int) -> StepFailed:
        where = f"{self._request.file}:{line.spot.line}"
        known = {126: " (it can't be run)", 127: " (not found)", 137: " (killed)"}
        why = f"exit code {code}{known.get(code, '')}"
        hint = "See its output above"
        if self._request.on_failure != "shell":
            hint += "; --on-failure shell gives a shell where it failed"
        return StepFailed(
            f"{where}: {line.source[:200]}: {why}", exit_code=code, line=line.spot.line, hint=hint
        )

    async def stated(self, began: float) -> tuple[Predicate, ...]:
        """As the request wants it, once `run` has ended; `began`: when the build did, Unix seconds."""
        made = Stated(
            request=self._request,
            plan=self._plan,
            files=self._done[self._plan.target.node.index].result(),
            platform=self._platform,
            images=self._bases.used,
            began=began,
        )
        prefix = f"[{shown(self._platform)}] " if self._several else ""
        return await stated(made, self._parts, self._teller, prefix)

    # -- the image ----------------------------------------------------------------------------------
    async def finish(self) -> Configuration:
        """Once `run` has ended, and all layers are made."""
        target = root = self._plan.target
        settled = await self._parts.snapshots.settled(self._done[target.node.index].result())
        while isinstance(origin := root.node.base, FromStage):
            root = self._plan.stages[origin.index]
        diffs = [diff for _, diff in settled]
        made = result.configuration(
            self._plan.stages,
            target.node.index,
            base=self._plan.bases.get(root.node.index),
            made=self._made,
            diffs=diffs,
            labels=self._request.labels,
            epoch=self._plan.epoch,
        )
        inline = self._parts.inline
        return made if inline is None else replace(made, cache=await inline(diffs))
