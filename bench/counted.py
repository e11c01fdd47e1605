"""A unix socket before another one, which counts what clients send."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

PIECE = 1 << 16


class Counted:
    def __init__(self) -> None:
        self.sent = 0
        """Bytes, of all clients."""


@contextlib.contextmanager
def counted(path: Path, target: str) -> Iterator[Counted]:
    """`path` stands for `target` until the block ends; connections that are open then go on to their end."""
    count = Counted()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(os.fspath(path))
        door.listen()
        threading.Thread(target=_accept, args=(door, target, count), daemon=True).start()
        try:
            yield count
        finally:
            door.shutdown(socket.SHUT_RDWR)
            path.unlink()


def _accept(door: socket.socket, target: str, count: Counted) -> None:
    while True:
        try:
            near, _ = door.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(near, target, count), daemon=True).start()


def _serve(near: socket.socket, target: str, count: Counted) -> None:
    with near, socket.socket(socket.AF_UNIX) as far:
        far.connect(target)
        back = threading.Thread(target=_pass, args=(far, near, None), daemon=True)
        back.start()
        _pass(near, far, count)
        back.join()


def _pass(source: socket.socket, target: socket.socket, count: Counted | None) -> None:
    """Until either ends; a half that has ended is told to the other side."""
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE):
            if count is not None:
                count.sent += len(piece)
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
