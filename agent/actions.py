"""The steps of an instance's life, done: images, roots, networks, volumes and the runtime in their order.

Every step is idempotent and gives its outcome; it may raise FlotaError or OSError, which the worker turns
into the outcome's words. What may overlap on the way to a start does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from agent import assemble, endpoints, freeze
from agent.context import Context
from agent.oci.resources import changed
from agent.probe import Watch, watch_of
from agent.record import Local
from agent.runtime.base import Created, Exit
from agent.steps import Action, Outcome, Step
from agent.trees import remove_tree
from aio.supervisor import in_thread
from aio.together import together
from model.errors import DeadlineExceeded, FlotaError, Internal, InvalidInput, NotFound, WrongState
from model.image import ImageConfig
from model.records import Instance
from model.registries import Login
from model.spec import Mount

KILL_DEADLINE, PREPARE_DEADLINE = 10.0, 60.0
RELEASED = "released"
"""A file in the bundle, made before the held process is let go: an agent that dies at that moment leaves by
it the word that the process may have run. On the same tmpfs as the bundle, so it ends with the boot."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What PREPARE leaves for CREATE, in memory: after a crash both are done again."""

    root: str
    netns: str
    mounts: tuple[Mount, ...]


class Actions:
    def __init__(self, context: Context, known: Callable[[Local], Awaitable[None]]) -> None:
        """`known` waits until the names of a container are."""
        self._context = context
        self._known = known
        self._prepared: dict[str, _Prepared] = {}

    async def perform(
        self, action: Action, record: Local, want: Instance | None, ended: asyncio.Event
    ) -> Outcome:
        match action.step:
            case Step.ROOT:
                return await self._root(_wanted(want))
            case Step.PREPARE:
                return await self._prepare(record, _wanted(want))
            case Step.CREATE:
                return await self._create(record, _wanted(want))
            case Step.START:
                return await self._start(record, _wanted(want))
            case Step.STOP:
                await self._stop(action, record, want, ended)
            case Step.WIRE:
                return await self._wire(record, _wanted(want))
            case Step.LIMIT:
                return await self._limit(_wanted(want))
            case Step.PAUSE:
                await self._context.runtime.pause(record.instance)
            case Step.RESUME:
                await self._context.runtime.resume(record.instance)
            case Step.CLEAN:
                await self._clean(record)
            case Step.REMOVE:
                await self._remove(record, want)
        return Outcome()

    def watch(self, record: Local, created: Created, ring: Callable[[Exit], None]) -> Callable[[], None]:
        directory = str(self._context.bundle(record.instance))
        return self._context.runtime.watch_exit(directory, created, ring)

    def released(self, record: Local) -> bool:
        """Whether the last agent was about to let the held process go."""
        return (self._context.bundle(record.instance) / RELEASED).exists()

    # -- towards a start ----------------------------------------------------------------------------
    async def _root(self, want: Instance) -> Outcome:
        spec = want.spec

        async def login(ref: str) -> Login:
            del ref  # it is the instance's, and the controller knows its image
            return await self._context.ask_login(want.id)

        try:
            image = await self._context.images.ensure(
                spec.image, policy=spec.pull, platform=spec.platform, login=login
            )
        except FlotaError as error:
            raise type(error)(f"image {spec.image}: {error.message}", hint=error.hint) from error
        await self._context.images.prepare_root(want.id, image.id)
        self._context.room.bell.ring()
        return Outcome(image_id=image.id)

    async def _prepare(self, record: Local, want: Instance) -> Outcome:
        """File system and network side by side; neither needs the other."""
        try:
            image = self._image(record)
        except NotFound:  # a power loss took what had come shortly before; what the container wrote stays
            await self._root(want)
            image = self._image(record)
        work = self._fill(record, want, image), self._connect(record, want, image)
        (root, mounts), (netns, wired) = await together(work)
        self._prepared[want.id] = _Prepared(root=root, netns=netns, mounts=mounts.mounts)
        return _wiring(wired, volumes=mounts.volumes, anonymous=mounts.anonymous)

    async def _fill(self, record: Local, want: Instance, image: ImageConfig) -> tuple[str, assemble.Mounts]:
        async with _soon("its root"):
            root = await self._context.images.mount_root(want.id)
            return root.path, await assemble.mounts_of(self._context, want, image, root.path)

    async def _connect(
        self, record: Local, want: Instance, image: ImageConfig
    ) -> tuple[str, endpoints.Wired]:
        """For addresses it waits as long as it takes, for the rest not."""
        await endpoints.addresses(self._context, want)
        async with _soon("its network"):
            netns = await endpoints.namespace(self._context, want)
            return netns, await endpoints.wire(self._context, want, image, record)

    async def _wire(self, record: Local, want: Instance) -> Outcome:
        """On the namespace of a process that lives; its files in /etc follow."""
        wired = await endpoints.wire(self._context, want, self._image(record), record)
        await in_thread(assemble.rewrite_etc, self._context, want, record.endpoints, wired.endpoints)
        return _wiring(wired)

    async def _limit(self, want: Instance) -> Outcome:
        """Raises InvalidInput, Unsupported, CommandFailed (less memory than it uses, on cgroup v1)."""
        wish = want.spec.resources
        await self._context.runtime.update(want.id, changed(wish, self._context.limits))
        return Outcome(limits=wish)

    async def _create(self, record: Local, want: Instance) -> Outcome:
        context = self._context
        ready = self._prepared.pop(want.id, None)
        if ready is None:
            raise Internal(f"container {want.id[:12]} is created before it was prepared")
        bundle = await assemble.bundle(
            context,
            want,
            self._image(record),
            root=ready.root,
            netns=ready.netns,
            endpoints=record.endpoints,
            mounts=ready.mounts,
        )
        with contextlib.suppress(FileNotFoundError):
            os.unlink(context.bundle(want.id) / RELEASED)
        created = await context.runtime.create(bundle)
        return Outcome(created=created, boot_id=context.boot_id, limits=want.spec.resources)

    async def _start(self, record: Local, want: Instance) -> Outcome:
        folder = self._context.bundle(record.instance)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._known(record)
        (folder / RELEASED).touch()
        await self._context.runtime.start(record.instance)
        return Outcome(watch=self.watch_of(record, want))

    def watch_of(self, record: Local, want: Instance) -> Watch:
        """How it is found ready once it runs."""
        return watch_of(want, self._image(record))

    def _image(self, record: Local) -> ImageConfig:
        return self._context.images.find(record.image_id).config

    # -- towards an end -----------------------------------------------------------------------------
    async def _stop(self, action: Action, record: Local, want: Instance | None, ended: asyncio.Event) -> None:
        """The polite signal and its grace, unless by force; then kill. A frozen process, or one that may be,
        gets both thawed."""
        grace = 0.0 if action.force else _grace(action, want)
        if grace > 0:
            await self._signal(record, self._stop_signal(record, want))
            if await _within(ended, grace):
                return
        await self._signal(record, signal.SIGKILL, everyone=True)
        if not await _within(ended, KILL_DEADLINE):
            raise Internal(f"its process did not end {KILL_DEADLINE:g} s after it was killed")

    async def _signal(self, record: Local, number: int, *, everyone: bool = False) -> None:
        runtime = self._context.runtime
        await runtime.signal(record.instance, number, all_processes=everyone)
        if record.paused or record.switching or freeze.is_still(self._context, record.instance):
            with contextlib.suppress(WrongState, NotFound):  # it is gone already
                await runtime.resume(record.instance)

    def _stop_signal(self, record: Local, want: Instance | None) -> int:
        """The request's, else the spec's, else the image's; a stranger's image may say nonsense."""
        for text in (want.stop_signal, want.spec.stop_signal) if want is not None else ():
            if text:
                return signal_number(text)
        try:
            return signal_number(self._image(record).stop_signal or "SIGTERM")
        except (InvalidInput, NotFound):
            return signal.SIGTERM

    async def _clean(self, record: Local) -> None:
        """Runtime and network together, then the mount: nothing may run on a root that goes."""
        context = self._context
        self._prepared.pop(record.instance, None)
        runtime = context.runtime.delete(record.instance, force=True)
        await together((runtime, endpoints.disconnect(context, record.instance)))
        await context.images.unmount_root(record.instance)
        await in_thread(remove_tree, context.bundle(record.instance))

    async def _remove(self, record: Local, want: Instance | None) -> None:
        context = self._context
        await context.images.remove_root(record.instance)
        await in_thread(remove_tree, context.folder(record.instance))
        if want is None or want.remove_volumes or want.spec.auto_remove or want.service is not None:
            await context.volumes.remove_anonymous(record.instance)


