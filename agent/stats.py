"""What a container uses, from its cgroup's and its namespace's files; and its process table.

Counters are absolute since the container's start; rates are the reader's business. Invariant: a controller
that the host lacks counts as 0, and a container that is gone gives None, never half a sample.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Mapping, Sequence

from agent.cgroup import CgroupFiles
from model.api import ProcessTable, StatsSample
from model.spec import Struct

_TICKS = os.sysconf("SC_CLK_TCK")
_UNLIMITED = 1 << 60
"""cgroup v1 says "unlimited" as the largest page-aligned number."""
TITLES = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")


class Usage(Struct):
    """A cgroup's counters: nanoseconds, bytes, processes. Limits are 0 where there are none."""

    cpu_ns: int = 0
    memory: int = 0
    memory_limit: int = 0
    pids: int = 0
    pids_limit: int = 0
    block_read: int = 0
    block_write: int = 0
    oom_kills: int = 0


def usage(files: CgroupFiles, container: str) -> Usage | None:
    """None when the container has no cgroup."""
    pids = files.number(container, "pids", "pids.current")
    if pids is None:
        found = len(files.pids(container))  # a host whose kernel, or whose v2 subtree, does not count them
        if not found:
            return None
        pids = found
    read = _v2 if files.unified else _v1
    limit = files.number(container, "pids", "pids.max") or 0
    return read(files, container, pids, limit)


def _v1(files: CgroupFiles, container: str, pids: int, pids_limit: int) -> Usage:
    memory = files.number(container, "memory", "memory.usage_in_bytes") or 0
    limit = files.number(container, "memory", "memory.limit_in_bytes") or 0
    inactive = files.table(container, "memory", "memory.stat").get("total_inactive_file", 0)
    moved = _blkio(files.read(container, "blkio", "blkio.throttle.io_service_bytes_recursive") or "")
    return Usage(
        cpu_ns=files.number(container, "cpuacct", "cpuacct.usage") or 0,
        memory=max(0, memory - inactive),
        memory_limit=limit if limit < _UNLIMITED else 0,
        pids=pids,
        pids_limit=pids_limit,
        block_read=moved.get("Read", 0),
        block_write=moved.get("Write", 0),
        oom_kills=files.table(container, "memory", "memory.oom_control").get("oom_kill", 0),
    )


def _v2(files: CgroupFiles, container: str, pids: int, pids_limit: int) -> Usage:
    memory = files.number(container, "memory", "memory.current") or 0
    inactive = files.table(container, "memory", "memory.stat").get("inactive_file", 0)
    moved = _io_stat(files.read(container, "io", "io.stat") or "")
    return Usage(
        cpu_ns=files.table(container, "cpu", "cpu.stat").get("usage_usec", 0) * 1000,
        memory=max(0, memory - inactive),
        memory_limit=files.number(container, "memory", "memory.max") or 0,
        pids=pids,
        pids_limit=pids_limit,
        block_read=moved.get("rbytes", 0),
        block_write=moved.get("wbytes", 0),
        oom_kills=files.table(container, "memory", "memory.events").get("oom_kill", 0),
    )


def _blkio(text: str) -> Mapping[str, int]:
    """`8:0 Read 4096` per device and operation, summed over devices."""
    total: dict[str, int] = {}
    for fields in (line.split() for line in text.splitlines()):
        if len(fields) == 3 and fields[2].isdecimal():
            total[fields[1]] = total.get(fields[1], 0) + int(fields[2])
    return total


def _io_stat(text: str) -> Mapping[str, int]:
    """`8:0 rbytes=4096 wbytes=0 …` per device, summed over devices."""
    total: dict[str, int] = {}
    for line in text.splitlines():
        for key, _, value in (field.partition("=") for field in line.split()[1:]):
            if value.isdecimal():
                total[key] = total.get(key, 0) + int(value)
    return total


def network(pid: int) -> tuple[int, int]:
    """(received, sent) bytes over all interfaces but lo of the process's network namespace; zeros if gone."""
    try:
        with open(f"/proc/{pid}/net/dev", encoding="ascii", errors="replace") as file:
            return parse_net_dev(file.read())
    except (FileNotFoundError, ProcessLookupError, OSError):
        return 0, 0


def parse_net_dev(text: str) -> tuple[int, int]:
    """proc_net(5), `/proc/net/dev`."""
    received = sent = 0
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        fields = numbers.split()
        if name.strip() != "lo" and len(fields) >= 9:
            received += int(fields[0])
            sent += int(fields[8])
    return received, sent


def sample(
    files: CgroupFiles,
    container: str,
    *,
    name: str,
    pid: int,
    at: float,
    host_memory: int,
    own_network: bool = True,
) -> StatsSample | None:
    """One reading for the API, None when the container is not there. `pid`: any process of it. Without a
    limit of its own a container may use `host_memory`, as docker shows it."""
    used = usage(files, container)
    if used is None:
        return None
    received, sent = network(pid) if own_network else (0, 0)
    return StatsSample(
        instance=container,
        name=name,
        at=at,
        cpu_ns=used.cpu_ns,
        online_cpus=os.cpu_count() or 1,
        memory=used.memory,
        memory_limit=min(used.memory_limit or host_memory, host_memory),
        pids=used.pids,
        pids_limit=used.pids_limit,
        network_rx=received,
        network_tx=sent,
        block_read=used.block_read,
        block_write=used.block_write,
    )


def top(pids: Sequence[int], *, now: float) -> ProcessTable:
    """As `ps -ef` prints it, for these processes; those that ended meanwhile are left out."""
    with open("/proc/stat", encoding="ascii") as file:
        boot = next(int(line.split()[1]) for line in file if line.startswith("btime "))
    rows = (_row(pid, boot=boot, now=now) for pid in sorted(pids))
    return ProcessTable(titles=TITLES, rows=tuple(row for row in rows if row is not None))


def _row(pid: int, *, boot: int, now: float) -> tuple[str, ...] | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            head, _, tail = file.read().rpartition(")")
        with open(f"/proc/{pid}/cmdline", "rb") as raw:
            words = raw.read(4096).rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        owner = os.stat(f"/proc/{pid}").st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = tail.split()
    cpu = (int(fields[11]) + int(fields[12])) // _TICKS
    began = boot + int(fields[19]) / _TICKS
    busy = int(100 * cpu / (now - began)) if now > began else 0
    return (
        _user(owner),
        str(pid),
        fields[1],
        str(busy),
        _clock(began, now),
        _terminal(int(fields[4])),
        f"{cpu // 3600:02}:{cpu // 60 % 60:02}:{cpu % 60:02}",
        words or f"[{head.partition('(')[2]}]",
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _clock(began: float, now: float) -> str:
    return time.strftime("%H:%M" if now - began < 86400 else "%b%d", time.localtime(began))


def _terminal(device: int) -> str:
    if device == 0:
        return "?"
    major, minor = os.major(device), os.minor(device)
    return f"pts/{(major - 136) * 256 + minor}" if 136 <= major <= 143 else f"{major}:{minor}"
