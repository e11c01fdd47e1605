"""Receive packet steering (Linux networking/scaling): which processors work on what a link receives.

A container's sender runs the whole way of its packets, through bridge, routing and tunnel, on its own
processor unless the link hands them on. Only sysfs knows this setting.
"""

from __future__ import annotations

import logging
import os
from functools import cache

log = logging.getLogger("flota.net")
ROOT = "/sys/class/net"


def spread(link: str) -> None:
    """Over all processors, by flow. Where /sys shows another namespace or can't be written, the link works
    unsteered."""
    folder = f"{ROOT}/{link}/queues"
    try:
        for queue in os.listdir(folder):
            if queue.startswith("rx-"):
                _write(f"{folder}/{queue}/rps_cpus", mask(os.cpu_count() or 1))
    except OSError as error:
        log.info("%s stays on its senders' processors: %s: %s", link, error.filename, error.strerror)


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
