"""The steps of an instance's life, done: images, roots, networks, volumes and the runtime in their order.

Every step is idempotent and gives its outcome; it may raise FlotaError or OSError, which the worker turns
into the outcome's words. What may overlap on the way to a start does.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable

from agent import assemble, endpoints
from agent.context import Context
from agent.lifecycle import Action, Outcome, Step
from agent.record import Local
from agent.runtime.base import Created, Exit
from aio.supervisor import in_thread
from model.errors import FlotaError, Internal, InvalidInput
from model.image import ImageConfig
from model.records import Instance
from model.spec import Mount
from model.status import Endpoint

KILL_DEADLINE = 10.0


class Actions:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._mounts: dict[str, tuple[Mount, ...]] = {}
        self._netns: dict[str, str] = {}

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
                await self._context.runtime.start(record.instance)
            case Step.STOP:
                await self._stop(action, record, want, ended)
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

    # -- towards a start ----------------------------------------------------------------------------
    async def _root(self, want: Instance) -> Outcome:
        spec = want.spec
        image = await self._context.images.ensure(spec.image, policy=spec.pull, platform=spec.platform)
        await self._context.images.prepare_root(want.id, image.id)
        return Outcome(image_id=image.id)

    async def _prepare(self, record: Local, want: Instance) -> Outcome:
        context = self._context
        image = self._image(record)
        try:
            async with asyncio.TaskGroup() as group:
                mounted = group.create_task(context.images.mount_root(want.id))
                connected = group.create_task(self._connect(record, want))
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        feet = connected.result()
        root = mounted.result().path
        mounts, volumes, anonymous = await assemble.mounts_of(context, want, image, root, record.volumes)
        ports = await endpoints.publish(context, want, image, feet)
        self._mounts[want.id] = mounts
        return Outcome(endpoints=feet, ports=ports, volumes=volumes, anonymous=anonymous)

    async def _connect(self, record: Local, want: Instance) -> tuple[Endpoint, ...]:
        self._netns[want.id] = await endpoints.namespace(self._context, want)
        return await endpoints.connect(self._context, want, record.endpoints)

    async def _create(self, record: Local, want: Instance) -> Outcome:
        context = self._context
        root = await context.images.mount_root(want.id)
        bundle = await assemble.bundle(
            context,
            want,
            self._image(record),
            root=root.path,
            netns=self._netns.pop(want.id, ""),
            endpoints=record.endpoints,
            mounts=self._mounts.pop(want.id, ()),
        )
        return Outcome(created=await context.runtime.create(bundle), boot_id=context.boot_id)

    def _image(self, record: Local) -> ImageConfig:
        return self._context.images.find(record.image_id).config

    # -- towards an end -----------------------------------------------------------------------------
    async def _stop(self, action: Action, record: Local, want: Instance | None, ended: asyncio.Event) -> None:
        """The polite signal and its grace, unless by force or not yet started; then kill."""
        runtime = self._context.runtime
        grace = 0.0 if action.force or not record.started else _grace(want)
        if grace > 0:
            if record.paused:
                await runtime.resume(record.instance)
            await runtime.signal(record.instance, self._stop_signal(record, want))
            if await _within(ended, grace):
                return
        await runtime.signal(record.instance, signal.SIGKILL, all_processes=True)
        if not await _within(ended, KILL_DEADLINE):
            raise Internal(f"its process did not end {KILL_DEADLINE:g} s after it was killed")

    def _stop_signal(self, record: Local, want: Instance | None) -> int:
        text = ""
        if want is not None:
            text = want.stop_signal or want.spec.stop_signal
        return signal_number(text or self._image(record).stop_signal or "SIGTERM")

    async def _clean(self, record: Local) -> None:
        """Runtime and network together, then the mount: nothing may run on a root that goes."""
        context = self._context
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(context.runtime.delete(record.instance, force=True))
                group.create_task(endpoints.disconnect(context, record.instance, record.endpoints))
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        await context.images.unmount_root(record.instance)
        await in_thread(shutil.rmtree, context.bundle(record.instance), True)

    async def _remove(self, record: Local, want: Instance | None) -> None:
        context = self._context
        await context.images.remove_root(record.instance)
        await in_thread(shutil.rmtree, context.folder(record.instance), True)
        self._mounts.pop(record.instance, None)
        self._netns.pop(record.instance, None)
        if want is None or want.remove_volumes or want.spec.auto_remove or want.service is not None:
            for name in record.anonymous:
                if not [user for user in context.volumes.used_by(name) if user != _name(record, want)]:
                    await context.volumes.remove_unused(name)


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


def _grace(want: Instance | None) -> float:
    if want is None:
        return 10.0
    return want.spec.stop_grace if want.stop_grace is None else want.stop_grace


def _name(record: Local, want: Instance | None) -> str:
    return want.name if want is not None else record.instance


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure to tell: a cancellation before all, then the first FlotaError."""
    leaves = list(_leaves(failures))
    for kind in (asyncio.CancelledError, FlotaError, OSError, BaseException):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return failures


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
