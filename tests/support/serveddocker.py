"""A fake fleet's Docker API on a unix socket, and the stock docker command run against it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from api.docker.app import docker_app, fleet_identity
from api.docker.state import State
from tests.support.servedfleet import ServedFleet

DOCKER = "/usr/bin/docker"
PATIENCE = 60


class ServedDocker(ServedFleet):
    """Calling it runs the command; `http` asks without one."""

    def __init__(self, socket: str, home: Path) -> None:
        super().__init__(socket)
        self.home = home

    def application(self) -> web.Application:
        return docker_app(self.fleet, fleet_identity("fleet"), State())

    def attempt(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [DOCKER, "-H", f"unix://{self.socket}", *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home)},
        )

    def __call__(self, *words: str) -> str:
        done = self.attempt(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def inspect(self, *words: str) -> dict[str, Any]:
        """`docker WORDS inspect NAME`, the name last."""
        found: dict[str, Any] = json.loads(self(*words[:-1], "inspect", words[-1]))[0]
        return found

    def http(self, method: str, path: str, **query: str) -> Any:
        """What a request of one's own is answered, where it is done."""

        async def ask() -> Any:
            connector = aiohttp.UnixConnector(self.socket)
            async with (
                aiohttp.ClientSession(connector=connector, raise_for_status=True) as session,
                session.request(method, f"http://docker{path}", params=query) as reply,
            ):
                return await reply.json()

        return asyncio.run(ask())

    def refusal(self, *words: str) -> str:
        """What a command that fails says."""
        done = self.attempt(*words)
        assert done.returncode != 0, done.stdout
        return done.stderr


@contextlib.contextmanager
def served_docker(folder: Path) -> Iterator[ServedDocker]:
    made = ServedDocker(str(folder / "docker.sock"), folder)
    made.start()
    try:
        yield made
    finally:
        made.stop()
