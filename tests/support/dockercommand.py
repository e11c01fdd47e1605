"""The stock docker command, and requests of one's own, at a unix socket."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import aiohttp

from aio.subprocess import Completed, run

DOCKER = "/usr/bin/docker"
PATIENCE = 60.0


class DockerCommand:
    """Calling it runs `docker WORDS`; `call` is a request of one's own."""

    def __init__(self, socket: str, session: aiohttp.ClientSession) -> None:
        self.socket = socket
        self.session = session

    async def attempt(self, *words: str) -> Completed:
        return await run(
            [DOCKER, "-H", f"unix://{self.socket}", *words],
            deadline=PATIENCE,
            env={"PATH": os.environ["PATH"], "HOME": str(Path(self.socket).parent)},
        )

    async def __call__(self, *words: str) -> str:
        done = await self.attempt(*words)
        assert done.code == 0, done.stderr
        return done.stdout.decode().strip()

    async def refusal(self, *words: str) -> str:
        """What a command that fails says."""
        done = await self.attempt(*words)
        assert done.code != 0, done.stdout
        return done.stderr.decode()

    async def inspect(self, *words: str) -> dict[str, Any]:
        """`docker WORDS inspect NAME`, the name last."""
        found: dict[str, Any] = json.loads(await self(*words[:-1], "inspect", words[-1]))[0]
        return found

    async def call(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        """(status, what the JSON says)."""
        asked = self.session.request(method, f"http://docker{path}", json=body, params=query)
        async with asked as reply:
            text = await reply.text()
        return reply.status, json.loads(text) if text else None
