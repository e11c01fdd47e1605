"""Processes by (pid, start time): a pid alone is reused, the pair is not within a boot. And the
first of them all, the init."""

from __future__ import annotations

import os


def process_started(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat, in clock ticks since boot; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def open_process(pid: int, started: int) -> int | None:
    """A pidfd, if `pid` still is the process that started then (see proc(5): a pid is reused)."""
    if pid <= 0:
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    if process_started(pid) != started:
        os.close(pidfd)
        return None
    return pidfd


def booted(root: str = "/") -> bool:
    """Whether systemd is this host's init, as seen from here (sd_booted(3)): a container, or a rig's host in
    a namespace, may see its folder and have another init."""
    try:
        with open(os.path.join(root, "proc/1/comm"), "rb") as file:
            first = file.read().strip()
    except OSError:
        return False
    return first == b"systemd" and os.path.isdir(os.path.join(root, "run/systemd/system"))
