"""The processes of this host that outlive the agent, and the supervisor that keeps them.

The agent keeps the supervisor and tells it by its state file what to run; the supervisor keeps the others,
also while there is no agent. Each is found again by its pid file. Invariant: none of them after `stop`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from agent import naming
from aio.inotify import DirectoryBells
from aio.supervisor import Supervisor
from net.proxy.state import FOLDER as PROXY_FOLDER
from net.proxy.state import VERSION as PROXY_VERSION
from net.proxying import ProxyFeed
from net.resolver.state import VERSION as RESOLVER_VERSION
from net.supervise import cgroup
from net.supervise.feed import StateFeed
from net.supervise.files import full_version
from net.supervise.keep import Keeper
from net.supervise.keep import stop as stop_process
from net.supervise.state import FOLDER, VERSION, Child, Children, encode

CGROUP_NOTE = "processes-cgroup"
"""File in the run folder that tells a purge without an agent which cgroup to take away."""


class HostProcesses(Protocol):
    """What the agent needs of them. Implementations: `SupervisedProcesses`, `FakeProcesses`."""

    changed: Callable[[], None]
    """Called when `troubles` are others than before."""

    @property
    def troubles(self) -> tuple[str, ...]:
        """What people should know: which of them does not run, and why."""
        ...

    @property
    def unserved(self) -> frozenset[tuple[str, int]]:
        """(protocol, port) of published ports that the proxy should serve and can't."""
        ...

    async def run(self) -> None:
        """Keep them running until cancelled; what runs then runs on."""
        ...


class SupervisedProcesses:
    """`logs` is the folder for what they say; `proxy` who tells the proxy what to serve; `own_cgroup` the
    cgroup that they move to, if any; `unit` the service manager's that keeps the supervisor in our stead;
    `options` are for the resolver's command line."""

    def __init__(
        self,
        run_dir: Path,
        logs: Path,
        *,
        proxy: ProxyFeed | None = None,
        own_cgroup: str = "",
        unit: str = "",
        options: Sequence[str] = (),
    ) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._run_dir, self._cgroup = run_dir, own_cgroup
        self._feed = StateFeed(str(run_dir / FOLDER), group=0, what="processes")
        self._feed.changed = self._tell
        self._proxy = proxy
        if proxy is not None:
            proxy.changed = self._tell
        self._keeper: Keeper | None = None
        words = ("--cgroup", own_cgroup) if own_cgroup else ()
        self._child = _child(run_dir, logs, "supervisor", "net.supervise", FOLDER, VERSION, *words)
        if unit:
            self._child = replace(self._child, argv=(), log=f"`systemctl status {unit}`")
        self._children = Children(
            children={
                "resolver": _child(
                    run_dir, logs, "resolver", "net.resolver", naming.FOLDER, RESOLVER_VERSION, *options
                ),
                "proxy": _child(run_dir, logs, "proxy", "net.proxy", PROXY_FOLDER, PROXY_VERSION),
            }
        )

    @property
    def troubles(self) -> tuple[str, ...]:
        own = self._keeper.trouble if self._keeper is not None else ""
        served = self._proxy.troubles if self._proxy is not None else ()
        return (*((own,) if own else ()), *self._feed.troubles, *served)

    @property
    def unserved(self) -> frozenset[tuple[str, int]]:
        return self._proxy.unserved if self._proxy is not None else frozenset()

    async def run(self) -> None:
        if self._cgroup:
            (self._run_dir / CGROUP_NOTE).write_text(self._cgroup)
        self._feed.update(encode(self._children))
        bells = DirectoryBells()
        try:
            self._keeper = Keeper("supervisor", self._child, bells, self._tell)
            async with Supervisor("host processes") as children:
                children.start("feed", lambda: self._feed.run(bells), restart=True)
                await self._keeper.run()
        finally:
            bells.close()

    def _tell(self) -> None:
        self.changed()


class FakeProcesses:
    """The seam for the tests of everything above it."""

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.troubles: tuple[str, ...] = ()
        self.unserved: frozenset[tuple[str, int]] = frozenset()

    async def run(self) -> None:
        return


async def stop_supervisor(run: str) -> None:
    """End the one that an agent on this run folder (that of all sockets) started, for a service manager to
    start the next; what it kept lives on. Idempotent."""
    await stop_process(str(Path(run) / "agent" / FOLDER))


async def stop(run_dir: Path) -> None:
    """End the supervisor of this run folder, then what it kept, and remove their cgroup. Idempotent. Raises
    CommandFailed."""
    for name in (FOLDER, naming.FOLDER, PROXY_FOLDER):
        await stop_process(str(run_dir / name))
    note = run_dir / CGROUP_NOTE
    if note.exists():
        cgroup.remove(note.read_text())


def _child(
    run_dir: Path, logs: Path, name: str, module: str, folder: str, version: str, *words: str
) -> Child:
    place = str(run_dir / folder)
    return Child(
        argv=(sys.executable, "-P", "-m", module, place, *words),
        folder=place,
        version=full_version(version),
        log=str(logs / f"{name}.log"),
    )
