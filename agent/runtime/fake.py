"""A Runtime in memory, for tests of whatever drives one.

Its containers run scripted programs: `programs` maps a process's args to what they do, anything else runs
until a signal ends it. Invariant: it keeps the seam's promises as ConmonRuntime does (one contract suite runs
against both), and it outlives the agent under test: hand the same FakeRuntime to the next one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal as signals
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agent.runtime.base import Bundle, Created, ExecHandle, Exit, State
from model.errors import CommandFailed, FlotaError, NotFound, WrongState
from model.streams import STDERR, STDOUT, ExecSpec

CLOCK_START = 1_700_000_000.0


@dataclass(frozen=True)
class Program:
    """What a process does: print, then exit with `code`, or run on when it is None.

    `echo` sends stdin back to stdout and exits 0 at its end. `ignores` are signals it survives.
    `missing` makes its start fail as an executable that is not there.
    """

    code: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    echo: bool = False
    ignores: frozenset[int] = frozenset()
    missing: bool = False


class _Process:
    """A scripted process and the handles that look at it."""

    def __init__(self, pid: int, program: Program) -> None:
        self.pid = pid
        self.program = program
        self.handles: list[FakeHandle] = []
        self.exit: Exit | None = None
        self.ended = asyncio.Event()
        self.size = (0, 0)
        self.on_exit: list[Callable[[Exit], None]] = []
        self.sink: Callable[[int, bytes], None] = lambda stream, data: None

    def run(self) -> None:
        for stream, data in ((STDOUT, self.program.stdout), (STDERR, self.program.stderr)):
            if data:
                self.emit(stream, data)
        if self.program.code is not None:
            self.finish(self.program.code)

    def emit(self, stream: int, data: bytes) -> None:
        self.sink(stream, data)
        for handle in self.handles:
            handle.deliver((stream, data))

    def signal(self, number: int) -> None:
        if number == signals.SIGKILL or (number not in self.program.ignores and number != 0):
            self.finish(128 + number)

    def finish(self, code: int | None, *, oom_killed: bool = False) -> None:
        if self.exit is not None:
            return
        self.exit = Exit(code=code, oom_killed=oom_killed, at=CLOCK_START)
        self.ended.set()
        for handle in self.handles:
            handle.deliver(None)
        for ring in self.on_exit:
            ring(self.exit)


class FakeHandle:
    """The ExecHandle of a scripted process."""

    def __init__(self, process: _Process, *, stdin: bool, attached: bool) -> None:
        self._process = process
        self._stdin = stdin
        self._attached = attached
        self._items: deque[tuple[int, bytes] | None] = deque()
        self._bell = asyncio.Event()
        self.written = bytearray()
        """All that was sent to stdin through this handle."""
        process.handles.append(self)

    def deliver(self, item: tuple[int, bytes] | None) -> None:
        self._items.append(item)
        self._bell.set()

    async def read(self) -> tuple[int, bytes] | None:
        while not self._items:
            self._bell.clear()
            await self._bell.wait()
        if self._items[0] is None:
            return None
        return self._items.popleft()

    async def write(self, data: bytes) -> None:
        if self._stdin and self._process.exit is None:
            self.written += data
            if self._process.program.echo:
                self._process.emit(STDOUT, data)

    async def close_stdin(self) -> None:
        if self._stdin and self._process.program.echo:
            self._process.finish(0)

    async def resize(self, rows: int, cols: int) -> None:
        self._process.size = (rows, cols)

    async def wait(self) -> Exit:
        if self._attached:
            raise WrongState("an attach has no exit of its own")
        await self._process.ended.wait()
        assert self._process.exit is not None
        return self._process.exit

    async def signal(self, signal: int) -> None:
        self._process.signal(signal)

    async def kill(self) -> None:
        self._process.signal(signals.SIGKILL)

    async def close(self) -> None:
        if self in self._process.handles:
            self._process.handles.remove(self)
        self.deliver(None)


@dataclass
class _Container:
    bundle: Bundle
    process: _Process
    state: State = State.CREATED
    execs: list[_Process] = field(default_factory=list)
    resources: dict[str, Any] = field(default_factory=dict)


class FakeRuntime:
    """`calls` lists what was asked, as (operation, container id or bundle directory, …)."""

    def __init__(self, programs: Mapping[tuple[str, ...], Program] | None = None) -> None:
        self.programs = dict(programs or {})
        self.calls: list[tuple[Any, ...]] = []
        self._containers: dict[str, _Container] = {}
        self._attempts: dict[str, _Container] = {}
        self._failures: dict[str, deque[FlotaError]] = {}
        self._held: dict[str, asyncio.Event] = {}
        self._pids = itertools.count(1000)

    # -- scripting ----------------------------------------------------------------------------------
    def fail(self, operation: str, error: FlotaError, *, times: int = 1) -> None:
        """The next `times` calls of `operation` (a method's name) raise `error` and change nothing."""
        self._failures.setdefault(operation, deque()).extend([error] * times)

    def hold(self, operation: str) -> asyncio.Event:
        """Calls of `operation` wait until the returned event is set."""
        return self._held.setdefault(operation, asyncio.Event())

    def exit(self, container: str, code: int | None, *, oom_killed: bool = False) -> None:
        """The container's process ends by itself; None: as if conmon was killed, its exit code is lost."""
        self._container(container).process.finish(code, oom_killed=oom_killed)

    def emit(self, container: str, data: bytes, stream: int = STDOUT) -> None:
        """The container's process prints."""
        self._container(container).process.emit(stream, data)

    def bundle(self, container: str) -> Bundle:
        """What the container was created from. Raises NotFound."""
        return self._container(container).bundle

    def resources(self, container: str) -> Mapping[str, Any]:
        """The last `update`."""
        return self._container(container).resources

    # -- the seam -----------------------------------------------------------------------------------
    async def create(self, bundle: Bundle) -> Created:
        await self._enter("create", bundle.id)
        if bundle.id in self._containers:
            raise CommandFailed(f"container with id exists: {bundle.id}")
        args = tuple(bundle.config["process"]["args"])
        program = self.programs.get(args, Program())
        if program.missing:
            raise CommandFailed(f'exec: "{args[0]}": executable file not found in $PATH')
        if os.path.isdir(os.path.dirname(bundle.directory)):
            os.makedirs(bundle.directory, exist_ok=True)
            with open(os.path.join(bundle.directory, "config.json"), "wb") as file:
                file.write(json.dumps(bundle.config).encode())
        process = _Process(next(self._pids), program)
        container = _Container(bundle=bundle, process=process)
        process.sink = lambda stream, data: _log(bundle.log_path, stream, data)
        process.on_exit.append(lambda _: self._stopped(container))
        self._containers[bundle.id] = self._attempts[bundle.directory] = container
        return Created(pid=process.pid, conmon_pid=next(self._pids), conmon_started=process.pid)

    async def start(self, container: str) -> None:
        await self._enter("start", container)
        found = self._container(container)
        if found.state is not State.CREATED:
            raise CommandFailed(f"cannot start a container in the {found.state} state")
        found.state = State.RUNNING
        found.process.run()

    async def signal(self, container: str, signal: int, *, all_processes: bool = False) -> None:
        await self._enter("signal", container, signal)
        if container in self._containers:
            self._containers[container].process.signal(signal)

    async def pause(self, container: str) -> None:
        await self._enter("pause", container)
        self._switch(container, State.RUNNING, State.PAUSED)

    async def resume(self, container: str) -> None:
        await self._enter("resume", container)
        self._switch(container, State.PAUSED, State.RUNNING)

    async def delete(self, container: str, *, force: bool = True) -> None:
        await self._enter("delete", container)
        found = self._containers.get(container)
        if found is None:
            return
        if not force and found.state is not State.STOPPED:
            raise CommandFailed(f"cannot delete container {container} that is not stopped: {found.state}")
        found.process.finish(128 + signals.SIGKILL)
        for process in found.execs:
            process.finish(128 + signals.SIGKILL)
        del self._containers[container]

    async def state(self, container: str) -> State | None:
        await self._enter("state", container)
        return self._containers[container].state if container in self._containers else None

    async def list(self) -> Sequence[str]:
        await self._enter("list")
        return sorted(self._containers)

    def watch_exit(
        self, bundle_directory: str, created: Created, ring: Callable[[Exit], None]
    ) -> Callable[[], None]:
        self.calls.append(("watch_exit", bundle_directory))
        loop = asyncio.get_running_loop()
        attempt = self._attempts.get(bundle_directory)
        if attempt is None or attempt.process.pid != created.conmon_started:
            return loop.call_soon(ring, Exit(code=None, at=CLOCK_START)).cancel
        process, timers = attempt.process, list[asyncio.Handle]()

        def heard(exit: Exit) -> None:
            timers.append(loop.call_soon(ring, exit))

        def stop() -> None:
            if heard in process.on_exit:
                process.on_exit.remove(heard)
            for timer in timers:
                timer.cancel()

        if process.exit is not None:
            heard(process.exit)
        else:
            process.on_exit.append(heard)
        return stop

    async def attach(self, bundle_directory: str, *, stdin: bool) -> ExecHandle:
        await self._enter("attach", bundle_directory)
        attempt = self._attempts.get(bundle_directory)
        if attempt is None or attempt.process.exit is not None:
            raise WrongState("cannot attach: the container is not running")
        return FakeHandle(attempt.process, stdin=stdin and attempt.bundle.stdin, attached=True)

    async def exec(
        self,
        container: str,
        bundle_directory: str,
        spec: ExecSpec,
        process: Mapping[str, Any],
        *,
        deadline: float = 0.0,
    ) -> ExecHandle:
        await self._enter("exec", container, tuple(process["args"]))
        found = self._container(container)
        if found.state is not State.RUNNING:
            raise WrongState(f"cannot exec in a {found.state} container")
        program = self.programs.get(tuple(process["args"]), Program())
        if program.missing:
            raise CommandFailed(f'exec: "{process["args"][0]}": executable file not found in $PATH')
        made = _Process(next(self._pids), program)
        made.size = (spec.rows, spec.cols)
        found.execs.append(made)
        handle = FakeHandle(made, stdin=spec.stdin, attached=False)
        made.run()
        if deadline:
            asyncio.get_running_loop().call_later(deadline, made.finish, 128 + signals.SIGKILL)
        return handle

    async def adopt(self, bundle_directory: str) -> None:
        await self._enter("adopt", bundle_directory)

    async def update(self, container: str, resources: Mapping[str, Any]) -> None:
        await self._enter("update", container)
        self._container(container).resources.update(resources)

    async def reopen_log(self, bundle_directory: str) -> None:
        await self._enter("reopen_log", bundle_directory)
        if bundle_directory in self._attempts:
            with open(self._attempts[bundle_directory].bundle.log_path, "ab"):
                return

    async def pids(self, container: str) -> Sequence[int]:
        await self._enter("pids", container)
        found = self._containers.get(container)
        if found is None:
            return []
        return [p.pid for p in (found.process, *found.execs) if p.exit is None]

    # -- inner parts --------------------------------------------------------------------------------
    async def _enter(self, operation: str, *subject: Any) -> None:
        self.calls.append((operation, *subject))
        if operation in self._held:
            await self._held[operation].wait()
        await asyncio.sleep(0)
        if self._failures.get(operation):
            raise self._failures[operation].popleft()

    def _container(self, container: str) -> _Container:
        if container not in self._containers:
            raise NotFound(f"the runtime has no container {container[:12]}")
        return self._containers[container]

    def _switch(self, container: str, before: State, after: State) -> None:
        found = self._container(container)
        if found.state not in (before, after):
            raise WrongState(f"container {container[:12]} is {found.state}")
        found.state = after

    @staticmethod
    def _stopped(container: _Container) -> None:
        container.state = State.STOPPED
        for process in container.execs:
            process.finish(128 + signals.SIGKILL)


def _log(path: str, stream: int, data: bytes) -> None:
    """Append as conmon does: `TIME stdout|stderr F|P text`, F for a whole line and P for a part of one."""
    if not os.path.isdir(os.path.dirname(path)):
        return
    head = f"{datetime.now(UTC).isoformat()} {'stdout' if stream == STDOUT else 'stderr'} ".encode()
    with open(path, "ab") as file:
        for line in data.splitlines(keepends=True):
            file.write(head + (b"F " + line if line.endswith(b"\n") else b"P " + line + b"\n"))
