"""What the `flota` command waits for: a pull, a start, an end; and what it says where it waits in vain."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.api import CreateInstance, InstanceInfo
from model.errors import WrongState
from model.registries import NOBODY, Login
from tests.support.servedfleet import ServedFleet, served
from tests.support.waiting import wait_until


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    with served(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    "words",
    [("stop",), ("start",), ("start", "-a"), ("restart",), ("wait",), ("update", "--publish-add", "9000:81"),
     ("network", "connect", "back")],
)  # fmt: skip
def test_container_on_a_lost_host_is_not_told_of_as_done(fleet: ServedFleet, words: tuple[str, ...]) -> None:
    fleet.ok("network", "create", "back")
    fleet.ok("create", "--name", "web", "--node", "n1", "box:1", "sleep")
    fleet.do(fleet.fleet.lose, "web")
    done = fleet.flota(*words, "web")
    assert (done.returncode, done.stdout) == (1, b""), done.stderr
    assert b"host n1 is lost" in done.stderr
    hint = {("wait",): b"It may run there still", ("start", "-a"): b"Nothing was started"}
    assert hint.get(words, b"It is recorded") in done.stderr


def test_detached_run_whose_host_is_lost_meanwhile_fails_as_an_engine(fleet: ServedFleet) -> None:
    create = fleet.fleet.create_instance

    async def then_lost(request: CreateInstance, login: Login = NOBODY) -> InstanceInfo:
        made = await create(request, login)
        await fleet.fleet.lose(made.instance.id)
        return made

    fleet.fleet.create_instance = then_lost  # type: ignore[method-assign]
    done = fleet.flota("run", "-d", "--node", "n1", "box:1", "sleep")
    assert (done.returncode, done.stdout) == (125, b"") and b"host n1 is lost" in done.stderr


JOB = ("big:1", "sh", "-c", "echo hi; exit 3")


@pytest.mark.parametrize("words", [("run", "--rm", *JOB), ("start", "-a", "job")])
def test_foreground_waits_for_a_pull_however_long_it_takes(
    fleet: ServedFleet, words: tuple[str, ...]
) -> None:
    fleet.fleet.on_their_way.add("big:1")
    if words[0] == "start":
        fleet.ok("create", "--name", "job", *JOB)
    with subprocess.Popen(fleet.command(*words), env=fleet.environment(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:  # fmt: skip
        wait_until(lambda: "created" in fleet.fleet.waits or process.poll() is not None, deadline=30)
        fleet.do(fleet.fleet.arrive, "big:1")
        out, said = process.communicate(timeout=30)
    assert (process.returncode, out, said) == (3, b"hi\n", b"")


@pytest.mark.parametrize(("flags", "left"), [(("--rm",), 0), ((), 1)])
def test_foreground_run_that_can_not_attach_leaves_nothing_with_rm(
    fleet: ServedFleet, flags: tuple[str, ...], left: int
) -> None:
    async def refuse(ref: str, *, stdin: bool, logs: bool, attempt: int = 0) -> Any:
        raise WrongState("it was not created within 30 s")

    for host in fleet.fleet.hosts.values():
        host.attach = refuse  # type: ignore[method-assign]
    done = fleet.flota("run", *flags, "box:1", "sleep")
    assert done.returncode == 125 and done.stderr == b"flota: it was not created within 30 s\n"
    assert len(fleet.json("ps", "-a")) == left


@pytest.mark.parametrize(("flags", "left"), [(("--rm",), 0), ((), 1)])
def test_foreground_run_of_a_program_that_is_not_there_leaves_nothing_with_rm(
    fleet: ServedFleet, flags: tuple[str, ...], left: int
) -> None:
    assert fleet.flota("run", *flags, "box:1", "nosuch").returncode == 127
    assert len(fleet.json("ps", "-a")) == left
