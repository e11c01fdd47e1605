"""The supervisor's process: `python -m net.supervise FOLDER [--cgroup PATH]`, detached from the agent.

FOLDER holds the state file: what to keep running. It starts what died again, adopts what an earlier
supervisor left, and itself reads nothing from outside. Ended by SIGTERM it leaves its processes running: the
next one adopts them. It has the capabilities that those need to start, and no others.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from aio.inotify import DirectoryBells
from aio.mailbox import Bell
from aio.service import start_log
from aio.supervisor import Supervisor
from net.supervise import cgroup, drop
from net.supervise.keep import Keeper, stop
from net.supervise.place import Place, run_until_signalled
from net.supervise.state import VERSION, Child, Children, decode

LOOK = 30.0
"""Seconds between looks at the state without a bell."""
NEEDED = (
    drop.CAP_KILL,
    drop.CAP_SETGID,
    drop.CAP_SETUID,
    drop.CAP_SETPCAP,
    drop.CAP_NET_BIND_SERVICE,
    drop.CAP_SYS_RESOURCE,
)


class Processes:
    """What runs, kept equal to the state file."""

    def __init__(self, place: Place, troubles: Sequence[str] = ()) -> None:
        self._place, self._own = place, tuple(troubles)
        self._wanted = Children()
        self._keepers: dict[str, tuple[Child, Keeper]] = {}

    async def run(self) -> None:
        """Until cancelled; what runs then runs on."""
        bell, bells = Bell(), DirectoryBells()
        bells.add(self._place.path, bell.ring)
        try:
            async with Supervisor("processes") as supervisor:
                while True:
                    self._place.look(self._take)
                    await self._apply(supervisor, bells)
                    self._tell()
                    await bell.wait(LOOK)
        finally:
            bells.close()

    def _take(self, data: bytes) -> None:
        self._wanted = decode(data)

    async def _apply(self, supervisor: Supervisor, bells: DirectoryBells) -> None:
        for name, (child, _) in list(self._keepers.items()):
            wanted = self._wanted.children.get(name)
            if wanted != child:
                await supervisor.stop(name)
                del self._keepers[name]
                if wanted is None or wanted.folder != child.folder:
                    await stop(child.folder)
        for name, child in self._wanted.children.items():
            if name not in self._keepers:
                keeper = Keeper(name, child, bells, self._tell)
                self._keepers[name] = child, keeper
                supervisor.start(name, keeper.run, restart=True)

    def _tell(self) -> None:
        troubles = (keeper.trouble for _, keeper in self._keepers.values())
        self._place.tell(*self._own, *filter(None, troubles))


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 at SIGTERM, 1 when it can't start, 2 for wrong words."""
    words = list(sys.argv[1:] if argv is None else argv)
    start_log("")
    own_cgroup = words.pop() if words[1:2] == ["--cgroup"] and len(words) == 3 else ""
    if len(words) != (2 if own_cgroup else 1):
        sys.stderr.write("usage: python -m net.supervise FOLDER [--cgroup PATH]\n")
        return 2
    try:
        place = Place(words[0], VERSION)
        troubles = cgroup.join(own_cgroup) if own_cgroup else []
        drop.confine(*NEEDED)
    except BlockingIOError:
        sys.stderr.write(f"flota: a supervisor serves {words[0]} already\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"flota: the supervisor cannot start in {words[0]}: {error.strerror}\n")
        return 1
    run_until_signalled(Processes(place, troubles).run())
    return 0
