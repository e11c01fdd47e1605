"""The host's network kept as it should be: bell or timer → observe → diff → apply → report.

`NetReconciler` is the HostNetwork of a real host. It acts in the network namespace that the process is in and
in those it made. Invariants: one change at a time; what stands already is left alone, so a restarted agent's
first `apply` changes nothing; the fast paths (attach, publish) change only their own elements and fall back
to a whole comparison when the kernel was not as remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from aio.backoff import delay
from aio.mailbox import Bell
from aio.supervisor import Supervisor
from model.errors import CommandFailed, Exhausted, InUse, NotFound
from model.ids import InstanceId, short
from model.status import Endpoint
from net import loadbalance, publish
from net.diff import Op, Operation, describe, diff, nft_operations
from net.endpoint import InstanceNetwork, endpoint_link, endpoint_status, network_of, same_but_ways
from net.endpointfiles import EndpointFiles
from net.host import FIRST_PORT, LAST_PORT, Drift, EndpointRequest, NetworkPlan, PublishRequest
from net.kernel.base import Kernel
from net.kernel.linux import LinuxKernel
from net.loadbalance import VirtualService
from net.naming import veth_name
from net.plan import (
    check,
    desired,
    filter_tables,
    loopback_routing,
    own_blocks,
    scene_of,
    service_frame,
    traits_of,
)
from net.servicechains import TABLE as SERVICE_TABLE
from net.serving import Serving
from net.state import Link, NetState, Place, Route, Steering, Sysctl, Way

log = logging.getLogger("flota.net")

SETTLE = 0.05
"""Seconds from a bell to the look: changes come in bursts."""
SETTLES = 10
COMPARE = 25.0
"""Seconds between looks without a bell, give or take a tenth: most sysctls and packet steering tell nobody
when they change, and are set back within 30 s."""


class NetReconciler:
    def __init__(self, run_dir: Path, *, kernel: Kernel | None = None, compare: float = COMPARE) -> None:
        self._spaces = run_dir / "ns"
        self._files = EndpointFiles(run_dir / "endpoints")
        self._kernel: Kernel = kernel if kernel is not None else LinuxKernel()
        self._compare = compare
        self._instances: dict[InstanceId, InstanceNetwork] = {}
        self._plan: NetworkPlan | None = None
        self._lock = asyncio.Lock()
        self._bell = Bell()
        self._watchers: list[Callable[[Drift], None]] = []
        self._leaving: set[str] = set()
        self._routed: frozenset[Place] = frozenset()
        """Of the routes that stood after the last comparison."""
        self._loopback: Mapping[str, str] = {}
        self._supervisor = Supervisor("net")
        self._serving = Serving(self._kernel)
        self._issued = 0

    @property
    def mutations(self) -> int:
        """Operations issued to the kernel since start; stands still while nothing changes."""
        return self._issued + self._serving.mutations

    # -- life ---------------------------------------------------------------------------------------
    async def start(self) -> None:
        self._spaces.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._instances = self._files.load()
        await self._kernel.start(self._bell.ring)
        self._supervisor.start("watch", self._watch, restart=True)
        self._supervisor.start("tidy", lambda: self._serving.tidy(self._lock), restart=True)

    async def close(self) -> None:
        await self._supervisor.close()
        await self._kernel.close()

    async def remove_all(self) -> None:
        """Take away everything of ours on this host: namespaces, links, routes, tables. Sysctls stay as
        they are: others may rely on them by now."""
        for instance in self.namespaces():
            await self.drop_namespace(instance)
        async with self._lock:
            self._plan = None
            await self._serving.remove()
            await self._issue(diff(NetState(), await self._kernel.observe(())))

    async def apply(self, plan: NetworkPlan) -> None:
        check(plan)
        async with self._lock:
            self._plan = plan
            _, failure = await self._converge()
            if failure is not None:
                raise failure
            await self._serving.apply(plan.services, service_frame(plan), own_blocks(plan))

    def on_drift(self, ring: Callable[[Drift], None]) -> None:
        self._watchers.append(ring)

    # -- namespaces ---------------------------------------------------------------------------------
    async def open_namespace(self, instance: InstanceId) -> str:
        path = self._spaces / instance
        async with self._lock:
            if not self._kernel.has_namespace(path):
                await self._kernel.make_namespace(path)
            if instance not in self._instances:
                self._keep(instance, InstanceNetwork(namespace=str(path)))
        return str(path)

    async def drop_namespace(self, instance: InstanceId) -> None:
        async with self._lock:
            known = self._instances.pop(instance, None)
            if known is not None:
                self._leaving |= {veth_name(instance, e.network) for e in known.endpoints}
                await self._elements(known, msgspec.structs.replace(known, endpoints=(), published=None))
            await self._kernel.drop_namespace(self._spaces / instance)
            self._files.forget(instance)

    def namespaces(self) -> Sequence[InstanceId]:
        return sorted(InstanceId(path.name) for path in self._spaces.iterdir())

    # -- endpoints ----------------------------------------------------------------------------------
    async def attach(self, request: EndpointRequest) -> Endpoint:
        async with self._lock:
            view = network_of(self._plan, request.network)
            known = self._known(request.instance)
            assert self._plan is not None
            traits = traits_of(view, scene_of(self._plan))
            ranges = self._plan.vip_ranges.get(request.network, ())
            link = endpoint_link(request, view, traits, known.namespace, ranges)
            before = known.endpoint(request.network)
            if before == request:
                return endpoint_status(request, view)
            rest = tuple(e for e in known.endpoints if e.network != request.network)
            after = msgspec.structs.replace(known, endpoints=(*rest, request))
            if before is not None and same_but_ways(before, request):
                assert link.foot is not None
                await self._issue((Op(verb="change", item=Way(link=link.name, foot=link.foot)),))
                self._keep(request.instance, after)
                return endpoint_status(request, view)
            if before is not None:
                await self._issue((Op(verb="remove", item=link),))
            self._leaving.discard(link.name)
            await self._elements(known, after)
            await self._issue((Op(verb="add", item=link),))
            self._keep(request.instance, after)
            return endpoint_status(request, view)

    async def detach(self, instance: InstanceId, network: str) -> None:
        async with self._lock:
            known = self._instances.get(instance)
            gone = None if known is None else known.endpoint(network)
            if known is None or gone is None:
                return
            rest = tuple(e for e in known.endpoints if e.network != network)
            after = msgspec.structs.replace(known, endpoints=rest)
            self._keep(instance, after)
            await self._elements(known, after)
            name = veth_name(instance, network)
            await self._issue((Op(verb="remove", item=Link(name=name, kind="veth", alias="", mtu=0)),))

    def attached(self, instance: InstanceId) -> Sequence[str]:
        known = self._instances.get(instance)
        return [] if known is None else [endpoint.network for endpoint in known.endpoints]

    # -- ports --------------------------------------------------------------------------------------
    async def publish(self, request: PublishRequest) -> None:
        wanted = publish.normal(request)
        async with self._lock:
            known = self._known(request.instance)
            others = [i.published for i in self._instances.values() if i.published is not None]
            publish.clash(wanted, others)
            held = () if known.published is None else known.published.ports
            for port in wanted.ports:
                if (port.protocol, port.published) in self._serving.published:
                    raise InUse(
                        f"port {port.published}/{port.protocol} is published by a service on this host",
                        hint="Choose another port; `flota service ls` shows whose it is",
                    )
                if port not in held and not self._kernel.port_is_free(
                    port.protocol, port.host_ip, port.published
                ):
                    raise InUse(
                        f"port {port.published}/{port.protocol} is in use by another program on this host",
                        hint="Stop that program, or publish on another port",
                    )
            after = msgspec.structs.replace(known, published=wanted)
            self._keep(request.instance, after)
            await self._elements(known, after)
            await self._route_loopback()

    async def unpublish(self, instance: InstanceId) -> None:
        async with self._lock:
            known = self._instances.get(instance)
            if known is None or known.published is None:
                return
            after = msgspec.structs.replace(known, published=None)
            self._keep(instance, after)
            await self._elements(known, after)
            await self._route_loopback()

    # -- services -----------------------------------------------------------------------------------
    async def serve(self, changes: Mapping[str, VirtualService | None]) -> None:
        async with self._lock:
            ranges = () if self._plan is None else self._plan.service_ranges()
            wanted = {key: service for key, service in changes.items() if service is not None}
            loadbalance.refuse(loadbalance.problems(wanted, ranges))
            await self._serving.change(changes)

    def free_port(
        self,
        protocol: str,
        host_ip: str,
        *,
        but: Container[tuple[str, int]] = frozenset(),
        within: tuple[int, int] = (FIRST_PORT, LAST_PORT),
    ) -> int:
        taken = {
            port.published
            for known in self._instances.values()
            if known.published is not None
            for port in known.published.ports
            if port.protocol == protocol
        }
        taken |= {port for kind, port in self._serving.published if kind == protocol}
        for port in range(within[0], within[1] + 1):
            if port in taken or (protocol, port) in but:
                continue
            if self._kernel.port_is_free(protocol, host_ip, port):
                return port
        raise Exhausted(
            f"no {protocol} port of {within[0]} to {within[1]} is free on {host_ip or 'this host'}"
        )

    # -- within -------------------------------------------------------------------------------------
    def _known(self, instance: InstanceId) -> InstanceNetwork:
        known = self._instances.get(instance)
        if known is None:
            raise NotFound(f"instance {short(instance)} has no network namespace")
        return known

    def _keep(self, instance: InstanceId, network: InstanceNetwork) -> None:
        self._files.save(instance, network)
        self._instances[instance] = network

    async def _elements(self, before: InstanceNetwork, after: InstanceNetwork) -> None:
        """Change the packet filter by what one instance's change means, and by nothing else."""
        if self._plan is None:
            return
        now, then = filter_tables(self._plan, (after,)), filter_tables(self._plan, (before,))
        operations = nft_operations(now, then)
        try:
            await self._issue(operations)
        except CommandFailed as error:
            log.warning("comparing everything, since %s", error)
            if (failure := (await self._converge())[1]) is not None:
                raise failure from error
            with contextlib.suppress(CommandFailed):
                await self._issue(operations)
            self._bell.ring()

    async def _route_loopback(self) -> None:
        if self._plan is None:
            return
        paths = loopback_routing(self._plan, self._instances.values())
        changed = [Sysctl(path=p, value=v) for p, v in paths.items() if self._loopback.get(p) != v]
        await self._issue([Op(verb="change", item=item) for item in changed])
        self._loopback = paths

    async def _issue(self, operations: Sequence[Operation]) -> None:
        self._issued += len(operations)
        if operations:
            await self._kernel.apply(operations)

    async def _converge(self, *, thorough: bool = False) -> tuple[Sequence[Operation], CommandFailed | None]:
        """Make the kernel as desired; what had to be done, and why not all of it could be. `thorough` also
        looks at what it takes a file each to see."""
        assert self._plan is not None
        present = [i for i in self._instances.values() if self._kernel.has_namespace(Path(i.namespace))]
        want = desired(self._plan, present)
        operations, failure = await self._difference(want), None
        try:
            await self._issue(operations)
        except CommandFailed:
            operations, failure = await self._what_can_be(want)
        if thorough:
            kinds = {name: link.kind for name, link in want.links.items() if link.steered}
            names = await self._kernel.unsteered(kinds)
            again = [Op(verb="change", item=Steering(link=n, kind=kinds[n])) for n in names]
            await self._issue(again)
            operations = (*operations, *again)
        self._loopback = loopback_routing(self._plan, present)
        self._routed = frozenset(route.place for route in want.routes)
        return operations, failure

    async def _difference(self, want: NetState) -> Sequence[Operation]:
        have = await self._kernel.observe(want.sysctls)
        self._leaving &= set(have.links)
        return tuple(op for op in diff(want, have, self._routed) if not self._expected(op))

    async def _what_can_be(self, want: NetState) -> tuple[Sequence[Operation], CommandFailed | None]:
        """One by one, so that what the kernel refuses holds up nothing else; the first refusal."""
        done, failure = list[Operation](), None
        for operation in await self._difference(want):
            try:
                await self._issue((operation,))
                done.append(operation)
            except CommandFailed as error:
                failure = failure or error
        return done, failure

    def _expected(self, operation: Operation) -> bool:
        """The kernel is still taking down an endpoint whose namespace was dropped."""
        if not isinstance(operation, Op) or operation.verb != "remove":
            return False
        return isinstance(operation.item, Link) and operation.item.name in self._leaving

    async def _settled(self) -> None:
        """Let a burst of our own changes pass, for at most half of the second within which drift is repaired:
        a look in their midst would make each of them wait."""
        for _ in range(SETTLES):
            before = self.mutations
            await asyncio.sleep(SETTLE)
            if self.mutations == before:
                return

    async def _watch(self) -> None:
        """Looks when it is rung, and now and then without. What can't be repaired is tried again more and
        more rarely."""
        time = asyncio.get_running_loop().time
        due, refused = time() + self._compare, 0
        while True:
            if refused:
                await asyncio.sleep(delay(refused, first=0.1, limit=self._compare))
            thorough = not await self._bell.wait(timeout=max(0.0, due - time())) or time() >= due
            if thorough:
                due = time() + self._compare * random.uniform(0.9, 1.1)
            await self._settled()
            async with self._lock:
                if self._plan is None:
                    continue
                done, failure = await self._converge(thorough=thorough)
                drifts = [_drift(operation) for operation in done]
                if wrong := await self._serving.repair():
                    action = f"{wrong} elements or chains differed, set back"
                    drifts.append(Drift(object=f"nft table inet {SERVICE_TABLE}", action=action))
            refused = refused + 1 if failure is not None else 0
            if failure is not None:
                self._bell.ring()
            if refused == 1:
                drifts.append(Drift(object="network", action=f"not repaired: {failure}"))
            self._tell(drifts)

    def _tell(self, drifts: Iterable[Drift]) -> None:
        for drift in drifts:
            log.warning("%s: %s", drift.object, drift.action)
            for ring in self._watchers:
                ring(drift)


def _drift(operation: Operation) -> Drift:
    if isinstance(operation, Op):
        words = {"add": "was missing, made again", "change": "was changed, set back"}
        if isinstance(operation.item, Route):
            words["change"] = "was missing or led elsewhere, set back"
        action = words.get(operation.verb, "was not ours to have, removed")
        return Drift(object=describe(operation.item), action=action)
    action = "was missing or changed, made again" if operation.whole else "elements differed, set back"
    return Drift(object=f"nft table {operation.family} flota", action=action)
