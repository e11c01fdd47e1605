"""One step's process under a runc in the foreground: its output as it comes, its end, no trace of it after.

A step needs no supervisor that outlives the agent: its result would be nobody's. Invariants: when `run`
returns or raises, nothing of the step runs, and runc's state and its cgroup are gone; a step that prints
without end costs no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec

from agent.build.clip import Clip, Held
from agent.build.refusal import complaint, late, refusal
from agent.cgroup import CgroupFiles
from agent.runtime import argv
from agent.runtime.argv import Programs
from agent.runtime.base import Runtime
from agent.runtime.spawn import Pipe
from aio.spawn import Child, readable, spawn
from aio.together import to_its_end, together
from model.errors import InvalidInput
from model.spec import Struct

Heard = Callable[[bytes, bool], None]
"""What it says, and whether on stderr."""
PIECE = 1 << 16
LOG_LIMIT = 1 << 20
_ENV = {"PATH": os.defpath, "LANG": "C.UTF-8"}


class Ended(Struct):
    code: int
    oom: bool = False
    """The kernel killed a process of it at its memory limit."""


class Bundle(Struct):
    """`folder` is the step's own, of which runc gets config.json; `watched`: it has a memory limit."""

    ident: str
    folder: str
    config: Mapping[str, Any]
    watched: bool = False

    @property
    def args(self) -> Sequence[str]:
        args: Sequence[str] = self.config["process"]["args"]
        return args

    def write(self) -> None:
        """Raises InvalidInput for text that no JSON can hold."""
        try:
            data = msgspec.json.encode(self.config)
        except (UnicodeEncodeError, msgspec.EncodeError) as error:
            raise InvalidInput(
                "RUN: its arguments, variables and mount targets must be UTF-8 text"
            ) from error
        with open(self.config_path, "wb", opener=_private) as file:
            file.write(data)

    @property
    def config_path(self) -> str:
        return os.path.join(self.folder, "config.json")

    @property
    def log_path(self) -> str:
        return os.path.join(self.folder, "runc.log")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


class Processes:
    """Those of one agent's builds. `runtime` knows the same runc state; it is asked to clear up."""

    def __init__(self, programs: Programs, runtime: Runtime, cgroups: CgroupFiles) -> None:
        self._programs = programs
        self._runtime = runtime
        self._cgroups = cgroups

    async def run(self, bundle: Bundle, heard: Heard) -> Ended:
        """To its end; cancelled, it is killed with all that it started. Raises FlotaError when it could not
        be started."""
        out, err = Pipe(we_read=True), Pipe(we_read=True)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        clip, tail, held = Clip(), _Tail(), Held()

        def said(data: bytes) -> None:
            _tell(heard, clip.take(data), stderr=False)

        def complained(data: bytes) -> None:
            tail.add(data)
            _tell(heard, clip.take(held.take(data)), stderr=True)

        try:
            async with self.spawned(bundle, stdin=null, stdout=out.theirs, stderr=err.theirs) as child:
                out.close_theirs()
                err.close_theirs()
                texts = together((drain(out.ours, said), drain(err.ours, complained)))
                code, _ = await together((child.wait(), texts))
                oom = bundle.watched and self._killed_for_memory(bundle.ident)
        finally:
            os.close(null)
            out.close()
            err.close()
        self.judge(bundle, code, tail.data)
        _tell(heard, clip.take(held.rest()) + clip.rest(), stderr=True)
        return Ended(code=status_of(code), oom=oom)

    @contextlib.asynccontextmanager
    async def spawned(self, bundle: Bundle, *, stdin: int, stdout: int, stderr: int) -> AsyncIterator[Child]:
        """A runc that runs it, of which the block waits for the end. However the block ends, nothing of the
        container is left then; runc tidies up itself after an end that it sees."""
        bundle.write()
        child = spawn(self._command(bundle), _ENV, stdin=stdin, stdout=stdout, stderr=stderr, fds={})
        try:
            yield child
        except BaseException:
            await to_its_end(self._killed(bundle, child))
            raise
        if bundle.watched or os.path.exists(os.path.join(self._programs.root, bundle.ident)):
            await to_its_end(self._runtime.delete(bundle.ident, force=True))

    async def _killed(self, bundle: Bundle, child: Child) -> None:
        await child.end()
        await self._runtime.delete(bundle.ident, force=True)

    def _command(self, bundle: Bundle) -> list[str]:
        return argv.runc(
            self._programs,
            *("--log", bundle.log_path, "--log-format", "json", "run"),
            *(["--keep"] if bundle.watched else []),
            *("--bundle", bundle.folder, bundle.ident),
        )

    def judge(self, bundle: Bundle, code: int, last: bytes) -> None:
        """Raises FlotaError where no process of the step was started."""
        if code == 0:
            return
        workdir = bundle.config["process"]["cwd"]
        if said := complaint(_log_of(bundle)):
            raise refusal(said, bundle.args, workdir)
        if code in (1, 255) and (error := late(last, bundle.args)) is not None:
            raise error

    def _killed_for_memory(self, ident: str) -> bool:
        name = "memory.events" if self._cgroups.unified else "memory.oom_control"
        return self._cgroups.table(ident, "memory", name).get("oom_kill", 0) > 0


def status_of(code: int) -> int:
    """As a shell tells it: 128 + n for signal n."""
    return code if code >= 0 else 128 - code


class _Tail:
    """The last words."""

    def __init__(self) -> None:
        self.data = b""

    def add(self, data: bytes) -> None:
        self.data = (self.data + data)[-1024:]


def _tell(heard: Heard, data: bytes, *, stderr: bool) -> None:
    if data:
        heard(data, stderr)


def _log_of(bundle: Bundle) -> bytes:
    try:
        with open(bundle.log_path, "rb") as file:
            return file.read(LOG_LIMIT)
    except FileNotFoundError:
        return b""


async def drain(fd: int, heard: Callable[[bytes], None]) -> None:
    """All that comes, to its end; others get their turn after each piece."""
    while True:
        try:
            data = os.read(fd, PIECE)
        except BlockingIOError:
            await readable(fd)
            continue
        if not data:
            return
        heard(data)
        await asyncio.sleep(0)
