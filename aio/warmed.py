"""The process that `aio.warm` forks others from: `python -m aio.warmed MODULE`, told by sockets on its stdin.

Each socket that comes becomes stdin, stdout and stderr of a new process, which runs the module's `main`. It
ends when the socket that it is told by does. Invariant: it runs one thread and none of the work.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn


def serve(name: str) -> None:
    control = socket.socket(fileno=os.dup(0))
    module = importlib.import_module(name)
    for other in getattr(module, "WARM", ()):
        importlib.import_module(other)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here asks how they ended
    gc.freeze()
    listen(control, module.main)


def listen(control: socket.socket, main: object, fork: Callable[[], int] = os.fork) -> None:
    """Until the other end is closed. A process that can't be forked is refused, in words, for itself."""
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        for fd in fds:
            try:
                child = fork()
            except OSError as error:
                with contextlib.suppress(OSError):  # nobody listens any more
                    os.write(fd, os.fsencode(error.strerror or str(error)))
                child = -1
            if child == 0:
                control.close()
                _work(main, fd)
            os.close(fd)


def _work(main: object, fd: int) -> NoReturn:
    code = 1
    try:
        for target in (0, 1, 2):
            os.dup2(fd, target)
        os.close(fd)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with socket.socket(fileno=os.dup(0)) as ours:
            socket.send_fds(ours, [b"p"], [os.pidfd_open(os.getpid())])
        assert callable(main)
        with open(0, "rb", closefd=False) as stdin, open(1, "wb", closefd=False) as stdout:
            code = main(stdin, stdout)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
