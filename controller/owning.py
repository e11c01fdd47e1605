"""Containers of hosts' own as the fleet shows them, and commands on them, which go to their hosts.

Invariant: what the fleet made comes first by name and id; nothing of an own container is decided here, and
what is shown of it is what its host said.
"""

from __future__ import annotations

from urllib.parse import quote

from msgspec.structs import replace

from api.channels import Pipe
from api.hostcall import ask_for
from controller.commands.find import find_instance
from controller.condition import status_of
from controller.core import Core
from controller.mirror import Mirror
from model.api import InstanceInfo, WaitCondition, WaitResult, Why
from model.codec import encode_json
from model.errors import AlreadyExists, Internal, NotFound, WrongState
from model.ids import HostId, InstanceId, short
from model.own import OwnAct, OwnContainer
from model.waiting import answer


class Owning(Core):
    """`controller.controller.Controller` is one."""

    @property
    def own(self) -> Mirror:
        return self.statuses.own

    async def open_pipe(self, host: HostId) -> Pipe:
        return await self.pipes.open(host, self.snapshot().host_name(host))

    def own_of(self, ref: str) -> OwnContainer | None:
        """None where the fleet made one that `ref` means, or nobody did. Raises Ambiguous."""
        try:
            find_instance(self.snapshot(), ref)
        except NotFound:
            try:
                return self.own.find(ref)
            except NotFound:
                return None
        return None

    def own_infos(self) -> list[InstanceInfo]:
        fleets = self.snapshot().instances
        return [self.own_info(one) for one in self.own.all() if one.instance.id not in fleets]

    def own_info(self, one: OwnContainer) -> InstanceInfo:
        cluster, instance = self.snapshot(), one.instance
        host = cluster.hosts.get(instance.host) if instance.host is not None else None
        name = cluster.host_name(instance.host)
        return InstanceInfo(
            instance=instance,
            status=status_of(instance, host, one.status),
            host_name=name,
            explanation=(f"made on {name}'s own socket", *filter(None, (one.status.message,))),
            origin="host",
        )

    def check_unowned(self, name: str) -> None:
        """Raises AlreadyExists for a name that a host's own container has, as far as hosts told: the fleet's
        of that name would hide it."""
        if name and (holder := self.own.holder(name)) is not None:
            host = self.snapshot().host_name(holder.instance.host)
            raise AlreadyExists(
                f"the name {name} is in use by container {short(holder.instance.id)}, which was made on "
                f"{host}'s own socket",
                hint=f"Remove or rename that one: flota rm {name}",
            )

    def check_fleets(self, ref: str) -> None:
        """For what is not asked of a host. Raises WrongState for a container of a host's own."""
        if (one := self.own_of(ref)) is not None:
            name = self.snapshot().host_name(one.instance.host)
            raise WrongState(
                f"container {one.instance.name} was made on {name}'s own socket: its networks and ports stay "
                "as they were made"
            )

    def why_own(self, one: OwnContainer) -> Why:
        info = self.own_info(one)
        name, where = info.instance.name, info.host_name
        return Why(
            kind="instance",
            id=info.instance.id,
            name=name,
            summary=f"container {name} is {info.status.phase} on {where}",
            reasons=(*info.explanation, f"should be {info.instance.desired}: {info.instance.reason}"),
            events=self.ring.about(info.instance.id),
        )

    async def own_act(self, one: OwnContainer, act: OwnAct) -> InstanceInfo:
        """Its host decides. Raises what that says, Unavailable."""
        instance = one.instance
        assert instance.host is not None, "the mirror says whose it is"
        path = f"/v1/own/{quote(instance.id, safe='')}"
        said = await ask_for(self, instance.host, "POST", path, InstanceInfo, send=encode_json(act))
        if said.instance.id != instance.id:
            raise Internal(f"host {self.snapshot().host_name(instance.host)} answers of another container")
        known = self.own.get(instance.id)
        news = OwnContainer(instance=replace(said.instance, host=instance.host), status=said.status)
        # What its session told meanwhile may be newer, or that it is gone.
        if known is not None and news.instance.revision > known.instance.revision:
            self.own.take(instance.host, (news,))
        return self.own_info(self.own.get(instance.id) or news)

    async def wait_own(self, ident: InstanceId, condition: WaitCondition) -> WaitResult:
        known, waits = self.own.get(ident), self.own.waits
        began = known.status if known is not None else waits.last(ident)

        def look() -> WaitResult | None:
            one = self.own.get(ident)
            if one is None:
                return answer(condition, None, waits.last(ident), began)
            return answer(condition, one.instance, self.own_info(one).status, began)

        return await waits.until(ident, look)
