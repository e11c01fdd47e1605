"""The host's network kept as it should be: bell or timer → observe → diff → apply → report.

`NetReconciler` is the HostNetwork of a real host. It acts in the network namespace that the process is in and
in those it made. Invariants: one change at a time; what stands already is left alone, so a restarted agent's
first `apply` changes nothing; the fast paths (attach, publish) change only their own elements and fall back
to a whole comparison when the kernel was not as remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from aio.mailbox import Bell
from aio.supervisor import Supervisor
from model.errors import CommandFailed, InUse, NotFound
from model.ids import InstanceId, short
from model.status import Endpoint
from model.view import NetworkView
from net import hostports, loadbalance, publish
from net.asking import Asking
from net.convergence import Convergence
from net.diff import Op, Operation, diff, nft_operations, removes
from net.drift import drift_of, not_repaired, services_drift
from net.endpoint import InstanceNetwork, endpoint_status, removal, same_but_ways
from net.endpointfiles import EndpointFiles
from net.fences import Fences
from net.homing import home_changes
from net.host import FIRST_PORT, LAST_PORT, Drift, EndpointRequest, NetworkPlan, PublishRequest
from net.kernel.base import Kernel
from net.kernel.host import host_kernel
from net.leasing import Leasing
from net.loadbalance import VirtualService
from net.loopback import LoopbackRouting
from net.naming import veth_name
from net.nics import LinuxSite, Nics, Site
from net.parting import Parting
from net.peerdiff import peer_changes
from net.plan import check, desired, element_changes, meant, own_blocks, policy_tables, service_frame, wishes
from net.policy import HostPolicies
from net.proxied import proxied
from net.proxying import PortProxy, ProxyFeed
from net.serving import Serving
from net.shaping import limit_changes
from net.shims import Shims
from net.state import UPPER, Link, NetState, Way
from net.telling import Telling
from net.watch import COMPARE, Watch


class NetReconciler:
    def __init__(
        self,
        run_dir: Path,
        *,
        kernel: Kernel | None = None,
        proxy: PortProxy | None = None,
        compare: float = COMPARE,
        site: Site | None = None,
        controllers: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """`controllers` (HOST:PORT) must be reachable after a link of the host moved if they were before."""
        self._spaces = run_dir / "ns"
        self._files = EndpointFiles(run_dir / "endpoints")
        self._kernel: Kernel = kernel if kernel is not None else host_kernel(run_dir)
        self._proxy: PortProxy = proxy if proxy is not None else ProxyFeed(run_dir)
        self._instances: dict[InstanceId, InstanceNetwork] = {}
        self._plan: NetworkPlan | None = None
        self._lock = asyncio.Lock()
        self._bell = Bell()
        self._loopback = LoopbackRouting()
        self._supervisor = Supervisor("net")
        self._telling = Telling(self._proxy, lambda: (self._instances.values(), self._plan))
        self._serving = Serving(self._kernel)
        self._parting = Parting(self._kernel, lambda: tuple(self._instances.values()))
        self._convergence = Convergence(self._kernel)
        self._fences = Fences(self._kernel)
        self._controllers = controllers
        self._nics = Nics(site if site is not None else LinuxSite(run_dir))
        fence = lambda instance: self._fences.set(self._plan, instance)  # noqa: E731
        self._asking = Asking(self._kernel, self._convergence, self._nics, self._lock, fence)
        self._leasing = Leasing(
            run_dir, self._lock, self._convergence, self._attach, self._meant, self._rules, self._keep
        )
        self._watch = Watch(self._bell, self._look, compare=compare, mutations=lambda: self.mutations)
        self._shims = Shims(self._kernel, self._watch.tell)

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
        self._supervisor.start("watch", self._watch.run, restart=True)
        self._supervisor.start("shims", self._shims.run, restart=True)
        self._supervisor.start("proxy", self._proxy.run, restart=True)
        self._supervisor.start("nics", self._nics.run, restart=True)
        self._supervisor.start("leases", self._leasing.run, restart=True)
        self._leasing.adopt(self._instances.values())
        self._supervisor.start("parting", self._parting.run, restart=True)
        self._supervisor.start("tidy", lambda: self._serving.tidy(self._lock), restart=True)

    async def close(self) -> None:
        await self._supervisor.close()
        await self._leasing.clients.close()
        await self._convergence.close()
        await self._kernel.close()

    async def remove_all(self) -> None:
        """Take away everything of ours on this host: namespaces, links, routes, tables. Sysctls stay as
        they are: others may rely on them by now."""
        for instance in self.namespaces():
            await self.drop_namespace(instance)
        async with self._lock:
            self._plan = None
            held = await self._nics.want(())
            await self._serving.remove()
            gone = diff(NetState(), await self._kernel.observe(()))
            await self._convergence.issue([op for op in gone if not removes(op, held)])
        if held:
            raise CommandFailed("; ".join(held.values()))

    async def apply(self, plan: NetworkPlan) -> None:
        check(plan)
        async with self._lock:
            self._convergence.spared = await self._nics.want(wishes(plan, self._controllers()))
            before, self._plan, failure = self._plan, plan, None
            unfenced = await self._fences.all(plan, self._instances.values())
            known = None if before is None else peer_changes(before, plan, self._convergence.firewall)
            if known is None or not await self._convergence.step(known):
                _, failure = await self._converge()
            frame = service_frame(plan, self._convergence.firewall)
            try:
                await self._serving.apply(plan.services, frame, own_blocks(plan))
            except CommandFailed as error:
                failure = failure or error
            await self._telling.services(plan.services)
            self._nics.ring()
            self._leasing.look()
            self._shims.follow(plan)
            if (failure := failure or unfenced) is not None:
                self._bell.ring()
                raise failure

    async def examine(self) -> Sequence[Drift]:
        drifts, failure = await self._look(True)
        await self._nics.look(asked=True)
        if failure is not None:
            drifts.append(not_repaired(failure))
        self._watch.tell(drifts)
        return drifts

    @property
    def troubles(self) -> tuple[str, ...]:
        return (*self._nics.troubles.values(), *self._convergence.spared.values())

    def on_change(self, troubled: Callable[[], None], leased: Callable[[InstanceId], None]) -> None:
        self._nics.changed, self._leasing.moved = troubled, leased

    def on_drift(self, ring: Callable[[Drift], None]) -> None:
        self._watch.heard.append(ring)

    # -- namespaces ---------------------------------------------------------------------------------
    async def open_namespace(self, instance: InstanceId) -> str:
        path = self._spaces / instance
        async with self._lock:
            known = self._instances.get(instance)
            lost = known is not None and not self._kernel.has_namespace(path)
            gone = known is not None and lost and not await self._convergence.present((known,))
        if gone:
            await self.drop_namespace(instance)  # nobody lives in it: what stood there is gone with it
        async with self._lock:
            if not self._kernel.has_namespace(path):
                await self._kernel.make_namespace(path)
            if instance not in self._instances:
                self._keep(instance, InstanceNetwork(namespace=str(path)))
        return str(path)

    def namespace_of(self, instance: InstanceId) -> str:
        known = self._known(instance)
        if not self._kernel.has_namespace(Path(known.namespace)):
            raise NotFound(f"the network namespace of instance {short(instance)} is gone")
        return known.namespace

    async def drop_namespace(self, instance: InstanceId) -> None:
        await self._leasing.drop(instance, self.attached(instance))
        async with self._lock:
            known = self._instances.pop(instance, None)
            if known is not None:
                self._convergence.leaving |= {veth_name(instance, e.network) for e in known.endpoints}
                await self._elements(known, replace(known, endpoints=(), published=None))
                await self._telling.tell(known)
                for endpoint in known.endpoints:
                    await self._leave(endpoint, known, dropped=True)
            self._fences.forget(str(self._spaces / instance))
            await self._kernel.drop_namespace(self._spaces / instance)
            self._files.forget(instance)

    def namespaces(self) -> Sequence[InstanceId]:
        return sorted(InstanceId(path.name) for path in self._spaces.iterdir())

    # -- endpoints ----------------------------------------------------------------------------------
    async def attach(self, request: EndpointRequest) -> Endpoint:
        return await (self._leasing.attach if request.dhcp else self._attach)(request)

    async def _attach(self, request: EndpointRequest) -> Endpoint:
        await self._asking.ask(lambda: self._meant(request), request)
        async with self._lock:
            view, known, link = self._meant(request)
            before = known.endpoint(request.network)
            if before == request:
                return endpoint_status(request, view)
            rest = tuple(e for e in known.endpoints if e.network != request.network)
            after = replace(known, endpoints=(*rest, request))
            if before is not None and same_but_ways(before, request):
                assert link.foot is not None
                ways = (Op(verb="change", item=Way(link=link.name, foot=link.foot)),)
                await self._convergence.issue((*ways, *limit_changes(before, request)))
                self._keep(request.instance, after)
                return endpoint_status(request, view)
            if before is not None:
                await self._leave(before, known)
            self._convergence.leaving.discard(link.name)
            await self._elements(known, after, needed=True)
            await self._fences.set(self._plan, after)
            await self._convergence.issue((Op(verb="add", item=link), *limit_changes(None, request)))
            self._keep(request.instance, after)
            return endpoint_status(request, view)

    async def detach(self, instance: InstanceId, network: str) -> None:
        await self._leasing.drop(instance, [network])
        async with self._lock:
            known = self._instances.get(instance)
            gone = None if known is None else known.endpoint(network)
            if known is None or gone is None:
                return
            rest = tuple(e for e in known.endpoints if e.network != network)
            after = replace(known, endpoints=rest)
            await self._leave(gone, known)
            self._keep(instance, after)
            await self._elements(known, after)

    def _meant(self, request: EndpointRequest) -> tuple[NetworkView, InstanceNetwork, Link]:
        """Raises NotFound, and the kernel's refusal of what the endpoint would stand on."""
        known = self._known(request.instance)
        view, traits, link = meant(self._plan, request, known.namespace)
        for name in self._convergence.refused.keys() & set(traits.inner):
            raise self._convergence.refused[name]
        return view, known, link

    async def _rules(self, before: InstanceNetwork, after: InstanceNetwork) -> None:
        await self._elements(before, after)
        await self._fences.set(self._plan, after)

    async def _leave(self, gone: EndpointRequest, known: InstanceNetwork, *, dropped: bool = False) -> None:
        """`dropped`: its namespace goes with it, and a veth with that; of a link that stands on one of the
        host the MAC would be taken until the kernel has come so far."""
        view = None if self._plan is None else self._plan.networks.get(gone.network)
        links = removal(gone, view, known.namespace)
        removed = (Op(verb="remove", item=link) for link in links if link.kind in UPPER or not dropped)
        await self._convergence.issue((*limit_changes(gone, None), *removed))

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
            after = replace(known, published=wanted)
            self._keep(request.instance, after)
            await self._elements(known, after)
            await self._telling.tell(known, after)
            for port in proxied(wanted):
                if port not in held and (trouble := self._proxy.trouble(port.published)):
                    self._keep(request.instance, known)
                    await self._elements(after, known)
                    await self._telling.tell(known, after)
                    raise InUse(trouble, hint="Stop who has the port, or publish on another")
            await self._convergence.issue(self._loopback.changes(self._plan, self._instances.values()))

    async def unpublish(self, instance: InstanceId) -> None:
        async with self._lock:
            known = self._instances.get(instance)
            if known is None or known.published is None:
                return
            after = replace(known, published=None)
            self._keep(instance, after)
            await self._elements(known, after)
            await self._telling.tell(known)
            await self._convergence.issue(self._loopback.changes(self._plan, self._instances.values()))

    # -- services -----------------------------------------------------------------------------------
    async def serve(self, changes: Mapping[str, VirtualService | None]) -> None:
        async with self._lock:
            ranges = () if self._plan is None else self._plan.service_ranges()
            wanted = {key: service for key, service in changes.items() if service is not None}
            loadbalance.refuse(loadbalance.problems(wanted, ranges))
            await self._serving.change(changes)
            await self._telling.changed(changes)

    # -- policies -----------------------------------------------------------------------------------
    async def police(self, policies: HostPolicies) -> None:
        async with self._lock:
            if self._plan is None:
                return
            before, self._plan = self._plan, replace(self._plan, policies=policies)
            unfenced = await self._fences.all(self._plan, self._instances.values())
            await self._telling.tell(*self._instances.values())
            if before.policies.classes.keys() == policies.classes.keys() and self._convergence.filtered:
                feet = self._instances.values()
                now, then = policy_tables(self._plan, feet), policy_tables(before, feet)
                await self._change(nft_operations(now, then))
            elif (failure := (await self._converge())[1]) is not None:
                self._bell.ring()
                raise failure
            if unfenced is not None:
                raise unfenced

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
        made = (self._plan, before, after, self._convergence.firewall)
        await self._change(element_changes(*made), home_changes(*made), needed=needed)
        self._parting.changed(before, after)

    async def _change(
        self, operations: Sequence[Operation], could: Sequence[Operation] = (), *, needed: bool = False
    ) -> None:
        if await self._convergence.change(operations, self._converge, could=could, needed=needed):
            self._bell.ring()

    async def _converge(self, *, thorough: bool = False) -> tuple[Sequence[Operation], CommandFailed | None]:
        """As `Convergence.to`, to what the plan means for the instances that there are."""
        plan = self._plan
        assert plan is not None
        here = await self._convergence.present(self._instances.values())
        served = await self._serving.tracked()
        done = await self._convergence.to(lambda wall: desired(plan, here, wall, served), thorough=thorough)
        self._loopback.stands(plan, here)
        return done

    async def _look(self, thorough: bool) -> tuple[list[Drift], CommandFailed | None]:
        """Compare and set back; what was wrong, and why not all of it could be set back."""
        async with self._lock:
            if self._plan is None:
                return [], None
            done, failure = await self._converge(thorough=thorough)
            self._nics.ring()
            drifts = [*self._convergence.regained(), *map(drift_of, done)]
            try:
                await self._serving.follow(service_frame(self._plan, self._convergence.firewall))
                if wrong := await self._serving.repair():
                    drifts.append(services_drift(wrong))
            except CommandFailed as error:
                failure = failure or error
            return drifts, failure
