"""The Runtime seam: OCI containers that outlive the agent.

Implementations: `agent.runtime.conmon.ConmonRuntime` (runc + conmon), `agent.runtime.fake.FakeRuntime`.
Invariants: already-so is success (delete of an absent container, kill of a dead one); absent is a value
(`None`), not an error; nothing here depends on the agent staying alive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from model.spec import Struct
from model.streams import ExecSpec


class State(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class Bundle(Struct):
    """What `create` gets: an OCI configuration as plain data, and where its files go."""

    id: str
    """Container id, 64 hex digits."""
    directory: str
    """Bundle directory of this attempt; config.json, pid files, sockets and the exit file live here."""
    config: dict[str, Any]
    log_path: str
    """Empty: what it says is kept nowhere."""
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False


class Created(Struct):
    pid: int
    """The container's first process, held by the runtime until `start`."""
    conmon_pid: int
    conmon_started: int
    """Its start time (field 22 of /proc/PID/stat), so that a reused pid is not mistaken for it."""


class Exit(Struct):
    code: int | None
    """128 + n for signal n; None if it was lost (conmon was killed)."""
    oom_killed: bool = False
    at: float = 0.0
    """Unix seconds."""


class ExecHandle(Protocol):
    """A process that was started by exec, or the attach side of a container."""

    async def read(self) -> tuple[int, bytes] | None:
        """Next (streams.STDOUT|STDERR, data), or None at the end."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def resize(self, rows: int, cols: int) -> None: ...

    async def wait(self) -> Exit:
        """Of an exec: its exit. Of an attach: raises; the agent knows the container's exit itself."""
        ...

    async def signal(self, signal: int) -> None: ...

    async def kill(self) -> None:
        """End an exec'd process at once, with its process group."""
        ...

    async def close(self) -> None:
        """Let go of it. The process lives on, also an exec'd one (as in Docker); `signal` it to end it."""
        ...


class Runtime(Protocol):
    async def create(self, bundle: Bundle) -> Created:
        """Write the bundle, create the container, hold its process. Raises CommandFailed in runc's words."""
        ...

    async def start(self, container: str) -> None:
        """Let the held process run. Raises CommandFailed (e.g. executable not found)."""
        ...

    async def signal(self, container: str, signal: int, *, all_processes: bool = False) -> None: ...

    async def pause(self, container: str) -> None: ...

    async def resume(self, container: str) -> None: ...

    async def delete(self, container: str, *, force: bool = True) -> None:
        """Processes, cgroup and runtime state go; the bundle's files stay for the caller."""
        ...

    async def state(self, container: str) -> State | None: ...

    async def list(self) -> Sequence[str]:
        """Ids of all containers the runtime knows under our root."""
        ...

    def watch_exit(
        self, bundle_directory: str, created: Created, ring: Callable[[Exit], None]
    ) -> Callable[[], None]:
        """Call `ring` once when the container has exited, also when that was before this call or before this
        agent's life. Returns a function that stops watching."""
        ...

    async def attach(self, bundle_directory: str, *, stdin: bool) -> ExecHandle: ...

    async def exec(
        self,
        container: str,
        bundle_directory: str,
        spec: ExecSpec,
        process: Mapping[str, Any],
        *,
        deadline: float = 0.0,
    ) -> ExecHandle:
        """`process` is the OCI process object (see `agent.ocispec.exec_process`). After `deadline` seconds
        (0: never; rounded up to whole ones) it is killed with its process group, also if no agent lives."""
        ...

    async def adopt(self, bundle_directory: str) -> None:
        """Go on with what another agent left of its execs in a container that lives."""
        ...

    async def update(self, container: str, resources: Mapping[str, Any]) -> None: ...

    async def reopen_log(self, bundle_directory: str) -> None:
        """After the log file was renamed: go on in a new file of the old name."""
        ...

    async def pids(self, container: str) -> Sequence[int]: ...
