"""Kernel switches below /proc/sys, of the network namespace of the calling thread.

/sys may show another namespace (it does where a host is a namespace itself); /proc/sys/net never does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

ROOT = "/proc/sys"
LINKS6 = "net/ipv6/conf"
FORWARDING6 = f"{LINKS6}/all/forwarding"
HEARS_ROUTERS, HEARS_THEM_ALWAYS = "1", "2"
"""accept_ra (Linux ip-sysctl): as long as the host does not forward, or though it does."""


def read(paths: Iterable[str]) -> dict[str, str]:
    """Values by path below /proc/sys; what doesn't exist is left out."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            handle = os.open(f"{ROOT}/{path}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            found[path] = os.read(handle, 4096).decode().strip()
        finally:
            os.close(handle)
    return found


def write(path: str, value: str) -> None:
    """Raises OSError; on a host without IPv6 there is nothing to switch below net/ipv6. A host that begins to
    forward goes on hearing the routers it heard: its own addresses and way out may come from them, and would
    run out within the hour."""
    if (path, value) == (FORWARDING6, "1"):
        _hear_routers_always()
    try:
        handle = os.open(f"{ROOT}/{path}", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.startswith("net/ipv6/") and not os.path.isdir(f"{ROOT}/net/ipv6"):
            return
        raise
    try:
        os.write(handle, value.encode())
    finally:
        os.close(handle)


def _hear_routers_always() -> None:
    with contextlib.suppress(FileNotFoundError):
        links = set(os.listdir(f"{ROOT}/{LINKS6}")) - {"all", "default"}
        paths = [f"{LINKS6}/{link}/accept_ra" for link in sorted(links)]
        for path, value in read(paths).items():
            if value == HEARS_ROUTERS:
                write(path, HEARS_THEM_ALWAYS)
