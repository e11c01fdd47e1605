"""Foreground runs, attach and exec by the stock docker command: streams, terminals, keys, exit codes."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.rig.conftest import IMAGE
from tests.rig.dockercommand import Docker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
DEADLINE = 30


class Terminal:
    """A docker command on a terminal of its own."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd
        self.seen = b""

    def type(self, data: bytes) -> None:
        os.write(self.fd, data)

    def expect(self, text: bytes) -> None:
        end = time.monotonic() + DEADLINE
        while text not in self.seen:
            left = end - time.monotonic()
            assert left > 0, (text, self.seen)
            if select.select([self.fd], [], [], left)[0]:
                self.seen += self._read()

    def _read(self) -> bytes:
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            data = b""
        assert data, self.seen
        return data

    def size(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def code(self) -> int:
        while True:  # what it has still to say must be taken, or it does not end
            if not select.select([self.fd], [], [], DEADLINE)[0]:
                raise AssertionError(f"it does not end: {self.seen!r}")
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                break
            if not data:
                break
            self.seen += data
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextmanager
def terminal(docker: Docker, *words: str) -> Iterator[Terminal]:
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(docker.base[0], [*docker.base, *words])
    made = Terminal(pid, fd)
    try:
        yield made
    finally:
        os.close(fd)


def test_foreground_run_shows_both_streams_and_ends_with_the_containers_code(docker: Docker) -> None:
    done = docker.attempt(
        "run", "--rm", "--name", "fore", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 3"
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert docker("ps", "-aq") == ""


def test_run_of_a_missing_program_ends_with_127(docker: Docker) -> None:
    done = docker.attempt("run", "--rm", "--name", "none", IMAGE, "/no/such")
    assert done.returncode == 127, done.stderr
    wait_until(lambda: docker("ps", "-aq") == "", deadline=10, what="its removal")


def test_piped_input_ends_by_half_close_and_comes_back_whole(docker: Docker) -> None:
    data = os.urandom(8 << 20)
    done = docker.attempt("run", "-i", "--rm", IMAGE, "cat", stdin=data)
    assert done.returncode == 0, done.stderr
    assert done.stdout == data


def test_stopped_container_is_started_attached(docker: Docker) -> None:
    docker("create", "--name", "again", IMAGE, "sh", "-c", "echo here; exit 4")
    for _ in range(2):
        done = docker.attempt("start", "-a", "again")
        assert (done.returncode, done.stdout) == (4, b"here\n"), done.stderr


def test_exec_has_streams_input_and_exit_code(docker: Docker) -> None:
    docker("run", "-d", "--name", "box", IMAGE, "sleep", "1000")
    done = docker.attempt("exec", "-e", "A=1", "-w", "/etc", "box", "sh", "-c", "pwd; echo $A >&2; exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (9, b"/etc\n", b"1\n")
    assert docker("exec", "-i", "box", "cat", stdin=b"fed") == "fed"
    missing = docker.attempt("exec", "box", "/no/such")
    assert missing.returncode in (126, 127) and b"no such file" in missing.stdout
    docker("exec", "-d", "box", "touch", "/made")
    wait_until(lambda: docker.attempt("exec", "box", "test", "-e", "/made").returncode == 0,
               deadline=10, what="the detached exec")  # fmt: skip


def test_terminal_is_resized_interrupted_and_left_by_its_keys(docker: Docker) -> None:
    with terminal(docker, "run", "-it", "--name", "tty", IMAGE, "sh") as first:
        first.type(b"echo a$((1+1))b\n")
        first.expect(b"a2b")
        first.size(33, 77)
        first.type(b"while [ \"$(stty size)\" != '33 77' ]; do usleep 10000; done; echo re''sized\n")
        first.expect(b"resized")
        first.type(b"sh -c \"echo be''gun; sleep 1000\"\n")
        first.expect(b"begun")
        first.type(b"\x03")
        first.expect(b"^C")
        first.type(b"echo still $((3*3))\n")
        first.expect(b"still 9")
        first.type(b"\x10\x11")
        assert first.code() == 0
    assert docker.inspect("tty")["State"]["Running"]
    with terminal(docker, "attach", "tty") as second:
        second.type(b"exit 5\n")
        assert second.code() == 5


def test_terminal_of_an_exec_is_its_own(docker: Docker) -> None:
    docker("run", "-d", "--name", "box", IMAGE, "sleep", "1000")
    with terminal(docker, "exec", "-it", "box", "sh") as shell:
        shell.size(20, 90)
        shell.type(b"while [ \"$(stty size)\" != '20 90' ]; do usleep 10000; done; echo re''sized\n")
        shell.expect(b"resized")
        shell.type(b"exit 6\n")
        assert shell.code() == 6


def test_signal_ends_a_foreground_run(docker: Docker) -> None:
    loop = "trap 'exit 8' TERM; echo up; while :; do sleep 0.1; done"
    words = [*docker.base, "run", "--rm", "--name", "sig", IMAGE, "sh", "-c", loop]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 8
