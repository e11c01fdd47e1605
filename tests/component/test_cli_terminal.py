"""`run -it`, `exec -it` and `attach` on a real pseudo-terminal: raw while they last, its size, letting go."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servedfleet import ServedFleet, served
from tests.support.waiting import wait_until

DEADLINE = 20


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    with served(tmp_path) as made:
        yield made


class Terminal:
    """A pseudo-terminal with a command on it."""

    def __init__(
        self, fleet: ServedFleet, *words: str, rows: int = 24, cols: int = 80, stdout: int | None = None
    ) -> None:
        self.near, self.far = os.openpty()
        self.resize(rows, cols)
        self.before = termios.tcgetattr(self.far)
        self.seen = b""
        self.process = subprocess.Popen(
            fleet.command(*words), stdin=self.far, stdout=self.far if stdout is None else stdout,
            stderr=self.far, env=fleet.environment(), start_new_session=True,
        )  # fmt: skip

    def resize(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self.near, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, keys: bytes) -> None:
        """Until the command has read them."""
        os.write(self.near, keys)
        wait_until(lambda: not self._unread(), deadline=DEADLINE)

    def _unread(self) -> int:
        waiting = fcntl.ioctl(self.far, termios.FIONREAD, b"\0\0\0\0")
        return int.from_bytes(waiting, "little")

    def until(self, text: bytes) -> None:
        end = time.monotonic() + DEADLINE
        while text not in self.seen:
            ready, _, _ = select.select([self.near], [], [], 0.5)
            if ready:
                self.seen += os.read(self.near, 65536)
            assert time.monotonic() < end, self.seen

    @property
    def raw(self) -> bool:
        return not termios.tcgetattr(self.far)[3] & (termios.ICANON | termios.ECHO)

    def end(self) -> int:
        code = self.process.wait(DEADLINE)
        assert termios.tcgetattr(self.far) == self.before
        os.close(self.near)
        os.close(self.far)
        return code


def test_run_it_is_raw_and_passes_keys_and_the_size(fleet: ServedFleet) -> None:
    terminal = Terminal(fleet, "run", "-it", "--name", "t", "box:1", "size", rows=33, cols=111)
    terminal.until(b"33 111\n")
    assert terminal.end() == 0
    terminal = Terminal(fleet, "run", "-it", "--name", "c", "box:1", "cat")
    wait_until(lambda: terminal.raw, deadline=DEADLINE)
    terminal.type(b"hello\x03\x04")
    terminal.until(b"hello\x03\x04")
    fleet.ok("kill", "c")
    assert terminal.end() == 137


def test_change_of_size_reaches_the_container(fleet: ServedFleet) -> None:
    terminal = Terminal(fleet, "run", "-it", "box:1", "sh", "-c", "size; size")
    terminal.until(b"24 80\n")
    terminal.resize(50, 200)
    terminal.process.send_signal(signal.SIGWINCH)
    terminal.until(b"50 200\n")
    assert terminal.end() == 0


@pytest.mark.parametrize("verb", ["run", "start"])
@pytest.mark.parametrize("keys", [(b"\x10\x11",), (b"\x10", b"\x11"), (b"ab\x10", b"\x11")])
def test_ctrl_p_ctrl_q_lets_go_and_the_container_runs_on(
    fleet: ServedFleet, keys: tuple[bytes, ...], verb: str
) -> None:
    new = ("-it", "--name", "t", "box:1", "cat")
    if verb == "start":
        fleet.ok("create", *new)
    terminal = Terminal(fleet, verb, *(new if verb == "run" else ("-ai", "t")))
    wait_until(lambda: terminal.raw, deadline=DEADLINE)
    terminal.type(b"x")
    terminal.until(b"x")
    for key in keys:
        terminal.type(key)
    assert terminal.end() == 0
    assert fleet.json("inspect", "t")[0]["status"]["phase"] == "running"
    again = Terminal(fleet, "attach", "t")
    wait_until(lambda: again.raw, deadline=DEADLINE)
    again.type(b"again")
    again.until(b"again")
    again.type(b"\x10\x11")
    assert again.end() == 0


def test_ctrl_p_alone_is_a_key(fleet: ServedFleet) -> None:
    terminal = Terminal(fleet, "run", "-it", "--name", "t", "box:1", "cat")
    wait_until(lambda: terminal.raw, deadline=DEADLINE)
    terminal.type(b"\x10")
    terminal.type(b"ab")
    terminal.until(b"\x10ab")
    fleet.ok("kill", "t")
    assert terminal.end() == 137


def test_terminal_is_as_before_when_the_command_is_killed_or_the_server_goes(fleet: ServedFleet) -> None:
    terminal = Terminal(fleet, "run", "-it", "--name", "t", "box:1", "cat")
    wait_until(lambda: terminal.raw, deadline=DEADLINE)
    fleet.stop()
    terminal.until(b"the connection to the container broke")
    assert terminal.end() == 125


def test_list_on_a_terminal_shows_no_control_bytes(fleet: ServedFleet) -> None:
    fleet.ok("create", "--name", "web", "box:1", "echo", "\x1b[31mred")
    terminal = Terminal(fleet, "ps", "-a")
    terminal.until(b"web")
    assert b"\x1b" not in terminal.seen
    assert terminal.end() == 0


def test_logs_drive_no_terminal_and_are_whole_elsewhere(fleet: ServedFleet) -> None:
    said = "\x1b[1mě ⛔\x1b[m\x1b\x1b]]0t\x07\x1b[6n"
    fleet.ok("run", "-d", "--name", "web", "box:1", "sh", "-c", f"echo {said}; err {said}")
    wait_until(lambda: fleet.flota("logs", "web").stderr, deadline=DEADLINE)
    shown = "\x1b[1mě ⛔\x1b[m]]0t[6n\r\n".encode()
    both = Terminal(fleet, "logs", "web")
    both.until(shown * 2)
    assert both.end() == 0 and both.seen == shown * 2
    errors = Terminal(fleet, "logs", "web", stdout=subprocess.PIPE)
    assert errors.process.stdout is not None
    with errors.process.stdout as output:
        assert output.read() == f"{said}\n".encode()
    errors.until(shown)
    assert errors.end() == 0 and errors.seen == shown
