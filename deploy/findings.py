"""What speaks against a host, or should be known of it, from its facts. Pure.

A fatal finding stops before anything was changed; a warning says what will not work, or not well, and what to
do.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from deploy.hostfacts import Facts
from model.spec import Struct

PYTHON = (3, 11)
MACHINES = ("x86_64", "aarch64")
MIB = 1 << 20
NEEDED_OPT, NEEDED_LIB, GOOD_LIB, GOOD_MEMORY = 400 * MIB, 200 * MIB, 2048 * MIB, 400 * MIB
CLOCK_WARNING, CLOCK_FATAL = 5.0, 300.0
"""Seconds; certificates are good from ten minutes before they are made."""
LEAST_MTU = 1330
"""An overlay for IPv6 needs 1280 bytes (RFC 8200, 5) and 50 of VXLAN's."""
CONTROLLERS = ("memory", "pids", "cpu")


class Level(StrEnum):
    FATAL = "fatal"
    WARNING = "warning"
    NOTE = "note"


class Finding(Struct):
    level: Level
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.what}. {self.hint}" if self.hint else self.what


def fatal(what: str, hint: str = "") -> Finding:
    return Finding(level=Level.FATAL, what=what, hint=hint)


def warning(what: str, hint: str = "") -> Finding:
    return Finding(level=Level.WARNING, what=what, hint=hint)


def note(what: str, hint: str = "") -> Finding:
    return Finding(level=Level.NOTE, what=what, hint=hint)


def findings(facts: Facts, *, controller: bool = False) -> tuple[Finding, ...]:
    """Everything about the machine itself; what it belongs to is `deploy.steps`'."""
    parts = (_kernel(facts), _cgroups(facts), _room(facts), _clock(facts), _network(facts, controller))
    return (*(found for part in parts for found in part), *_neighbours(facts))


def _kernel(facts: Facts) -> Iterator[Finding]:
    if facts.machine and facts.machine not in MACHINES:
        yield fatal(f"its processor is {facts.machine}", f"flota is made for {' and '.join(MACHINES)}")
    if facts.libc not in ("gnu", "musl"):
        yield fatal("its C library is neither glibc nor musl", "Use a host of a common distribution")
    without = [name for name in ("bridge", "veth", "nf_tables") if facts.features.get(name) == "no"]
    if without:
        yield fatal(
            f"its kernel ({facts.kernel}) has no {', '.join(without)}",
            "Install the distribution's ordinary kernel with its modules",
        )
    if facts.features.get("overlay") == "no":
        yield warning("its kernel has no overlayfs", "Images are copied for each container (driver vfs)")
    if facts.features.get("vxlan") == "no":
        yield warning("its kernel has no VXLAN", "Use networks of driver host-gw, or another kernel")


def _cgroups(facts: Facts) -> Iterator[Finding]:
    if not facts.cgroup:
        yield fatal(
            "no cgroups are mounted on it",
            "Mount them at boot: systemd does; on Alpine: rc-update add cgroups",
        )
        return
    if missing := [name for name in CONTROLLERS if name not in facts.controllers]:
        yield warning(
            f"its kernel limits no {', '.join(missing)}",
            "Boot with `cgroup_enable=memory` if memory is missing; limits are refused until then",
        )


def _room(facts: Facts) -> Iterator[Finding]:
    if 0 <= facts.free_opt < NEEDED_OPT:
        yield fatal(
            f"no room in /opt/flota: {facts.free_opt // MIB} MiB free of {NEEDED_OPT // MIB} needed",
            "Make room on that file system",
        )
    if 0 <= facts.free_lib < NEEDED_LIB:
        yield fatal(
            f"no room in /var/lib/flota: {facts.free_lib // MIB} MiB free of {NEEDED_LIB // MIB} needed",
            "Make room on that file system",
        )
    elif 0 <= facts.free_lib < GOOD_LIB:
        yield warning(f"little room for images: {facts.free_lib // MIB} MiB are free in /var/lib/flota")
    if 0 < facts.memory < GOOD_MEMORY:
        yield warning(f"little memory: {facts.memory // MIB} MiB")


def _clock(facts: Facts) -> Iterator[Finding]:
    off = abs(facts.clock_off) - facts.clock_doubt
    words = (
        f"its clock is {abs(facts.clock_off):.0f} s {'ahead of' if facts.clock_off > 0 else 'behind'} ours"
    )
    if off > CLOCK_FATAL:
        yield fatal(words, "Set it and keep it right (chrony, systemd-timesyncd): certificates depend on it")
    elif off > CLOCK_WARNING:
        yield warning(words, "Keep it right (chrony, systemd-timesyncd)")


def _network(facts: Facts, controller: bool) -> Iterator[Finding]:
    if controller and "7420/tcp" in facts.ports and "controller" not in facts.running:
        yield fatal("another program listens on TCP 7420", "Stop it: the controller needs that port")
    if "4789/udp" in facts.ports:
        yield warning(
            "another program listens on UDP 4789, the port of tunnels",
            "Stop it, or choose another port: flota fleet update --vxlan-port",
        )
    low = sorted({a.link for a in facts.addresses if a.link == facts.default_link and 0 < a.mtu < LEAST_MTU})
    if low:
        yield warning(
            f"packets on {low[0]} are small (MTU below {LEAST_MTU})", "Overlays will not carry IPv6"
        )


def _neighbours(facts: Facts) -> Iterator[Finding]:
    if facts.command == "foreign":
        yield warning(
            "/usr/local/bin/flota is somebody else's and stays", "flota is /opt/flota/current/bin/flota there"
        )
    if "swarm" in facts.others:
        yield warning("it is in a Docker Swarm, which uses UDP 4789 too", "flota fleet update --vxlan-port")
    elif "docker" in facts.others:
        yield note("Docker runs there and stays as it is")
    if kubernetes := facts.others & {"k3s", "kubernetes"}:
        yield warning(f"it is a host of {', '.join(sorted(kubernetes))}, which stays as it is")
    if facts.selinux == "Enforcing":
        yield warning("SELinux is enforcing", "Containers are not labelled; bind mounts may be denied")
    if not facts.init:
        yield note(
            "neither systemd nor OpenRC runs there: after a boot flota must be started by hand",
            "flota agent --detach",
        )
