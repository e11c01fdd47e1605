"""A pytest plugin for suites that make a swarm for each case and leave it: a fleet is one and stays it.

Loaded by `-p` in a suite's environment (docker-py's or aiodocker's). To make one gives the node's ID, to
leave one does nothing; all else goes to the fleet. aiodocker's Docker in Docker is the fleet as well.
"""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest

SOCKET = "unix:///run/docker.sock"


def laid(folder: Path) -> tuple[list[str], dict[str, str]]:
    """(words for pytest, its environment) that load this, from a folder where it is alone."""
    folder.mkdir(exist_ok=True)
    shutil.copy(__file__, folder)
    return ["-p", Path(__file__).stem], {"PYTHONPATH": str(folder)}


def _docker_py() -> None:
    """Raises ImportError where there is none."""
    mixin = importlib.import_module("docker.api.swarm").SwarmApiMixin
    mixin.init_swarm = lambda client, *_, **__: client.info()["Swarm"]["NodeID"]
    mixin.leave_swarm = lambda _client, *_, **__: True


def _aiodocker() -> None:
    """Raises ImportError where there is none."""
    swarm = importlib.import_module("aiodocker.swarm").DockerSwarm

    async def init(self: Any, **_: Any) -> str:
        told = await self.docker.system.info()
        return str(told["Swarm"]["NodeID"])

    async def leave(_self: Any, **_: Any) -> bool:
        return True

    swarm.init, swarm.leave = init, leave


def pytest_configure() -> None:
    for known in (_docker_py, _aiodocker):
        try:
            known()
        except ImportError:  # of the other suite
            continue


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> object:
    """None leaves the fixture to itself."""
    if fixturedef.argname != "dind_docker_host":
        return None
    fixturedef.cached_result = (SOCKET, fixturedef.cache_key(request), None)
    return SOCKET
