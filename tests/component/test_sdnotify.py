"""What a service manager hears of a daemon, by a real datagram socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from aio.sdnotify import Notifier
from aio.service import Hooks, until_signalled
from aio.supervisor import Supervisor
from model.errors import InvalidInput
from tests.support.waiting import until


class Manager:
    """The other end; `address` as it would stand in NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.heard: list[dict[str, str]] = []

    def listen(self) -> list[dict[str, str]]:
        with contextlib.suppress(BlockingIOError):
            while True:
                lines = self._socket.recv(4096).decode().split("\n")
                self.heard.append(dict(line.split("=", 1) for line in lines))
        return self.heard

    def count(self, word: str) -> int:
        return sum(word in message for message in self.listen())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@flota-{os.getpid()}")
    yield made
    made.close()


@pytest.fixture
def signals() -> Iterator[None]:
    """A loop that ends leaves signals with their defaults."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_the_manager_gave_is_taken_out_of_the_environment(manager: Manager) -> None:
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "30000000", "LISTEN_FDS": "1", "HOME": "/"}
    notifier = Notifier.taken(env)
    assert env == {"HOME": "/"} and notifier.watchdog == 30.0
    notifier.ready("works")
    assert manager.listen() == [{"READY": "1", "STATUS": "works"}]


@pytest.mark.parametrize(("usec", "pid"), [("30000000", "1"), ("soon", ""), ("", "")])
def test_watchdog_that_is_not_ours_or_makes_no_sense_is_none(usec: str, pid: str) -> None:
    assert Notifier.taken({"WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}, pid=7).watchdog == 0.0


def test_nobody_that_listens_is_no_error(tmp_path: Path) -> None:
    Notifier().ready("works")
    Notifier(str(tmp_path / "gone")).stopping()


async def test_signs_of_life_end_when_the_heart_stands_still(manager: Manager) -> None:
    beats = asyncio.Event()
    beats.set()

    async def heart() -> None:
        await beats.wait()

    notifier = Notifier(manager.address, watchdog=0.03)
    async with Supervisor("test") as supervisor:
        supervisor.start("feed", lambda: notifier.feed(heart))
        await until(lambda: manager.count("WATCHDOG") >= 3, deadline=10)
        beats.clear()
        await asyncio.sleep(0.05)  # one that was under way
        before = manager.count("WATCHDOG")
        await asyncio.sleep(0.2)
        assert manager.count("WATCHDOG") == before
        beats.set()
        await until(lambda: manager.count("WATCHDOG") > before, deadline=10)


@pytest.mark.usefixtures("signals")
async def test_daemon_tells_when_it_is_ready_reloads_and_ends(manager: Manager) -> None:
    ended = asyncio.Event()
    answers: list[str | Exception] = ["changed: labels", InvalidInput("bad label")]

    async def reload() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def work(hooks: Hooks) -> None:
        hooks.reload = reload
        hooks.ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with Supervisor("test") as supervisor:
        supervisor.start("it", lambda: until_signalled(work, Notifier(manager.address), "agent"))
        await until(lambda: manager.count("READY") == 1, deadline=10)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: manager.count("READY") == 2, deadline=10)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: manager.count("READY") == 3, deadline=10)
        os.kill(os.getpid(), signal.SIGTERM)
        await supervisor.join("it")
    assert ended.is_set()
    first, begun, changed, _, refused, last = manager.listen()
    assert first["STATUS"] == "agent works"
    assert begun["RELOADING"] == "1" and begun["MONOTONIC_USEC"].isdecimal()
    assert changed["STATUS"] == "agent works; changed: labels"
    assert "bad label" in refused["STATUS"] and last["STOPPING"] == "1"


@pytest.mark.usefixtures("signals")
async def test_daemon_that_fails_raises_what_failed_and_was_never_ready(manager: Manager) -> None:
    async def work(hooks: Hooks) -> None:
        raise InvalidInput("no such folder")

    with pytest.raises(InvalidInput, match="no such folder"):
        await until_signalled(work, Notifier(manager.address), "agent")
    assert manager.listen() == []
