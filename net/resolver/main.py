"""The resolver's process: `python -m net.resolver FOLDER`, in the host's namespaces, detached from the agent.

FOLDER holds the state file and, from us, our pid with its start time (locked while we live, so that there
is one) and the verdict on the state. Options: `--port N`, `--upstream-port N`, `--resolv-conf FILE`.
It starts in a tenth of a second and imports neither netlink nor HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence

from net.resolver.drop import drop_privileges
from net.resolver.hostconf import HostServers
from net.resolver.serve import PID, SERVED, Resolver

VERSION = 2
"""Raise it with a change that a running resolver must not miss: agents replace those of other versions."""
OPTIONS = ("--port", "--upstream-port", "--resolv-conf")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 at SIGTERM, 1 when it can't start, 2 for wrong words."""
    words = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    options: dict[str, str] = {}
    while len(words) > 2 and words[-2] in OPTIONS:
        options[words[-2]] = words[-1]
        del words[-2:]
    numbers = [options.get(option, "53") for option in OPTIONS[:2]]
    if len(words) != 1 or not all(number.isdecimal() for number in numbers):
        sys.stderr.write(f"usage: python -m net.resolver FOLDER [{' VALUE] ['.join(OPTIONS)} VALUE]\n")
        return 2
    try:
        folder = os.open(words[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _claim(folder)
        verdict = _owned(folder, SERVED)
        os.ftruncate(verdict, 0)
    except BlockingIOError:
        sys.stderr.write(f"flota: a resolver serves {words[0]} already\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"flota: the resolver cannot start in {words[0]}: {error.strerror}\n")
        return 1
    host = HostServers(options.get("--resolv-conf", "/etc/resolv.conf"))
    host.servers()  # once while we may read everything
    resolver = Resolver(
        folder,
        words[0],
        host=host,
        tell=lambda data: _write(verdict, data),
        port=int(numbers[0]),
        upstream_port=int(numbers[1]),
    )
    try:
        asyncio.run(_until_signalled(resolver))
    except OSError as error:
        sys.stderr.write(f"flota: the resolver in {words[0]} ended: {error}\n")
        return 1
    return 0


async def _until_signalled(resolver: Resolver) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    gc.freeze()
    with contextlib.suppress(asyncio.CancelledError):
        await resolver.run(ready=drop_privileges)


def _claim(folder: int) -> None:
    """One resolver per folder. Raises BlockingIOError when another lives."""
    pid = _owned(folder, PID)
    fcntl.flock(pid, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open("/proc/self/stat", "rb") as file:
        started = file.read().rpartition(b")")[2].split()[19].decode()
    _write(pid, f"{os.getpid()} {started} {VERSION}\n".encode())


def _owned(folder: int, name: str) -> int:
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640, dir_fd=folder)


def _write(fd: int, data: bytes) -> None:
    """One write, so that a reader sees the old or the new, or for an instant the new with the old's tail."""
    os.pwrite(fd, data, 0)
    os.ftruncate(fd, len(data))
