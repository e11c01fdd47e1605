"""Network namespaces: made, entered and held without a fork.

A namespace is made by a throw-away thread that unshares and mounts its own on a file (namespaces(7)); it
lives as long as that mount. Code runs inside one on another throw-away thread, so the process itself never
moves. Invariant: no thread that entered a namespace outlives the call.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from model.errors import AlreadyExists

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
MS_BIND, MNT_DETACH = 0x1000, 2
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
SO_NETNS_COOKIE = 71

_libc = ctypes.CDLL(None, use_errno=True)


def make(path: Path) -> int:
    """Its cookie, as `cookie_of`. Raises AlreadyExists when `path` is held by a namespace, OSError when the
    kernel refuses."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o444))
    except FileExistsError as error:
        if is_held(path):
            raise AlreadyExists(f"network namespace {path} exists") from error

    def unshare() -> int:
        _check(_libc.unshare(CLONE_NEWNET))
        _loopback_up()
        _check(_libc.mount(b"/proc/thread-self/ns/net", os.fsencode(path), None, MS_BIND, None))
        return _cookie()

    try:
        return _on_thread(unshare)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def drop(path: Path) -> None:
    """Let go of the namespace; the kernel removes it and all links in it in its own time. Idempotent."""
    while _libc.umount2(os.fsencode(path), MNT_DETACH) == 0:
        continue
    path.unlink(missing_ok=True)


def hold(path: Path, place: Path) -> None:
    """The namespace at `place` by `path` too. Raises OSError."""
    path.touch(mode=0o444)
    _check(_libc.mount(os.fsencode(place), os.fsencode(path), None, MS_BIND, None))


def cookie_of(path: str | Path) -> int:
    """The namespace's number (socket(7), SO_NETNS_COOKIE), of no other until the next boot; 0 where the
    kernel gives none. Raises OSError."""
    return inside(path, _cookie)


def is_held(path: Path) -> bool:
    """Whether a namespace is mounted there: its file lies on nsfs, not where its folder does."""
    with contextlib.suppress(OSError):
        return path.stat().st_dev != path.parent.stat().st_dev
    return False


def inside(path: str | Path, call: Callable[[], T]) -> T:
    """`call()` on a thread in the namespace at `path`; its result or its exception. /proc/sys/net seen by it
    is the namespace's."""

    def enter() -> T:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(handle, CLONE_NEWNET))
        finally:
            os.close(handle)
        return call()

    return _on_thread(enter)


def _on_thread(call: Callable[[], T]) -> T:
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="flota-netns")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _cookie() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            raw = probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        except OSError:
            return 0
    return int.from_bytes(raw, sys.byteorder)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
