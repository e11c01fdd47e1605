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
    """Raises OSError; a path below net/ipv6 that doesn't exist is a host without IPv6, where there is nothing
    to switch."""
    try:
        handle = os.open(f"{ROOT}/{path}", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.startswith("net/ipv6/"):
            return
        raise
    try:
        os.write(handle, value.encode())
    finally:
        os.close(handle)
