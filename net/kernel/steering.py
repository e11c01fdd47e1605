"""Receive packet steering (Linux networking/scaling): which processors work on what a link receives.

A container's sender runs the whole way of its packets, through bridge, routing and tunnel, on its own
processor unless the link hands them on. Only sysfs knows this setting, and it tells nobody of changes. Where
/sys shows another network namespace, as it may in a container, links work unsteered.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from functools import cache

log = logging.getLogger("flota.net")


def spread(link: str, sysfs: str) -> None:
    """Over all processors, by flow. Where it can't be set, the link works unsteered."""
    try:
        for path in _settings(link, sysfs):
            _write(path, mask(os.cpu_count() or 1))
    except OSError as error:
        log.info("%s stays on its senders' processors: %s: %s", link, error.filename, error.strerror)


def unsteered(links: Iterable[str], sysfs: str) -> list[str]:
    """Those of the links that are not spread over all processors, though they could be."""
    wanted = int(mask(os.cpu_count() or 1).replace(",", ""), 16)
    return [link for link in links if any(found != wanted for found in _masks(link, sysfs))]


def _masks(link: str, sysfs: str) -> Iterator[int]:
    try:
        for path in _settings(link, sysfs):
            with open(path) as file:
                yield int(file.read().replace(",", ""), 16)
    except OSError:
        return


def _settings(link: str, sysfs: str) -> list[str]:
    """A file per queue."""
    folder = f"{sysfs}/class/net/{link}/queues"
    return [f"{folder}/{queue}/rps_cpus" for queue in os.listdir(folder) if queue.startswith("rx-")]


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
