"""Containers as a host's own Docker socket knows them: those of its own to change, the fleet's to look into.

Invariant: a change of one of its own is decided upon the journal's state, and durable before it is answered;
none of the fleet's is ever changed here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal

from agent import happenings, ownrules
from agent.host import HostAgent
from agent.ownrules import Here
from agent.record import status_of
from agent.wanted import Own
from agent.worker import fresh
from model import lives
from model.api import CreateInstance, InstanceInfo, StopRequest, WaitCondition, WaitResult
from model.errors import WrongState
from model.events import Event
from model.ids import HostId, IdSource, InstanceId
from model.limits import UpdateLimits
from model.own import OwnAct
from model.records import Instance
from model.registries import NOBODY, Login
from model.status import InstanceStatus
from model.waiting import answer

Decide = Callable[[Instance, InstanceStatus], Instance]


class OwnContainers:
    """That part of `api.docker.ports.DockerPort`."""

    def __init__(self, agent: HostAgent, ids: IdSource) -> None:
        self._agent = agent
        self._ids = ids

    # -- looking ------------------------------------------------------------------------------------
    @property
    def here(self) -> Here:
        context = self._agent.context
        return Here(id=context.host, name=context.facts.hostname)

    def list_instances(self) -> Sequence[InstanceInfo]:
        """Newest first: all that is here."""
        buried = self._agent.tombstones
        wishes = (i for i in self._agent.context.wishes.values() if i.id not in buried)
        return [self._info(i) for i in sorted(wishes, key=lambda i: (-i.created_at, i.id))]

    def get_instance(self, ref: str) -> InstanceInfo:
        return self._info(self._found(ref))

    def locate_instance(self, ref: str) -> tuple[str, HostId]:
        return self._found(ref).id, self.here.id

    def events(self, since: float | None, until: float | None) -> AsyncIterator[Event]:
        """Of this host, since its agent started."""
        return self._agent.happenings.stream(since, until)

    async def wait_instance(self, ref: str, condition: WaitCondition) -> WaitResult:
        waits = self._agent.telling.waits
        gone = waits.last(InstanceId(ref)) is not None  # it may have removed itself before anybody waited
        ident = InstanceId(ref) if gone else self._found(ref).id
        began = self._reported(ident)

        def look() -> WaitResult | None:
            if (last := waits.last(ident)) is not None:
                return answer(condition, None, last, began)
            instance = self._agent.context.wishes.get(ident)
            status = self._reported(ident)
            return answer(condition, instance, lives.present(instance, status) if instance else None, began)

        return await waits.until(ident, look)

    # -- changing -----------------------------------------------------------------------------------
    async def create_instance(self, request: CreateInstance, login: Login = NOBODY) -> InstanceInfo:
        """Its image is here already: nobody needs to be anybody at a registry for it."""
        del login
        context, now = self._agent.context, self._agent.context.clock.now()
        ident = InstanceId(self._ids())
        made = await self._agent.own.change(
            lambda own: ownrules.created(context.view, own, request, self.here, now=now, ident=ident)
        )
        self._tell(made, "create")
        return self._info(made)

    async def start_instance(self, ref: str, *, hold: bool = False) -> InstanceInfo:
        return await self._change(ref, "start", lambda i, status: lives.started(i, status, hold=hold))

    async def stop_instance(self, ref: str, request: StopRequest) -> InstanceInfo:
        return await self._change(ref, "stop", lambda i, _: lives.stopped(i, request))

    async def restart_instance(self, ref: str, request: StopRequest) -> InstanceInfo:
        return await self._change(ref, "restart", lambda i, _: lives.restarted(i, request), told=True)

    async def pause_instance(self, ref: str, *, paused: bool) -> InstanceInfo:
        verb = "pause" if paused else "unpause"
        return await self._change(ref, verb, lambda i, status: lives.paused(i, status, to=paused))

    async def remove_instance(self, ref: str, *, force: bool, volumes: bool) -> InstanceInfo:
        return await self._change(
            ref, "remove", lambda i, status: lives.removed(i, status, force=force, volumes=volumes)
        )

    async def rename_instance(self, ref: str, name: str) -> InstanceInfo:
        def decide(instance: Instance, status: InstanceStatus) -> Instance:
            decided = lives.renamed(instance, name)
            ownrules.check_free(self._agent.context.view, self._agent.context.own, name)
            return decided

        return await self._change(ref, "rename", decide, told=True)

    async def update_limits(self, ref: str, request: UpdateLimits) -> InstanceInfo:
        return await self._change(ref, "update", lambda i, _: lives.limited(i, request), told=True)

    async def act(self, ref: str, act: OwnAct) -> InstanceInfo:
        """What the fleet was asked to do with one."""
        match act.verb:
            case "start":
                return await self.start_instance(ref, hold=act.hold)
            case "stop":
                return await self.stop_instance(ref, act.stop)
            case "restart":
                return await self.restart_instance(ref, act.stop)
            case "pause" | "unpause":
                return await self.pause_instance(ref, paused=act.verb == "pause")
            case "remove":
                return await self.remove_instance(ref, force=act.force, volumes=act.volumes)
            case "rename":
                return await self.rename_instance(ref, act.name)
            case "update":
                return await self.update_limits(ref, act.limits)

    async def _change(self, ref: str, verb: str, decide: Decide, *, told: bool = False) -> InstanceInfo:
        """`told`: an event says so here; all else is told by the host when it has come about."""
        before: Instance | None = None

        def revised(own: Own) -> Instance:
            nonlocal before
            before = ownrules.mine(self._agent.context.view, own, ref, verb)
            status = lives.present(before, self._reported(before.id))
            return ownrules.revised(before, decide(before, status))

        made = await self._agent.own.change(revised)
        if told and made != before:
            self._tell(made, verb)
        return self._info(made)

    # -- parts --------------------------------------------------------------------------------------
    def _found(self, ref: str) -> Instance:
        context = self._agent.context
        return ownrules.found(context.view, context.own, ref)

    def _reported(self, ident: InstanceId) -> InstanceStatus | None:
        record = self._agent.context.records.get(ident)
        return status_of(record) if record is not None else self._agent.telling.waits.last(ident)

    def _info(self, instance: Instance) -> InstanceInfo:
        status = lives.present(instance, self._reported(instance.id))
        origin: Literal["fleet", "host"] = "host" if instance.id in self._agent.own else "fleet"
        return InstanceInfo(instance=instance, status=status, host_name=self.here.name, origin=origin)

    def _tell(self, instance: Instance, action: str) -> None:
        context = self._agent.context
        record = context.records.get(instance.id) or fresh(instance, context.clock.now())
        self._agent.reporter.event(happenings.of_container(context, record, instance, action))


def refuse_fleets(what: str) -> WrongState:
    """For what is the fleet's alone."""
    return WrongState(
        f"{what} is the fleet's, and this is the socket of one of its hosts",
        hint="Do it at the fleet's endpoint",
    )
