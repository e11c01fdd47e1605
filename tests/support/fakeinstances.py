"""The containers' part of `api.ports.ControllerPort`: programs that are played, on fake hosts."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Sequence

import msgspec

from aio.supervisor import Supervisor
from model import api as m
from model.errors import AlreadyExists, WrongState
from model.ids import HostId, InstanceId, resolve
from model.records import (
    Desired,
    Instance,
)
from model.registries import NOBODY, Login
from model.status import Phase
from model.validate import check, validate_container, validate_name
from tests.support.fakecontainers import FakeContainer, Program
from tests.support.fakehost import IMAGE_ID, FakeHost

PROGRAMS = ("echo", "err", "exit", "cat", "sleep", "spam", "size", "env", "sh", "true")


class FakeInstances:
    """Hosts are added by whoever has it; `tasks` to be closed by him."""

    def __init__(self) -> None:
        self.tasks = Supervisor("fake")
        self.hosts: dict[HostId, FakeHost] = {}
        self.created: list[m.CreateInstance] = []
        self.logins: list[Login] = []
        """That containers and services were made or changed with."""
        self.stops: list[m.StopRequest] = []
        self.waits: list[str] = []
        self.on_their_way: set[str] = set()
        """Images that no host has yet, until they `arrive`."""
        self._ids = itertools.count(1)

    def locate_host(self, ref: str) -> HostId:
        return HostId(resolve("node", ref, [(i, h.name) for i, h in self.hosts.items()]))

    def login_for_pull(self, host: HostId, instance: InstanceId) -> Login:
        del host
        self._find(instance)
        return next(filter(None, reversed(self.logins)), NOBODY)

    def _id(self) -> str:
        return hashlib.sha256(str(next(self._ids)).encode()).hexdigest()

    def _all(self) -> dict[str, tuple[FakeHost, FakeContainer]]:
        return {i: (h, c) for h in self.hosts.values() for i, c in h.containers.items()}

    def _find(self, ref: str) -> tuple[FakeHost, FakeContainer]:
        every = self._all()
        return every[resolve("container", ref, [(i, c.instance.name) for i, (_, c) in every.items()])]

    def _info(self, host: FakeHost, container: FakeContainer) -> m.InstanceInfo:
        return m.InstanceInfo(instance=container.instance, status=container.status, host_name=host.name)

    def list_instances(self) -> Sequence[m.InstanceInfo]:
        return [self._info(h, c) for h, c in reversed(self._all().values())]

    def get_instance(self, ref: str) -> m.InstanceInfo:
        return self._info(*self._find(ref))

    async def create_instance(self, request: m.CreateInstance, login: Login = NOBODY) -> m.InstanceInfo:
        problems = validate_name("container", request.name, "name") if request.name else []
        check("container", problems + validate_container(request.spec))
        self.created.append(request)
        self.logins.append(login)
        ident = InstanceId(self._id())
        name = request.name or f"calm_{ident[:4]}"
        if any(c.instance.name == name for _, c in self._all().values()):
            raise AlreadyExists(f"container {name} exists already")
        host = self.hosts[self.locate_host(request.host)] if request.host else self._emptiest()
        args = request.spec.args or ("true",)
        instance = Instance(id=ident, name=name, spec=request.spec, host=host.id, created_at=time.time())
        container = FakeContainer(instance)
        host.containers[ident] = container
        if args[0] not in PROGRAMS:
            what = f'exec: "{args[0]}": executable file not found in $PATH'
            await container.become(phase=Phase.FAILED, exit_code=127, message=what, image_id=IMAGE_ID)
        elif request.spec.image in self.on_their_way:
            await container.become(phase=Phase.PULLING)
        elif request.start:
            await self.start_instance(ident)
        return self._info(host, container)

    def _emptiest(self) -> FakeHost:
        return min(self.hosts.values(), key=lambda h: len(h.containers))

    async def start_instance(self, ref: str, *, hold: bool = False) -> m.InstanceInfo:
        host, container = self._find(ref)
        if hold:
            return self._info(host, container)
        if container.status.phase in (Phase.FAILED, Phase.LOST):
            return self._info(host, container)
        if container.status.phase.live:
            raise WrongState(f"container {container.instance.name} runs already")
        if container.exits:
            container.program = Program()
        name = f"{container.instance.id} {container.exits}"
        self.tasks.start(name, lambda: self._live(host, container))
        return self._info(host, container)

    async def _live(self, host: FakeHost, container: FakeContainer) -> None:
        await container.live()
        if container.instance.spec.auto_remove:
            await self._gone(host, container)

    async def _gone(self, host: FakeHost, container: FakeContainer) -> None:
        host.containers.pop(container.instance.id, None)
        await container.become(phase=Phase.REMOVED)

    async def stop_instance(self, ref: str, request: m.StopRequest) -> m.InstanceInfo:
        host, container = self._find(ref)
        self.stops.append(request)
        if container.status.phase.live:
            await container.program.signalled.put(15)
        return self._info(host, container)

    async def restart_instance(self, ref: str, request: m.StopRequest) -> m.InstanceInfo:
        await self.stop_instance(ref, request)
        await self.wait_instance(ref, "stopped")
        return await self.start_instance(ref)

    async def pause_instance(self, ref: str, *, paused: bool) -> m.InstanceInfo:
        host, container = self._find(ref)
        await container.become(paused=paused)
        return self._info(host, container)

    async def remove_instance(self, ref: str, *, force: bool, volumes: bool) -> m.InstanceInfo:
        host, container = self._find(ref)
        if container.status.phase.live and not force:
            hint = "Stop it first, or use force"
            raise WrongState(f"container {container.instance.name} is running", hint=hint)
        container.instance = msgspec.structs.replace(container.instance, desired=Desired.REMOVED)
        if container.status.phase.live:
            await container.program.signalled.put(9)
        await self._gone(host, container)
        return self._info(host, container)

    async def rename_instance(self, ref: str, name: str) -> m.InstanceInfo:
        host, container = self._find(ref)
        if any(c.instance.name == name for _, c in self._all().values()):
            raise AlreadyExists(f"the name {name} is in use")
        container.instance = msgspec.structs.replace(container.instance, name=name)
        return self._info(host, container)

    async def wait_instance(self, ref: str, condition: str) -> m.WaitResult:
        _, container = self._find(ref)
        exits = container.exits

        def over() -> bool:
            phase = container.status.phase
            if phase in (Phase.REMOVED, Phase.FAILED, Phase.LOST):
                return True
            match condition:
                case "created":
                    return container.made
                case "wired" | "limited" | "paused" | "unpaused":
                    return True
                case "running":
                    return phase is Phase.RUNNING or container.exits > 0
                case "stopped":
                    return not phase.live
                case "next-exit":
                    return container.exits > exits
            return False

        self.waits.append(condition)
        async with container.changed:
            await container.changed.wait_for(over)
        status = container.status
        return m.WaitResult(exit_code=status.exit_code, phase=status.phase, message=status.message)

    async def arrive(self, image: str) -> None:
        self.on_their_way.discard(image)
        for _, container in self._all().values():
            if container.instance.spec.image == image and not container.made:
                await container.become(phase=Phase.CREATED)

    async def lose(self, ref: str) -> None:
        """What is told of a container once its host has fallen silent."""
        host, container = self._find(ref)
        await container.become(phase=Phase.LOST, message=f"host {host.name} is lost: no answer for 3 s")
