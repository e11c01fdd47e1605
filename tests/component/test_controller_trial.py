"""A controller whose upgrade is not confirmed: what it takes, until when, and that nothing of it is lost."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from aio.clock import VirtualClock
from controller.controller import Controller
from controller.options import Options
from controller.pki import Authority
from controller.store.sqlite import SqliteStore
from controller.trial import TERM, Trial
from deploy import hostdaemons
from model.api import CreateToken, UpdateHost, UpdateSettings
from model.errors import HTTP_STATUS, Unavailable
from model.spec import NetworkSpec
from tests.support.waiting import until

NEW = "2-new"


def on_host(words: Sequence[str]) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def put_aside(folder: Path, release: str = NEW) -> None:
    """As `flota host upgrade` leaves the copy for a release."""
    program = folder / "flota"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    words = hostdaemons.restart("controller", copy_for=release, program=str(program), state=str(folder))
    on_host(words)
    assert (folder / "store.upgrading" / "to").exists()


@contextlib.asynccontextmanager
async def started(folder: Path, clock: VirtualClock, trial: Trial) -> AsyncIterator[Controller]:
    store, authority = await SqliteStore.open(str(folder)), Authority.new("fleet")
    ids = (f"{number:064x}" for number in range(1, 1000))
    try:
        made = Controller(store, clock, lambda: next(ids), lambda _: authority, Options(), trial)
        async with made:
            yield made
    finally:
        await store.close()


async def names(folder: Path) -> set[str]:
    async with started(folder, VirtualClock(), Trial()) as controller:
        return {one.network.spec.name for one in controller.list_networks()}


COMMANDS: dict[str, Callable[[Controller], Awaitable[object]]] = {
    "network": lambda c: c.create_network(NetworkSpec(name="blue")),
    "token": lambda c: c.create_token(CreateToken()),
    "host": lambda c: c.update_host("h1", UpdateHost()),
    "removal": lambda c: c.remove_host("h1", force=True),
    "settings": lambda c: c.update_settings(UpdateSettings()),
    "settle": lambda c: c.settle(),
}


@pytest.mark.parametrize("name", COMMANDS)
async def test_command_on_trial_is_refused_with_words_and_stores_nothing(tmp_path: Path, name: str) -> None:
    assert await names(tmp_path) == {"bridge"}
    put_aside(tmp_path)
    async with started(tmp_path, VirtualClock(), Trial(tmp_path, NEW)) as controller:
        revision = controller.snapshot().revision
        with pytest.raises(Unavailable, match="upgrade to 2-new is not confirmed yet") as refused:
            await COMMANDS[name](controller)
        assert HTTP_STATUS[refused.value.code] == 503 and "flota host upgrade --all" in refused.value.hint
        assert controller.snapshot().revision == revision and controller.list_networks()


async def test_command_is_taken_once_the_upgrade_is_confirmed(tmp_path: Path) -> None:
    await names(tmp_path)
    put_aside(tmp_path)
    async with started(tmp_path, VirtualClock(), Trial(tmp_path, NEW)) as controller:
        with pytest.raises(Unavailable):
            await COMMANDS["network"](controller)
        on_host(hostdaemons.upgraded("1-old", state=str(tmp_path)))
        await COMMANDS["network"](controller)
    assert await names(tmp_path) == {"bridge", "blue"}


async def test_trial_that_nobody_ends_is_over_after_its_term_and_its_commands_stay(tmp_path: Path) -> None:
    await names(tmp_path)
    put_aside(tmp_path)
    clock = VirtualClock()
    async with started(tmp_path, clock, Trial(tmp_path, NEW)) as controller:
        await until(lambda: bool(clock._sleepers), deadline=5)
        await clock.advance(TERM - 1)
        with pytest.raises(Unavailable):
            await COMMANDS["network"](controller)
        await clock.advance(2)
        await until(lambda: (tmp_path / "store.upgrading" / "confirmed").exists(), deadline=5)
        await COMMANDS["network"](controller)
    words = hostdaemons.put_back(NEW, program=str(tmp_path / "flota"), state=str(tmp_path))
    assert on_host(words) == hostdaemons.TAKEN
    assert await names(tmp_path) == {"bridge", "blue"}


@pytest.mark.parametrize("trial", [Trial(), Trial(Path("/nonexistent"), NEW)])
async def test_controller_of_no_upgrade_takes_commands(tmp_path: Path, trial: Trial) -> None:
    async with started(tmp_path, VirtualClock(), trial) as controller:
        await COMMANDS["network"](controller)


async def test_copy_for_the_sake_of_another_release_is_no_trial_of_this_one(tmp_path: Path) -> None:
    await names(tmp_path)
    put_aside(tmp_path, "3-newer")
    async with started(tmp_path, VirtualClock(), Trial(tmp_path, NEW)) as controller:
        await COMMANDS["network"](controller)
