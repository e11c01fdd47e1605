"""The mount table of a container: the standard file systems, our /etc files, and the user's mounts. Pure.

Invariant: parents come before children, each target once; what the user mounts replaces the standard mount of
that place. Sources are host paths that the agent has checked; nothing of an image becomes one.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import Any

from agent.oci.facts import ContainerFacts, HostLimits
from model.errors import InvalidInput, Problem
from model.spec import ContainerSpec, Mount

MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/devices/virtual/powercap", "/sys/firmware"),
)
"""moby, daemon/pkg/oci/defaults.go; and the thermal counters of each cpu."""
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_MQUEUE, _SHM = "/dev/mqueue", "/dev/shm"  # noqa: S108 (a place inside the container)
INIT_TARGET = "/sbin/docker-init"
_TMPFS_WORD = re.compile(
    r"(?:(?:no)?(?:exec|suid|dev|atime|diratime)|relatime|strictatime|ro|rw|sync|async|"
    r"(?:size|nr_blocks|nr_inodes)=\d{1,18}[kKmMgG%]?|mode=[0-7]{1,5}|(?:uid|gid)=\d{1,10}|"
    r"huge=(?:never|always|within_size|advise)|mpol=[a-z:=,0-9-]{1,64})\Z"
)


def _mount(target: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def standard(spec: ContainerSpec, host: HostLimits) -> list[dict[str, Any]]:
    """What every container has before the user's wishes."""
    safe = ("nosuid", "noexec", "nodev")
    writable = "rw" if spec.privileged else "ro"
    table = [
        _mount("/proc", "proc", "proc", *safe),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            *("/dev/pts", "devpts", "devpts", "nosuid", "noexec"),
            *("newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        _mount("/sys", "sysfs", "sysfs", *safe, writable),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", *safe, writable),
    ]
    if spec.ipc_mode == "host":
        return table + [_mount(place, "bind", place, "rbind", *safe) for place in (_MQUEUE, _SHM)]
    return [
        *table,
        _mount(_MQUEUE, "mqueue", "mqueue", *safe),
        _mount(_SHM, "tmpfs", "shm", *safe, "mode=1777", f"size={spec.shm_size}"),
    ]


def table(spec: ContainerSpec, facts: ContainerFacts, host: HostLimits) -> list[dict[str, Any]]:
    """Everything, sorted so that parents come first. Raises InvalidInput with all problems at once."""
    problems: list[Problem] = []
    wanted: dict[str, dict[str, Any]] = {}
    for index, mount in enumerate(facts.mounts):
        target = posixpath.normpath("/" + mount.target.lstrip("/"))
        reason = _refused(mount, target, wanted)
        if reason:
            problems.append(Problem(path=f"mounts[{index}]", message=reason))
        else:
            wanted[target] = _tmpfs(mount, target) if mount.type == "tmpfs" else _bind(mount, target)
    if problems:
        raise InvalidInput.of("invalid mounts", tuple(problems))
    for target, source in facts.etc.items():
        wanted.setdefault(target, _mount(target, "bind", source, "rbind", "rprivate", "rw"))
    if spec.init:
        wanted[INIT_TARGET] = _mount(INIT_TARGET, "bind", host.init_path, "bind", "ro", "nosuid", "nodev")
    base = [
        mount
        for mount in standard(spec, host)
        if mount["destination"] not in wanted
        and not any(mount["destination"].startswith(target + "/") for target in wanted)
    ]
    return base + [wanted[target] for target in sorted(wanted, key=_depth)]


def _depth(target: str) -> tuple[int, str]:
    return target.count("/"), target


def _refused(mount: Mount, target: str, wanted: dict[str, dict[str, Any]]) -> str:
    if not mount.target.startswith("/"):
        return f"target {mount.target[:80]!r} is not an absolute path"
    if "\0" in mount.target:
        return "target has a NUL byte"
    if target == "/":
        return "target '/' is the root itself"
    if target == "/proc" or target.startswith("/proc/"):
        return f"target {target} is inside /proc"
    if target in wanted:
        return f"duplicate mount point: {target}"
    if mount.type != "tmpfs" and not mount.source.startswith("/"):
        return f"source {mount.source[:80]!r} is not an absolute path"
    bad = [word for word in mount.tmpfs_options if not _TMPFS_WORD.match(word)]
    if bad:
        return f"unknown tmpfs option {bad[0][:40]!r}"
    return ""


def _bind(mount: Mount, target: str) -> dict[str, Any]:
    how = "ro" if mount.read_only else "rw"
    return _mount(target, "bind", mount.source, "rbind", how, mount.propagation or "rprivate")


def _tmpfs(mount: Mount, target: str) -> dict[str, Any]:
    words = ["noexec", "nosuid", "nodev", *mount.tmpfs_options]
    if mount.read_only:
        words.append("ro")
    if mount.tmpfs_size:
        words.append(f"size={mount.tmpfs_size}")
    if not any(word.startswith("mode=") for word in words):
        words.append(f"mode={mount.tmpfs_mode:o}")
    for word in ("exec", "suid", "dev"):
        if word in words:
            words.remove(f"no{word}")
    return _mount(target, "tmpfs", "tmpfs", *words)


def root_propagation(mounts: Sequence[Mount]) -> str:
    """What the root mount must be for the user's propagation wishes to mean something; "" as runc likes."""
    wishes = {mount.propagation for mount in mounts}
    if wishes & {"shared", "rshared"}:
        return "rshared"
    return "rslave" if wishes & {"slave", "rslave"} else ""


def masked(host: HostLimits) -> list[str]:
    cpus = (f"/sys/devices/system/cpu/cpu{n}/thermal_throttle" for n in range(host.cpus))
    return [*MASKED, *cpus]
