"""A file system that hangs: mounted by FUSE, it takes every question and answers none.

Who asks waits in the kernel where no signal reaches it, as on a network file system whose server is gone.
The kernel's messages: include/uapi/linux/fuse.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_MNT_FORCE, _MNT_DETACH = 1, 2
_INIT = 26
_IN = struct.Struct("=IIQQIIII")
_MOST = 20.0
"""Seconds after which everybody who waits is let go, so that a test of something that hangs fails."""


@contextlib.contextmanager
def hung(place: Path) -> Iterator[set[int]]:
    """Hangs at `place` for the block. Gives the pids of those who asked it something."""
    place.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if _LIBC.mount(b"hung", os.fsencode(place), b"fuse", 0, options) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(place))
    asked: set[int] = set()
    server = threading.Thread(target=_serve, args=(device, asked))
    end = threading.Timer(_MOST, _unmount, (place,))
    server.start()
    end.start()
    try:
        yield asked
    finally:
        end.cancel()
        _unmount(place)
        server.join()
        os.close(device)


def _serve(device: int, asked: set[int]) -> None:
    while True:
        try:
            message = os.read(device, 1 << 20)
        except OSError:
            return
        _, operation, unique, _, _, _, pid, _ = _IN.unpack_from(message)
        if operation == _INIT:
            major, minor = struct.unpack_from("=II", message, _IN.size)
            answer = struct.pack("=IIIIHHII", major, minor, 1 << 16, 0, 12, 9, 1 << 16, 1).ljust(64, b"\0")
            os.write(device, struct.pack("=IiQ", 16 + len(answer), 0, unique) + answer)
        else:
            asked.add(pid)


def _unmount(place: Path) -> None:
    _LIBC.umount2(os.fsencode(place), _MNT_FORCE | _MNT_DETACH)
