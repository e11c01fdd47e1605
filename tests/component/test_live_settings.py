"""Settings that an agent takes in while it runs, and what its log looks like to a journal."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.config import AgentConfig
from agent.livesettings import LiveSettings, differing, told
from model.errors import InvalidInput
from tests.support.agentlab import AgentLab

replace = msgspec.structs.replace
CONFIG = AgentConfig(labels={"disk": "hdd"}, insecure_registries=("a:5000",))


def test_settings_that_need_a_start_are_named_apart() -> None:
    now = replace(CONFIG, labels={}, address="192.0.2.1", cgroup_driver="cgroupfs")
    live, later = differing(CONFIG, now)
    assert (live, later) == (["labels"], ["address", "cgroup_driver"])
    assert told(live, later) == "changed: labels; with the next start: address, cgroup driver"
    assert told([], []) == "nothing changed"


@pytest.fixture
def level() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@pytest.mark.usefixtures("level")
async def test_labels_registries_and_log_level_are_taken_in(tmp_path: Path) -> None:
    trusted: list[AgentConfig] = []
    more = {"insecure_registries": ("b:5000",), "registry_mirrors": ("https://m",)}
    wanted = [replace(CONFIG, labels={"disk": "ssd"}, log_level="error", **more)]
    async with AgentLab(tmp_path).agent() as agent:
        live = LiveSettings(CONFIG, lambda: wanted[0], agent, trusted.append)
        assert await live.reload() == "changed: labels, insecure registries, registry mirrors, log level"
        assert agent.context.facts.labels == {"disk": "ssd"} and trusted == wanted
        assert logging.getLogger().level == logging.ERROR
        assert await live.reload() == "nothing changed"


async def test_settings_that_cannot_be_read_change_nothing(tmp_path: Path) -> None:
    trusted: list[AgentConfig] = []

    def broken() -> AgentConfig:
        raise InvalidInput("label: KEY=VALUE is missing its =")

    async with AgentLab(tmp_path).agent() as agent:
        before = agent.context.facts
        with pytest.raises(InvalidInput):
            await LiveSettings(CONFIG, broken, agent, trusted.append).reload()
        assert agent.context.facts == before and trusted == []


_SAYS = """
import logging, os
from aio.service import start_log
found = os.fstat(2)
start_log("debug", {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + int(os.environ['OTHER'])}"})
log = logging.getLogger("flota.x")
log.debug("small")
log.warning("two\\nlines")
log.error("bad")
"""


@pytest.mark.parametrize("other", ["0", "1"])
def test_log_has_priorities_for_a_journal_and_the_time_for_people(other: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SAYS], env={**os.environ, "OTHER": other}, capture_output=True, check=True
    )
    lines = done.stderr.decode().splitlines()
    if other == "0":
        assert lines == ["<7>flota.x: small", "<4>flota.x: two", "<4>lines", "<3>flota.x: bad"]
    else:
        assert lines[0].endswith("DEBUG flota.x: small") and lines[0].startswith("20")
