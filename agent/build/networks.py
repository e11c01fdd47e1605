"""Network namespaces for the RUN steps of one build, by the network that they are on.

A namespace with its endpoint takes as long to make as a short step to run, so one that a step has left is
given to the next one: its processes are dead, and without privileges they could change nothing of it. Steps
that run at the same time never share one. Addresses come out of this host's own blocks: nobody is asked.
Invariants: what a privileged step was in is not used again; all are gone when the build is over, and an agent
that starts anew removes those that nobody knows, as it does with containers'.
"""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator

from agent import endpoints
from agent.build.spec import DEFAULT, HOST, NONE
from agent.context import Context
from agent.record import Local
from aio.together import to_its_end
from model.errors import FlotaError, NotFound
from model.ids import IdSource, InstanceId, NetworkId, resolve, short
from model.image import ImageConfig
from model.records import Instance, ResolvedAttachment
from model.spec import ContainerSpec, Struct
from model.status import Endpoint
from net.host import PREDEFINED_BRIDGE

log = logging.getLogger("flota.agent")


class Space(Struct):
    """`path` is empty for the host's own."""

    instance: InstanceId
    path: str
    endpoints: tuple[Endpoint, ...] = ()


class Networks:
    def __init__(self, context: Context, new_id: IdSource) -> None:
        self._context = context
        self._new_id = new_id
        self._free: dict[str, list[Space]] = defaultdict(list)
        self._all: set[InstanceId] = set()

    @contextlib.asynccontextmanager
    async def lease(self, name: str, *, again: bool) -> AsyncIterator[Space]:
        """`again`: whether it may serve another step afterwards. Raises NotFound for a network that is not on
        this host."""
        if name == HOST:
            yield Space(instance=InstanceId(""), path="")
            return
        network = "" if name == NONE else self._network(name)
        free = self._free[network]
        space = free.pop() if free else await self._made(network)
        try:
            yield space
        finally:
            if again:
                free.append(space)
            else:
                await to_its_end(self._drop(space.instance))

    async def close(self) -> None:
        """What can't be removed is told, and left to the agent's next start."""
        self._free.clear()
        for instance in tuple(self._all):
            try:
                await to_its_end(self._drop(instance))
            except (FlotaError, OSError) as error:
                log.error("namespace of build step %s: %s", short(instance), error)

    def _network(self, name: str) -> NetworkId:
        wish = PREDEFINED_BRIDGE if name in ("", DEFAULT) else name
        known = self._context.view.networks
        try:
            return NetworkId(resolve("network", wish, ((n.id, n.spec.name) for n in known.values())))
        except NotFound as error:
            raise NotFound(
                f"network {wish[:80]!r} is not on this host",
                hint="Builds can use networks that containers of the host are on",
            ) from error

    async def _made(self, network: str) -> Space:
        instance = InstanceId(self._new_id())
        self._all.add(instance)
        self._context.builders[instance] = ()
        try:
            return await self._wired(instance, network)
        except BaseException:
            await to_its_end(self._drop(instance))
            raise

    async def _wired(self, instance: InstanceId, network: str) -> Space:
        context = self._context
        if not network:
            return Space(instance=instance, path=await context.network.open_namespace(instance))
        want = Instance(
            id=instance,
            name=f"build-{instance[:12]}",
            spec=ContainerSpec(image=""),
            attachments=(ResolvedAttachment(network=NetworkId(network)),),
        )
        await endpoints.addresses(context, want)
        path = await endpoints.namespace(context, want)
        wired = await endpoints.wire(context, want, ImageConfig(), Local(instance=instance))
        context.builders[instance] = wired.endpoints
        await context.introduce(wired.endpoints)
        return Space(instance=instance, path=path, endpoints=wired.endpoints)

    async def _drop(self, instance: InstanceId) -> None:
        await endpoints.disconnect(self._context, instance)
        self._all.discard(instance)
        self._context.builders.pop(instance, None)
