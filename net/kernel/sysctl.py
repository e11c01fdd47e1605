"""Kernel switches below /proc/sys, of the network namespace of the calling thread.

/sys may show another namespace (it does where a host is a namespace itself); /proc/sys/net never does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

ROOT = "/proc/sys"


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
    """Raises OSError; on a host without IPv6 there is nothing to switch below net/ipv6."""
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
