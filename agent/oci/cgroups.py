"""Which cgroup a container gets, by either of the runtime's drivers. Pure.

`cgroupfs`: the parent is a path, and the runtime makes directories below it. `systemd`: the parent is a
slice, each container has a scope in it that systemd makes, for where systemd runs cgroup v2 is its own and
others make no cgroups in it (systemd's CGROUP_DELEGATION, "single writer"). A parent's name tells which: only
slices end in `.slice`. Sources: systemd.slice(5), runc docs/systemd.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from model.errors import InvalidInput, Unsupported

DRIVERS = ("systemd", "cgroupfs")
PREFIX = "flota"
"""Of scopes: flota-ID.scope."""
_SLICE = re.compile(r"[A-Za-z0-9_:.]+(-[A-Za-z0-9_:.]+)*\.slice\Z")


def parent_of(driver: str, wish: str, *, booted: bool, unified: bool) -> str:
    """The parent, whose name tells the driver. `driver` is empty to have one chosen, `wish` a path or the
    name of a slice; `booted`: systemd is the host's init; `unified`: its cgroups are v2 alone. Raises
    Unsupported, InvalidInput."""
    if driver not in ("", *DRIVERS):
        raise InvalidInput(f"unknown cgroup driver {driver[:40]!r}", hint=f"Use {' or '.join(DRIVERS)}")
    chosen = driver or ("systemd" if booted and (unified or is_slice(wish)) else "cgroupfs")
    if chosen == "cgroupfs":
        if is_slice(wish):
            raise InvalidInput(
                f"the cgroup parent {wish[:80]} is a slice, and the cgroup driver is cgroupfs",
                hint="Give a path, as /flota, or --cgroup-driver systemd",
            )
        return "/" + wish.strip("/")
    if not booted:
        raise Unsupported(
            "systemd does not run on this host: it can't make cgroups", hint="Use --cgroup-driver cgroupfs"
        )
    name = wish if is_slice(wish) else f"{wish.strip('/').replace('/', '-')}.slice"
    if not _SLICE.match(name):
        raise InvalidInput(
            f"the cgroup parent {wish[:80]!r} is no slice's name", hint="Use for example flota.slice"
        )
    return name


def is_slice(parent: str) -> bool:
    return parent.endswith(".slice")


def driver_of(parent: str) -> str:
    return "systemd" if is_slice(parent) else "cgroupfs"


def oci_path(parent: str, container: str) -> str:
    """`linux.cgroupsPath`."""
    return f"{parent}:{PREFIX}:{container}" if is_slice(parent) else f"{parent}/{container}"


def place(parent: str, container: str) -> str:
    """Where that is below a hierarchy's mount point."""
    if is_slice(parent):
        return f"{slice_place(parent)}/{PREFIX}-{container}.scope"
    return f"{parent.strip('/')}/{container}"


def holds(lines: Iterable[str], container: str) -> bool:
    """Whether /proc/PID/cgroup (cgroups(7)) is of a process in the container's cgroup, or in one below it."""
    own = {container, f"{PREFIX}-{container}.scope"}
    return any(own.intersection(line.rstrip("\n").rpartition(":")[2].split("/")) for line in lines)


def slice_place(name: str) -> str:
    """a-b.slice is in a.slice."""
    parts = name.removesuffix(".slice").split("-")
    return "/".join(f"{'-'.join(parts[:end])}.slice" for end in range(1, len(parts) + 1))


def processes_place(wish: str) -> str:
    """The cgroup, beside the containers', of what outlives the agent where no unit keeps it."""
    return f"/{wish.removesuffix('.slice').strip('/')}-processes"


def scope_properties(parent: str, *, stop_grace: float) -> Mapping[str, str]:
    """Annotations by which the runtime tells systemd of a container's scope (GVariant's text). At the host's
    end the agent goes first, lest it start again what systemd stops, and who ignores SIGTERM has
    `stop_grace` seconds; a scope that failed is not kept for people to look at."""
    if not is_slice(parent):
        return {}
    return {
        "org.systemd.property.Before": "['flota-agent.service']",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "org.systemd.property.TimeoutStopUSec": f"uint64 {max(1, round(stop_grace * 1e6))}",
    }
