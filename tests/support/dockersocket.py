"""A fleet of fakes behind the Docker API's own application, for raw requests and the stock client."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from api.docker.app import docker_app, fleet_identity
from api.docker.state import State
from api.listen import serve_unix
from api.server import runner
from tests.support.fakeports import FakeFleet

CLIENT = "/usr/bin/docker"
PATIENCE = 60


class Ended:
    """What a command said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


class Answer:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


class DockerSocket:
    """Served on `path`; `fleet` is what it speaks for."""

    def __init__(self, fleet: FakeFleet, path: str, session: aiohttp.ClientSession) -> None:
        self.fleet = fleet
        self.path = path
        self.session = session

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Any = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
    ) -> Answer:
        """`path` has its version or is of the newest; `body` goes as JSON, `data` as it is."""
        url = f"http://docker{path}" + (f"?{urlencode(query, doseq=True)}" if query else "")
        async with self.session.request(
            method, url, json=body, data=data, headers=dict(headers or {}), allow_redirects=False
        ) as reply:
            return Answer(reply.status, dict(reply.headers), await reply.read())

    async def command(
        self, *words: str, stdin: bytes = b"", home: str = "/nonexistent", **environment: str
    ) -> Ended:
        """The stock docker command."""
        process = await asyncio.create_subprocess_exec(
            CLIENT, "-H", f"unix://{self.path}", *words,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": home, **environment},
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(stdin), PATIENCE)
        return Ended(process.returncode or 0, out.decode(), err.decode())


@asynccontextmanager
async def docker_socket(folder: Path, hosts: int = 3) -> AsyncIterator[DockerSocket]:
    async with FakeFleet(hosts) as fleet:
        state = State()
        app = runner(docker_app(fleet, fleet_identity("fleet"), state))
        await app.setup()
        path = str(folder / "docker.sock")
        await serve_unix(app, path)
        connector = aiohttp.UnixConnector(path)
        try:
            async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
                yield DockerSocket(fleet, path, session)
        finally:
            await state.close()
            await app.cleanup()
