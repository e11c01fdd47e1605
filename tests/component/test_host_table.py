"""What is told of many hosts at once: a table on a terminal, lines elsewhere, nothing where that was asked
for."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from cli.hosttable import HostTable

SCRIPT = """
from cli.hosttable import HostTable
with HostTable(["root@a", "root@b"]).shown() as told:
    told("root@a", "working", "install [red]packages[/red]\\x1b[2J")
    told("root@b", "failed", "no route")
    told("root@a", "added", "is ready")
"""


def test_lines_are_written_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with HostTable(["a"]).shown() as told:
        told("a", "working", "join\nthe fleet\x1b[2J")
        told("a", "working", "join\nthe fleet\x1b[2J")
        told("a", "added", "is ready")
    assert capsys.readouterr().err == "a: join the fleet[2J\na: is ready\n"


def test_nothing_is_written_where_programs_read(capsys: pytest.CaptureFixture[str]) -> None:
    with HostTable(["a"], quiet=True).shown() as told:
        told("a", "failed", "why")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_a_row_for_each_host_and_obeys_none() -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=theirs, env=env) as program:
        os.close(theirs)
        said = bytearray()
        while True:
            try:
                said += os.read(ours, 65536)
            except OSError:
                break
        assert program.wait(10) == 0
    os.close(ours)
    shown = said.decode()
    assert "root@a" in shown and "is ready" in shown and "no route" in shown
    assert "[2J" not in shown.replace("packages[/red][2J", "") and "\x1b[2J" not in shown
