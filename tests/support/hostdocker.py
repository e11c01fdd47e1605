"""A host's own Docker socket over an agent of fakes (`tests.support.agentlab`), and the stock docker command
run against it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from agent.cgroup import CgroupFiles
from agent.host import HostAgent
from agent.hostapi import HostApi
from agent.logs import LogReader
from agent.servedocker import docker_socket
from aio.subprocess import Completed, run
from api.docker.ports import DockerPort
from api.server import host_app, runner
from tests.support.agentlab import AgentLab

DOCKER = "/usr/bin/docker"
PATIENCE = 60.0
LOOSE = ("--security-opt", "seccomp=unconfined")
"""The lab has no filter of system calls."""


class HostDocker:
    """Calling it runs `docker WORDS`; `call` is a request of one's own."""

    def __init__(
        self, agent: HostAgent, port: DockerPort, socket: Path, session: aiohttp.ClientSession
    ) -> None:
        self.agent = agent
        self.port = port
        self.socket = socket
        self.session = session

    async def attempt(self, *words: str) -> Completed:
        return await run(
            [DOCKER, "-H", f"unix://{self.socket}", *words],
            deadline=PATIENCE,
            env={"PATH": os.environ["PATH"], "HOME": str(self.socket.parent)},
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
        async with self.session.request(method, f"http://docker{path}", json=body, params=query) as reply:
            text = await reply.text()
        return reply.status, json.loads(text) if text else None


@contextlib.asynccontextmanager
async def host_docker(lab: AgentLab) -> AsyncIterator[HostDocker]:
    """An agent on the lab's host, and its socket."""
    socket = lab.folder / "docker.sock"
    async with lab.agent() as agent:
        logs = LogReader()
        native = runner(host_app(HostApi(agent, CgroupFiles("/sys/fs/cgroup", "/flota-lab"), logs)))
        await native.setup()
        async with (
            docker_socket(agent, native, socket) as port,
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session,
        ):
            yield HostDocker(agent, port, socket, session)
        await native.cleanup()
        logs.close()
