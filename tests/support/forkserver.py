"""Python programs that begin at once: forks of a process that has imported the product.

An interpreter that imports it takes a quarter of a second, nearly all of it processor time; a fork of one
that has takes milliseconds. Invariant: the server has one thread, stands in the namespaces in which the first
program was asked for, and ends with the process that asked.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[2]
CLONE_NEWNET = 0x40000000
_DEVNULL = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


class Program:
    """Code that runs in a network namespace as `python -c` would, `words` being its arguments."""

    def __init__(
        self, namespace: str, code: str, words: tuple[str, ...], *, stdin: int, stdout: int, stderr: int
    ) -> None:
        """Descriptors are the caller's to close."""
        self._ended, result = os.pipe()
        os.set_blocking(self._ended, False)  # what it leaves running may hold the other end
        order = os.memfd_create("program")
        home = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.pwrite(order, json.dumps([code, *words]).encode(), 0)
            self._process = _server().fork((order, home, stdin, stdout, stderr, result))
        finally:
            for handle in (order, home, result):
                os.close(handle)
        self.returncode: int | None = None

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, number)

    def wait(self, timeout: float = 60.0) -> int:
        """Its exit code, or minus SIGKILL if it didn't come to say one."""
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._process, select.POLLIN)
            if not poll.poll(timeout * 1000):
                raise subprocess.TimeoutExpired("a program", timeout)
            self.returncode = -signal.SIGKILL
            with contextlib.suppress(BlockingIOError):
                self.returncode = int(os.read(self._ended, 16) or -signal.SIGKILL)
            os.close(self._ended)
            os.close(self._process)
        return self.returncode


class Dialogue:
    """A program that reads and writes lines."""

    def __init__(self, namespace: str, code: str, *words: str) -> None:
        its_input, ours = os.pipe()
        theirs, its_output = os.pipe()
        self.stdin: TextIO = os.fdopen(ours, "w")
        self.stdout: TextIO = os.fdopen(theirs)
        try:
            self._program = Program(namespace, code, words, stdin=its_input, stdout=its_output, stderr=2)
        finally:
            os.close(its_input)
            os.close(its_output)

    def write(self, line: str) -> None:
        self.stdin.write(line + "\n")
        self.stdin.flush()

    def line(self) -> str:
        """The next; empty at the end of all."""
        return self.stdout.readline().rstrip("\n")

    def signal(self, number: signal.Signals) -> None:
        self._program.signal(number)

    def end(self) -> None:
        """Wait for its end, of which it was told."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        self._program.wait()
        self.stdout.close()

    def kill(self) -> None:
        self._program.signal(signal.SIGKILL)
        self.end()


def run(
    namespace: str, code: str, *words: str, check: bool = True, timeout: float = 20.0
) -> subprocess.CompletedProcess[str]:
    """To its end."""
    with open(os.memfd_create("stdout"), "w+") as out, open(os.memfd_create("stderr"), "w+") as err:
        made = Program(namespace, code, words, stdin=_DEVNULL, stdout=out.fileno(), stderr=err.fileno())
        try:
            status = made.wait(timeout)
        except subprocess.TimeoutExpired:
            made.signal(signal.SIGKILL)
            made.wait()
            raise
        out.seek(0)
        err.seek(0)
        done = subprocess.CompletedProcess(["python", "-c", code, *words], status, out.read(), err.read())
    if check and status != 0:
        raise RuntimeError(
            f"{code.strip()} {' '.join(words)}: {status}: {done.stderr.strip() or done.stdout}"
        )
    return done


class _Server:
    def __init__(self) -> None:
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._turn = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd=ROOT,
                env={"PYTHONPATH": str(ROOT)},
            )

    def fork(self, handles: tuple[int, ...]) -> int:
        """The new process, as pidfd_open(2) has it."""
        with self._turn:
            socket.send_fds(self._link, [b"!"], handles)
            _, found, _, _ = socket.recv_fds(self._link, 1, 1)
        (process,) = found
        return process

    def close(self) -> None:
        self._link.close()
        self._process.wait()


_servers: list[_Server] = []
_first = threading.Lock()


def _server() -> _Server:
    with _first:
        if not _servers:
            _servers.append(_Server())
            atexit.register(_servers[0].close)
    return _servers[0]


# -- the server's end ---------------------------------------------------------------------------------
def _serve(link: socket.socket) -> None:
    while handles := socket.recv_fds(link, 1, 6)[1]:
        if (pid := os.fork()) == 0:
            link.close()
            _become(*handles)
        process = os.pidfd_open(pid)
        socket.send_fds(link, [b"!"], [process])
        for handle in (process, *handles):
            os.close(handle)
        with contextlib.suppress(ChildProcessError):  # one that is waited for too early is no pidfd
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue


def _become(order: int, namespace: int, stdin: int, stdout: int, stderr: int, result: int) -> None:
    """The program; never returns."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        assert ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET) == 0, ctypes.get_errno()
        for number, handle in enumerate((stdin, stdout, stderr)):
            os.dup2(handle, number)
            os.close(handle)
        os.close(namespace)
        sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
        sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", 0, closefd=False), write_through=True)
        with os.fdopen(order) as text:
            text.seek(0)
            code, *words = json.load(text)
        sys.argv = ["-c", *words]
        status = _status(code)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            os.write(result, str(status).encode())
        finally:
            os._exit(status)


def _status(code: str) -> int:
    """Of an interpreter that runs it."""
    status = 0
    try:
        exec(compile(code, "<program>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    import tests.support.hostprocess  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-c is for those whom it serves
    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
