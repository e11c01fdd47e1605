"""Daemons of this host: started detached, found again by their pid files, stopped.

A pid file holds the pid and the process's start time, so that a reused pid is never taken for a daemon.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from aio.processes import process_started
from cli.pinned import pinned
from model.errors import DeadlineExceeded, Unavailable

START_DEADLINE = 30.0
STOP_DEADLINE = 15.0


def pid_file(run: str, name: str) -> Path:
    return Path(run) / f"{name}.pid"


def alive(run: str, name: str) -> int:
    """The daemon's pid, or 0."""
    try:
        pid, started = map(int, pid_file(run, name).read_text().split())
    except (OSError, ValueError):
        return 0
    return pid if process_started(pid) == started else 0


def claim(run: str, name: str) -> None:
    """This process is the daemon from now on."""
    os.makedirs(run, mode=0o755, exist_ok=True)
    pid_file(run, name).write_text(f"{os.getpid()} {process_started(os.getpid())}\n")


def release(run: str, name: str) -> None:
    if alive(run, name) == os.getpid():
        pid_file(run, name).unlink(missing_ok=True)


def start(name: str, words: Sequence[str], *, log: str, socket: str) -> None:
    """Run `flota WORDS…`, of the release that the daemon is pinned to, as a daemon of its own session and
    wait until it answers on `socket`. Raises what it said when it ended instead. It works in its run folder
    (conmon leaves an empty `oom` where it was started) and, as root may stand in anybody's folder now,
    imports nothing from there."""
    os.makedirs(os.path.dirname(log), mode=0o755, exist_ok=True)
    os.makedirs(os.path.dirname(socket), mode=0o755, exist_ok=True)
    own = pinned(name)
    with open(log, "ab") as output:
        begin = output.tell()
        process = subprocess.Popen(
            [*([own] if own else [sys.executable, "-P", "-m", "cli.main"]), *words],
            cwd=os.path.dirname(socket),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            close_fds=True,
        )
    end = time.monotonic() + START_DEADLINE
    while not answers(socket):
        if process.poll() is not None:
            raise Unavailable(f"the {name} did not start: {_last_words(log, begin)}")
        if time.monotonic() > end:
            raise DeadlineExceeded(f"the {name} does not answer on {socket}", hint=f"See {log}")
        time.sleep(0.02)


def stop(run: str, name: str) -> bool:
    """End a daemon politely; True when one was running. Raises DeadlineExceeded."""
    pid = alive(run, name)
    if not pid:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + STOP_DEADLINE
    while alive(run, name):
        if time.monotonic() > end:
            raise DeadlineExceeded(f"the {name} (pid {pid}) does not end", hint=f"kill -9 {pid}")
        time.sleep(0.02)
    return True


def answers(path: str) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _last_words(log: str, begin: int) -> str:
    lines = _lines(log, begin)
    return own_words(log, begin) or (lines or ["it said nothing"])[-1]


def own_words(log: str, begin: int) -> str:
    """The last that flota itself said in a log from `begin` on as it gave up; empty if it did not."""
    said = [line.removeprefix("flota: ") for line in _lines(log, begin) if line.startswith("flota: ")]
    return said[-1] if said else ""


def _lines(log: str, begin: int) -> list[str]:
    try:
        with open(log, "rb") as file:
            file.seek(begin)
            return file.read().decode(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return []
