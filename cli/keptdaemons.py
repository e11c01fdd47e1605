"""This host's daemons, kept by whoever keeps services here: systemd, OpenRC, or nobody.

Invariant: under a service manager a daemon has no words of its own but what is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cli import daemon, openrc, remembered, systemd


class Keeper(Protocol):
    """A service manager, as far as we need it. Implementations: `Systemd`, `OpenRc`."""

    logs: str
    """How people read what daemons say; `{root}` stands for the folder of state."""

    def start(self, name: str) -> bool:
        """Have `agent` or `controller` kept, now and from each boot on; False when it was. Raises FlotaError
        in the daemon's words when it does not start."""
        ...

    def active(self, name: str) -> bool: ...

    def keeps(self) -> bool:
        """Whether what the agent starts beside it need not make way before it is started."""
        ...

    def reload(self, name: str) -> None: ...

    def stop(self, names: Sequence[str]) -> list[str]:
        """Until the next boot; those that ran."""
        ...

    def remove(self) -> None:
        """Nothing is kept any more, now and at boot. Idempotent."""
        ...


def keeper(root: str, run: str) -> Keeper | None:
    if systemd.runs():
        return systemd.Systemd(root, run)
    return openrc.OpenRc(root, run) if openrc.runs() else None


def start(
    name: str, root: str, run: str, flags: dict[str, Any], words: Sequence[str], *, evict: Callable[[], None]
) -> None:
    """With what `flags` say, which are `words` for a plain daemon. One that was started otherwise makes way,
    by `evict` its processes too; one that runs takes in what may change while it does."""
    kept = keeper(root, run)
    if kept is None:
        if not daemon.alive(run, name):
            socket = "flota.sock" if name == "controller" else "agent.sock"
            told = [name, "--root", root, "--run", run, *words]
            daemon.start(name, told, log=f"{root}/log/{name}.log", socket=f"{run}/{socket}")
        return
    with remembered.trial(root, flags) as changed:
        if not kept.active(name):
            daemon.stop(run, name)
            if name == "agent" and not kept.keeps():
                evict()
        if not kept.start(name) and changed:
            kept.reload(name)


def stop(root: str, run: str, names: Sequence[str], *, for_good: bool) -> list[str]:
    """Those that ran, kept or not."""
    kept = keeper(root, run)
    stopped = kept.stop(names) if kept is not None else []
    stopped += [name for name in names if daemon.stop(run, name)]
    if for_good and kept is not None:
        kept.remove()
    return stopped


def logs(root: str, run: str) -> str:
    kept = keeper(root, run)
    return kept.logs.format(root=root) if kept is not None else f"logs in {root}/log"
