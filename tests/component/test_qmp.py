"""QEMU's monitor, against a socket that speaks as QEMU does."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.rig.qmp import MonitorError, command, human

GREETING = {"QMP": {"version": {}, "capabilities": []}}
DONE: dict[str, Any] = {"return": {}}


@contextmanager
def monitor(path: Path, lines: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Greets, answers the capabilities, then says `lines` to the next request; what it was asked."""
    heard: list[dict[str, Any]] = []
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def talk() -> None:
        connection, _ = listening.accept()
        with connection, connection.makefile("rw") as stream:
            for answers in ([GREETING], [DONE], lines):
                if answers is not lines or lines:
                    stream.write("".join(json.dumps(answer) + "\n" for answer in answers))
                    stream.flush()
                if line := stream.readline():
                    heard.append(json.loads(line))

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield heard
    finally:
        thread.join(10)
        listening.close()


def test_command_between_events_returns_its_own_answer(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with monitor(path, [{"event": "STOP"}, {"return": {"status": "paused"}}]) as heard:
        assert command(path, "query-status") == {"status": "paused"}
    assert [one["execute"] for one in heard] == ["qmp_capabilities", "query-status"]


def test_command_that_is_refused_raises_the_monitors_words(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    answer = {"error": {"class": "GenericError", "desc": "no such thing"}}
    with monitor(path, [answer]), pytest.raises(MonitorError, match="savevm: no such thing"):
        command(path, "savevm")


def test_human_command_that_prints_something_has_failed(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    said = {"return": "Error: Snapshot 'kept' does not exist\r\n"}
    with monitor(path, [said]), pytest.raises(MonitorError, match=r"loadvm kept: .*does not exist"):
        human(path, "loadvm kept")


def test_monitor_that_answers_nothing_ends_at_the_deadline(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with monitor(path, []), pytest.raises(TimeoutError):
        command(path, "stop", timeout=0.2)
