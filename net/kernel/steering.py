"""Receive packet and flow steering (Linux networking/scaling): which processors work on what a link receives.

A container's sender runs the whole way of its packets, through bridge, routing and tunnel, on its own
processor unless the link hands them on: to the processor whose program reads the flow where the kernel
remembers that (flow steering), else to one by the flow's hash. Only sysfs knows these settings of a link, and
it tells nobody of changes. Where /sys shows another network namespace, as it may in a container, links work
unsteered.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from functools import cache

from net.kernel import sysctl

log = logging.getLogger("flota.net")
READERS = "net/core/rps_sock_flow_entries"
"""Of the whole kernel: in how many flows it remembers the processor of the reader. 0, the kernel's default:
in none. Shown in the first network namespace only."""
READER_FLOWS = 32768
FLOWS = {"vxlan": 4096}
"""By kind of link, for how many of its flows it knows where they go, at 16 bytes each."""
OTHER_FLOWS = 256


def spread(link: str, kind: str, sysfs: str) -> None:
    """Over all processors, by flow. Where it can't be set, the link works unsteered."""
    try:
        for path, value in _settings(link, kind, sysfs):
            _write(path, value)
        remember_readers()
    except OSError as error:
        log.info("%s stays on its senders' processors: %s: %s", link, error.filename, error.strerror)


def unsteered(links: Mapping[str, str], sysfs: str) -> list[str]:
    """Those of the links (name → kind) that are not spread over all processors, though they could be."""
    return [link for link, kind in links.items() if not _is_spread(link, kind, sysfs)]


def _is_spread(link: str, kind: str, sysfs: str) -> bool:
    try:
        return all(_same(_read(path), value) for path, value in _settings(link, kind, sysfs))
    except OSError:
        return True


def _same(one: str, other: str) -> bool:
    """The kernel writes masks with leading zeros."""
    return one.replace(",", "").lstrip("0") == other.replace(",", "").lstrip("0")


def _settings(link: str, kind: str, sysfs: str) -> Iterable[tuple[str, str]]:
    """(file, what it should say), of each queue. Raises OSError."""
    folder = f"{sysfs}/class/net/{link}/queues"
    for queue in os.listdir(folder):
        if queue.startswith("rx-"):
            yield f"{folder}/{queue}/rps_cpus", mask(os.cpu_count() or 1)
            yield f"{folder}/{queue}/rps_flow_cnt", str(FLOWS.get(kind, OTHER_FLOWS))


@cache
def remember_readers() -> bool:
    """Flow steering for the whole host, unless someone chose its size already; True when that was done here.
    Once per process."""
    if sysctl.read([READERS]).get(READERS) != "0":
        return False
    sysctl.write(READERS, str(READER_FLOWS))
    return True


@cache
def mask(processors: int) -> str:
    """The first so many, as the kernel's bitmaps are written: groups of 32 bits, the highest first."""
    bits = f"{(1 << processors) - 1:x}"
    head = len(bits) % 8
    groups = [bits[:head]] if head else []
    return ",".join([*groups, *(bits[i : i + 8] for i in range(head, len(bits), 8))])


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def _write(path: str, value: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, value.encode())
    finally:
        os.close(handle)