def _wiring(wired: endpoints.Wired, **more: Any) -> Outcome:
    return Outcome(**msgspec.structs.asdict(wired), **more)


def signal_number(text: str) -> int:
    """`SIGTERM`, `term`, `15` → 15. Raises InvalidInput."""
    name = text.upper()
    if name.isdecimal() and 1 <= int(name) <= 64:
        return int(name)
    name = name if name.startswith("SIG") else f"SIG{name}"
    if name.startswith("SIGRTMIN+") and name[9:].isdecimal() and int(name[9:]) <= 30:
        return int(signal.SIGRTMIN) + int(name[9:])
    try:
        return int(signal.Signals[name])
    except KeyError:
        raise InvalidInput(
            f"invalid signal {text[:40]!r}", hint="Write for example TERM, SIGKILL or 9"
        ) from None


def _wanted(want: Instance | None) -> Instance:
    if want is None:
        raise Internal("a start of something that nobody wants")
    return want


def _grace(action: Action, want: Instance | None) -> float:
    if action.grace is not None:
        return action.grace
    return 10.0 if want is None else want.spec.stop_grace


@contextlib.asynccontextmanager
async def _soon(what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(PREPARE_DEADLINE):
            yield
    except TimeoutError:
        raise DeadlineExceeded(f"{what} did not stand within {PREPARE_DEADLINE:g} s") from None


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """True when the event came within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
