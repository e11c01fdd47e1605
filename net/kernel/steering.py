"""Receive packet and flow steering (Linux networking/scaling): which processors work on what a link receives.

A container's sender runs the whole way of its packets, through bridge, routing and tunnel, on its own
processor unless the link hands them on: to the processor whose program reads the flow where the kernel
remembers that (flow steering), else to one by the flow's hash. Only sysfs knows these settings of a link.
"""

from __future__ import annotations

import logging
import os
from functools import cache

from net.kernel import sysctl

log = logging.getLogger("flota.net")
ROOT = "/sys/class/net"
READERS = "net/core/rps_sock_flow_entries"
"""Of the whole kernel: in how many flows it remembers the processor of the reader. 0, the kernel's default:
in none. Shown in the first network namespace only."""
READER_FLOWS = 32768
FLOWS = {"vxlan": 4096}
"""By kind of link, for how many of its flows it knows where they go, at 16 bytes each."""
OTHER_FLOWS = 256


def spread(link: str, kind: str) -> None:
    """Over all processors, by flow. Where /sys shows another namespace or can't be written, the link works
    unsteered."""
    folder = f"{ROOT}/{link}/queues"
    try:
        for queue in os.listdir(folder):
            if queue.startswith("rx-"):
                _write(f"{folder}/{queue}/rps_cpus", mask(os.cpu_count() or 1))
                _write(f"{folder}/{queue}/rps_flow_cnt", str(FLOWS.get(kind, OTHER_FLOWS)))
        remember_readers()
    except OSError as error:
        log.info("%s stays on its senders' processors: %s: %s", link, error.filename, error.strerror)


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


def _write(path: str, value: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, value.encode())
    finally:
        os.close(handle)
