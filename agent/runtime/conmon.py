"""The Runtime seam over runc and conmon.

conmon holds each container: it owns the ends of its pipes or terminal, writes its log, and leaves its exit
code in a file, whether or not an agent lives. All that is known about a container is therefore in the kernel,
in runc's state directory and in the bundle directory; this class keeps nothing that a restart would lose.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from agent.cgroup import CgroupFiles
from agent.oci.cgroups import is_slice
from agent.runtime import argv, execfolder, exits
from agent.runtime.argv import Programs
from agent.runtime.attach import STDIN_ONCE, Attachment, control
from agent.runtime.base import Bundle, Created, ExecHandle, Exit, State
from agent.runtime.runcstate import RuncState, start_held
from agent.runtime.spawn import output
from agent.runtime.supervise import Supervised, supervise
from agent.runtime.sweep import sweep
from model.errors import CommandFailed, FlotaError, NotFound, Unsupported, WrongState
from model.spec import Struct
from model.streams import ExecSpec


class Deadlines(Struct):
    """Seconds, one per kind of step."""

    create: float = 30.0
    start: float = 10.0
    command: float = 15.0
    kill: float = 10.0


DEADLINES = Deadlines()


class ConmonRuntime:
    """`run_root` holds runc's state (on a tmpfs: it must not outlive a boot). `cgroup_parent`, a path or a
    slice of systemd's, is ours alone, with a cgroup for each container; `former_parents` are those of earlier
    starts."""

    def __init__(
        self,
        run_root: str,
        *,
        runc: str = "runc",
        conmon: str = "conmon",
        cgroup_parent: str = "/flota",
        former_parents: Sequence[str] = (),
        deadlines: Deadlines = DEADLINES,
        cgroup_root: str = "/sys/fs/cgroup",
    ) -> None:
        root = os.path.join(run_root, "runc")
        os.makedirs(root, mode=0o700, exist_ok=True)
        systemd = is_slice(cgroup_parent)
        self._programs = Programs(runc=_find(runc), conmon=_find(conmon), root=root, systemd=systemd)
        self._deadlines = deadlines
        self._env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
        self._states = RuncState(root)
        self._turns = asyncio.Semaphore(2 * (os.cpu_count() or 1))
        self.cgroups = CgroupFiles(cgroup_root, cgroup_parent, former_parents)

    @property
    def programs(self) -> Programs:
        """For those who run runc themselves on the same state, whose leftovers are then found here."""
        return self._programs

    def cgroups_path(self, container: str) -> str:
        """What goes to `linux.cgroupsPath` of the container's configuration."""
        return self.cgroups.path(container)

    # -- life ---------------------------------------------------------------------------------------
    async def create(self, bundle: Bundle) -> Created:
        if self._states.known(bundle.id):
            # Said here, since a create that failed clears what it may have left, and this one is not its.
            raise CommandFailed(f"container {bundle.id[:12]} already exists in the runtime")
        async with self._turns:
            _write_bundle(bundle)
            command = argv.conmon_create(
                self._programs,
                bundle.id,
                bundle.directory,
                log_path=bundle.log_path,
                tty=bundle.tty,
                stdin=bundle.stdin,
                once=bundle.stdin_once,
            )
            try:
                made = await supervise(command, bundle.directory, deadline=self._deadlines.create)
            except asyncio.CancelledError:
                await asyncio.shield(self._clear(bundle.id))
                raise
            except FlotaError:
                await self._clear(bundle.id)
                raise
        return Created(pid=made.pid, conmon_pid=made.conmon_pid, conmon_started=made.conmon_started)

    async def start(self, container: str) -> None:
        if not await start_held(self._states, container, deadline=self._deadlines.start):
            await self._runc("start", container)

    async def signal(self, container: str, signal: int, *, all_processes: bool = False) -> None:
        words = ["kill", *(["--all"] if all_processes else []), container, str(signal)]
        with self._gone_is_fine(container):
            await self._runc(*words)

    async def pause(self, container: str) -> None:
        await self._switch(container, "pause", State.PAUSED)

    async def resume(self, container: str) -> None:
        await self._switch(container, "resume", State.RUNNING)

    async def delete(self, container: str, *, force: bool = True) -> None:
        if self._states.known(container):
            if force:
                self.cgroups.thaw(container)
                await self._states.kill(container, deadline=self._deadlines.kill)
            try:
                await self._runc("delete", *(["--force"] if force else []), container)
            except CommandFailed:
                if self._states.known(container):
                    raise
            if self._states.known(container):
                self._states.clear(container)
        await sweep(self.cgroups, container, deadline=self._deadlines.kill)

    # -- knowing ------------------------------------------------------------------------------------
    async def state(self, container: str) -> State | None:
        if not self._states.known(container):
            return None
        try:
            said = await self._runc("state", container)
        except CommandFailed:
            if self._states.known(container):
                raise
            return None
        return State(msgspec.json.decode(said, type=_Said).status)

    async def list(self) -> Sequence[str]:
        return self._states.list()

    async def pids(self, container: str) -> Sequence[int]:
        return self.cgroups.pids(container)

    def watch_exit(
        self, bundle_directory: str, created: Created, ring: Callable[[Exit], None]
    ) -> Callable[[], None]:
        return exits.watch(bundle_directory, created.conmon_pid, created.conmon_started, ring)

    # -- streams ------------------------------------------------------------------------------------
    async def attach(self, bundle_directory: str, *, stdin: bool) -> ExecHandle:
        return await Attachment.open(bundle_directory, stdin=stdin)

    async def exec(
        self,
        container: str,
        bundle_directory: str,
        spec: ExecSpec,
        process: Mapping[str, Any],
        *,
        deadline: float = 0.0,
    ) -> ExecHandle:
        directory = execfolder.make(bundle_directory)
        try:
            with open(os.path.join(directory, "process.json"), "wb") as file:
                file.write(msgspec.json.encode(process))
            command = argv.conmon_exec(
                self._programs,
                container,
                directory,
                tty=spec.tty,
                stdin=spec.stdin and not spec.detach,
                attach=not spec.detach,
                timeout=math.ceil(deadline),
            )
            async with self._turns:
                return await self._exec(command, directory, spec)
        except BaseException:
            execfolder.remove(directory)
            raise

    async def adopt(self, bundle_directory: str) -> None:
        execfolder.adopt(bundle_directory)

    async def _exec(self, command: Sequence[str], directory: str, spec: ExecSpec) -> ExecHandle:
        if spec.detach:
            made = await supervise(command, directory, deadline=self._deadlines.create)
            return _of_exec(Attachment(directory, stdin=False), directory, made)
        attachments: list[Attachment] = []

        async def ready() -> None:
            attachments.append(await Attachment.open(directory, stdin=spec.stdin))
            if spec.tty and spec.rows and spec.cols:
                control(directory, argv.control_resize(spec.rows, spec.cols))

        try:
            made = await supervise(command, directory, deadline=self._deadlines.create, ready=ready)
        except BaseException:
            for attachment in attachments:
                await attachment.close()
            raise
        return _of_exec(attachments[0], directory, made)

    async def reopen_log(self, bundle_directory: str) -> None:
        control(bundle_directory, argv.CONTROL_REOPEN_LOG)

    # -- limits -------------------------------------------------------------------------------------
    async def update(self, container: str, resources: Mapping[str, Any]) -> None:
        await self._runc("update", "--resources", "-", container, stdin=msgspec.json.encode(resources))

    # -- inner parts --------------------------------------------------------------------------------
    async def _runc(self, *words: str, stdin: bytes | None = None) -> bytes:
        command = argv.runc(self._programs, *words)
        return await output(command, self._env, deadline=self._deadlines.command, stdin=stdin)

    async def _switch(self, container: str, verb: str, wanted: State) -> None:
        try:
            await self._runc(verb, container)
        except CommandFailed:
            now = await self.state(container)
            if now is None:
                raise NotFound(f"the runtime has no container {container[:12]}") from None
            if now is wanted:
                return
            if now in (State.STOPPED, State.CREATED):
                raise WrongState(f"container {container[:12]} is {now}") from None
            raise

    @contextlib.contextmanager
    def _gone_is_fine(self, container: str) -> Any:
        try:
            yield
        except CommandFailed:
            if self._states.alive(container):
                raise

    async def _clear(self, container: str) -> None:
        """What a create that did not succeed may have left behind."""
        await self.delete(container, force=True)


def _of_exec(attachment: Attachment, directory: str, made: Supervised) -> Attachment:
    attachment.process = made
    attachment.ended = execfolder.watch(directory, made.conmon_pid, made.conmon_started)
    return attachment


class _Said(msgspec.Struct):
    status: str


def _find(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise Unsupported(f"{program} is not on this host", hint=f"Install {os.path.basename(program)}")
    return found


_STALE = (STDIN_ONCE, "exit", "oom", "pid", "conmon.pid", "attach", "ctl", "winsz")


def _write_bundle(bundle: Bundle) -> None:
    os.makedirs(bundle.directory, mode=0o700, exist_ok=True)
    for name in (*_STALE, bundle.id):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(bundle.directory, name))
    with open(os.path.join(bundle.directory, "config.json"), "wb") as file:
        file.write(msgspec.json.encode(bundle.config))
    if bundle.stdin_once:
        with open(os.path.join(bundle.directory, STDIN_ONCE), "wb"):
            return
