"""The host's network kept as it should be: bell or timer → observe → diff → apply → report.

`NetReconciler` is the HostNetwork of a real host. It acts in the network namespace that the process is in and
in those it made. Invariants: one change at a time; what stands already is left alone, so a restarted agent's
first `apply` changes nothing; the fast paths (attach, publish) change only their own elements and fall back
to a whole comparison when the kernel was not as remembered.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from aio.backoff import delay
from aio.mailbox import Bell
from aio.supervisor import Supervisor
from model.errors import CommandFailed, InUse, NotFound
from model.ids import InstanceId, short
from model.status import Endpoint
from net import hostports, loadbalance, publish
from net.convergence import Convergence
from net.diff import Op, Operation, diff, nft_operations
from net.drift import drift_of, not_repaired, services_drift
from net.endpoint import InstanceNetwork, endpoint_link, endpoint_status, network_of, same_but_ways
from net.endpointfiles import EndpointFiles
from net.host import FIRST_PORT, LAST_PORT, Drift, EndpointRequest, NetworkPlan, PublishRequest
from net.kernel.base import Kernel
from net.kernel.linux import LinuxKernel
from net.loadbalance import VirtualService
from net.naming import veth_name
from net.parting import Parting
from net.plan import (
    around,
    check,
    desired,
    filter_tables,
    loopback_routing,
    own_blocks,
    policy_tables,
    scene_of,
    service_frame,
    traits_of,
)
from net.policy import HostPolicies
from net.proxied import proxied, proxy_state, told
from net.proxying import PortProxy, ProxyFeed
from net.serving import Serving
from net.shaping import limit_changes
from net.state import Link, NetState, Sysctl, Way

log = logging.getLogger("flota.net")

SETTLE = 0.05
"""Seconds from a bell to the look: changes come in bursts."""
SETTLES = 10
COMPARE = 25.0
"""Seconds between looks without a bell, give or take a tenth: most sysctls and packet steering tell nobody
when they change, and are set back within 30 s."""


class NetReconciler:
    def __init__(
        self,
        run_dir: Path,
        *,
        kernel: Kernel | None = None,
        proxy: PortProxy | None = None,
        compare: float = COMPARE,
    ) -> None:
        self._spaces = run_dir / "ns"
        self._files = EndpointFiles(run_dir / "endpoints")
        self._kernel: Kernel = kernel if kernel is not None else LinuxKernel()
        self._proxy: PortProxy = proxy if proxy is not None else ProxyFeed(run_dir)
        self._compare = compare
        self._instances: dict[InstanceId, InstanceNetwork] = {}
        self._plan: NetworkPlan | None = None
        self._lock = asyncio.Lock()
        self._bell = Bell()
        self._watchers: list[Callable[[Drift], None]] = []
        self._loopback: Mapping[str, str] = {}
        self._supervisor = Supervisor("net")
        self._told: dict[str, VirtualService] = {}
        """Services with ports that the proxy serves."""
        self._serving = Serving(self._kernel)
        self._parting = Parting(self._kernel, lambda: tuple(self._instances.values()))
        self._convergence = Convergence(self._kernel)

    @property
    def mutations(self) -> int:
        """Operations issued to the kernel since start; stands still while nothing changes."""
        return self._convergence.issued + self._serving.mutations

    # -- life ---------------------------------------------------------------------------------------
    async def start(self) -> None:
        self._spaces.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._instances = self._files.load()
        await self._kernel.start(self._bell.ring)
        self._kernel.keep_namespaces(Path(network.namespace) for network in self._instances.values())
        self._supervisor.start("watch", self._watch, restart=True)
        self._supervisor.start("proxy", self._proxy.run, restart=True)
        self._supervisor.start("parting", self._parting.run, restart=True)
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
            await self._convergence.issue(diff(NetState(), await self._kernel.observe(())))

    async def apply(self, plan: NetworkPlan) -> None:
        check(plan)
        async with self._lock:
            self._plan = plan
            _, failure = await self._converge()
            frame = service_frame(plan, self._convergence.firewall)
            await self._serving.apply(plan.services, frame, own_blocks(plan))
            self._told = {key: s for key, s in plan.services.items() if told(s)}
            await self._tell_proxy()
            if failure is not None:
                raise failure

    async def examine(self) -> Sequence[Drift]:
        drifts, failure = await self._look(thorough=True)
        if failure is not None:
            drifts.append(not_repaired(failure))
        self._tell(drifts)
        return drifts

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
                self._convergence.leaving |= {veth_name(instance, e.network) for e in known.endpoints}
                await self._elements(known, msgspec.structs.replace(known, endpoints=(), published=None))
                await self._tell_proxy(known)
                unlimited = (op for e in known.endpoints for op in limit_changes(e, None))
                await self._convergence.issue(tuple(unlimited))
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
            for name in self._convergence.refused.keys() & set(traits.inner):
                raise self._convergence.refused[name]
            link = endpoint_link(request, view, traits, known.namespace, ranges)
            before = known.endpoint(request.network)
            if before == request:
                return endpoint_status(request, view)
            rest = tuple(e for e in known.endpoints if e.network != request.network)
            after = msgspec.structs.replace(known, endpoints=(*rest, request))
            if before is not None and same_but_ways(before, request):
                assert link.foot is not None
                ways = (Op(verb="change", item=Way(link=link.name, foot=link.foot)),)
                await self._convergence.issue((*ways, *limit_changes(before, request)))
                self._keep(request.instance, after)
                return endpoint_status(request, view)
            if before is not None:
                await self._convergence.issue((*limit_changes(before, None), Op(verb="remove", item=link)))
            self._convergence.leaving.discard(link.name)
            await self._elements(known, after, needed=True)
            await self._convergence.issue((Op(verb="add", item=link), *limit_changes(None, request)))
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
            veth = Link(name=veth_name(instance, network), kind="veth", alias="", mtu=0)
            await self._convergence.issue((*limit_changes(gone, None), Op(verb="remove", item=veth)))

    def attached(self, instance: InstanceId) -> Sequence[str]:
        known = self._instances.get(instance)
        return [] if known is None else [endpoint.network for endpoint in known.endpoints]

    # -- ports --------------------------------------------------------------------------------------
    async def publish(self, request: PublishRequest) -> None:
        wanted = publish.normal(request)
        async with self._lock:
            known = self._known(request.instance)
            publish.clash(wanted, self._published())
            held = () if known.published is None else known.published.ports
            hostports.refuse_taken(self._kernel, wanted.ports, held, self._serving.published)
            after = msgspec.structs.replace(known, published=wanted)
            self._keep(request.instance, after)
            await self._elements(known, after)
            await self._tell_proxy(known, after)
            for port in proxied(wanted):
                if port not in held and (trouble := self._proxy.trouble(port.published)):
                    self._keep(request.instance, known)
                    await self._elements(after, known)
                    await self._tell_proxy(known, after)
                    raise InUse(trouble, hint="Stop who has the port, or publish on another")
            await self._route_loopback()

    async def unpublish(self, instance: InstanceId) -> None:
        async with self._lock:
            known = self._instances.get(instance)
            if known is None or known.published is None:
                return
            after = msgspec.structs.replace(known, published=None)
            self._keep(instance, after)
            await self._elements(known, after)
            await self._tell_proxy(known)
            await self._route_loopback()

    # -- services -----------------------------------------------------------------------------------
    async def serve(self, changes: Mapping[str, VirtualService | None]) -> None:
        async with self._lock:
            ranges = () if self._plan is None else self._plan.service_ranges()
            wanted = {key: service for key, service in changes.items() if service is not None}
            loadbalance.refuse(loadbalance.problems(wanted, ranges))
            await self._serving.change(changes)
            if any(map(told, changes.values())) or self._told.keys() & changes.keys():
                known = {**self._told, **changes}
                self._told = {key: s for key, s in known.items() if s is not None and told(s)}
                await self._tell_proxy()

    # -- policies -----------------------------------------------------------------------------------
    async def police(self, policies: HostPolicies) -> None:
        async with self._lock:
            if self._plan is None:
                return
            before, self._plan = self._plan, msgspec.structs.replace(self._plan, policies=policies)
            await self._tell_proxy(*self._instances.values())
            if before.policies.classes.keys() == policies.classes.keys():
                feet = self._instances.values()
                now, then = policy_tables(self._plan, feet), policy_tables(before, feet)
                await self._change(nft_operations(now, then))
            elif (failure := (await self._converge())[1]) is not None:
                self._bell.ring()
                raise failure

    def free_port(
        self,
        protocol: str,
        host_ip: str,
        *,
        but: Container[tuple[str, int]] = frozenset(),
        within: tuple[int, int] = (FIRST_PORT, LAST_PORT),
    ) -> int:
        known, ours = self._published(), self._serving.published
        return hostports.free_port(self._kernel, known, protocol, host_ip, ours=ours, but=but, within=within)

    # -- within -------------------------------------------------------------------------------------
    def _published(self) -> list[PublishRequest]:
        return [known.published for known in self._instances.values() if known.published is not None]

    async def _tell_proxy(self, *changed: InstanceNetwork) -> None:
        """Let it serve what is published now; wait for it if that matters to one of these."""
        self._proxy.update(proxy_state(self._instances.values(), self._plan, self._told.values()))
        if any(proxied(network.published) for network in changed):
            await self._proxy.served()

    def _known(self, instance: InstanceId) -> InstanceNetwork:
        known = self._instances.get(instance)
        if known is None:
            raise NotFound(f"instance {short(instance)} has no network namespace")
        return known

    def _keep(self, instance: InstanceId, network: InstanceNetwork) -> None:
        self._files.save(instance, network)
        self._instances[instance] = network

    async def _elements(
        self, before: InstanceNetwork, after: InstanceNetwork, *, needed: bool = False
    ) -> None:
        """Change the packet filter by what one instance's change means, and by nothing else. `needed`: raises
        CommandFailed when it can't be; an endpoint must not stand without its rules."""
        if self._plan is None:
            return
        near = around(self._plan, (before, after))
        now, then = (filter_tables(near, (known,), self._convergence.firewall) for known in (after, before))
        await self._change(nft_operations(now, then), needed=needed)
        self._parting.changed(before, after)

    async def _change(self, operations: Sequence[Operation], *, needed: bool = False) -> None:
        try:
            await self._convergence.issue(operations)
        except CommandFailed as error:
            log.warning("comparing everything, since %s", error)
            if (failure := (await self._converge())[1]) is not None:
                raise failure from error
            try:
                await self._convergence.issue(operations)
            except CommandFailed as again:
                if needed:
                    raise
                log.info("the comparison has done it already, or the next one will: %s", again)
            self._bell.ring()

    async def _route_loopback(self) -> None:
        if self._plan is None:
            return
        paths = loopback_routing(self._plan, self._instances.values())
        changed = [Sysctl(path=p, value=v) for p, v in paths.items() if self._loopback.get(p) != v]
        await self._convergence.issue([Op(verb="change", item=item) for item in changed])
        self._loopback = paths

    async def _converge(self, *, thorough: bool = False) -> tuple[Sequence[Operation], CommandFailed | None]:
        """As `Convergence.to`, to what the plan means for the instances that there are."""
        plan = self._plan
        assert plan is not None
        present = self._convergence.present(self._instances.values())
        done = await self._convergence.to(lambda beside: desired(plan, present, beside), thorough=thorough)
        self._loopback = loopback_routing(plan, present)
        return done

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
        more rarely, and with all else that a bell is about."""
        time = asyncio.get_running_loop().time
        due, again, refused = time() + self._compare, math.inf, 0
        while True:
            await self._bell.wait(timeout=max(0.0, min(due, again) - time()))
            if thorough := time() >= due:
                due = time() + self._compare * random.uniform(0.9, 1.1)
            await self._settled()
            drifts, failure = await self._look(thorough=thorough)
            if failure is None:
                again, refused = math.inf, 0
            elif not refused or time() >= again:
                refused += 1
                again = time() + delay(refused, first=0.1, limit=self._compare)
                if refused == 1:
                    drifts.append(not_repaired(failure))
            self._tell(drifts)

    async def _look(self, *, thorough: bool) -> tuple[list[Drift], CommandFailed | None]:
        """Compare and set back; what was wrong, and why not all of it could be set back."""
        async with self._lock:
            if self._plan is None:
                return [], None
            done, failure = await self._converge(thorough=thorough)
            drifts = [*self._convergence.regained(), *map(drift_of, done)]
            await self._serving.follow(service_frame(self._plan, self._convergence.firewall))
            if wrong := await self._serving.repair():
                drifts.append(services_drift(wrong))
            return drifts, failure

    def _tell(self, drifts: Iterable[Drift]) -> None:
        for drift in drifts:
            log.warning("%s: %s", drift.object, drift.action)
            for ring in self._watchers:
                ring(drift)
