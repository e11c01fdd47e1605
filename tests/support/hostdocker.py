"""A host's own Docker socket over an agent of fakes (`tests.support.agentlab`), and the stock docker command
run against it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from agent.cgroup import CgroupFiles
from agent.host import HostAgent
from agent.hostapi import HostApi
from agent.logs import LogReader
from agent.servedocker import docker_socket
from api.docker.ports import DockerPort
from api.server import host_app, runner
from tests.support.agentlab import AgentLab
from tests.support.dockercommand import DockerCommand

LOOSE = ("--security-opt", "seccomp=unconfined")
"""The lab has no filter of system calls."""


class HostDocker(DockerCommand):
    """At a host's own socket."""

    def __init__(
        self, agent: HostAgent, port: DockerPort, socket: Path, session: aiohttp.ClientSession
    ) -> None:
        super().__init__(str(socket), session)
        self.agent = agent
        self.port = port


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
