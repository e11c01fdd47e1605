"""What the `flota` command waits for: a pull, a start, an end; and what it says where it waits in vain."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.api import CreateInstance, InstanceInfo
from model.errors import WrongState
from tests.support.servedfleet import ServedFleet, served
from tests.support.waiting import wait_until


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    with served(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    "words",
    [("stop",), ("start",), ("restart",), ("wait",), ("update", "--publish-add", "9000:81"),
     ("network", "connect", "back")],
)  # fmt: skip
def test_container_on_a_lost_host_is_not_told_of_as_done(fleet: ServedFleet, words: tuple[str, ...]) -> None:
    fleet.ok("network", "create", "back")
    fleet.ok("create", "--name", "web", "--node", "n1", "box:1", "sleep")
    fleet.do(fleet.fleet.lose, "web")
    done = fleet.flota(*words, "web")
    assert (done.returncode, done.stdout) == (1, b""), done.stderr
    assert b"host n1 is lost" in done.stderr
    assert (b"It may run there still" if words == ("wait",) else b"It is recorded") in done.stderr


def test_detached_run_whose_host_is_lost_meanwhile_fails_as_an_engine(fleet: ServedFleet) -> None:
    create = fleet.fleet.create_instance

    async def then_lost(request: CreateInstance) -> InstanceInfo:
        made = await create(request)
        await fleet.fleet.lose(made.instance.id)
        return made

    fleet.fleet.create_instance = then_lost  # type: ignore[method-assign]
    done = fleet.flota("run", "-d", "--node", "n1", "box:1", "sleep")
    assert (done.returncode, done.stdout) == (125, b"") and b"host n1 is lost" in done.stderr
