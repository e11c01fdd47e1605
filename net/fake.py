"""A host's network in memory: the HostNetwork seam for the tests of everything above it.

It holds the same promises as `net.reconciler` (contract suite: tests/contract/test_host_network_seam.py) and
keeps what it was told where tests can read it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

from model.errors import CommandFailed, Exhausted, InUse, InvalidInput, NotFound
from model.ids import InstanceId, NetworkId, short
from model.netoptions import SITE_DRIVERS
from model.status import BoundPort, Endpoint
from net.host import FIRST_PORT, LAST_PORT, AddressTaken, Drift, EndpointRequest, NetworkPlan, PublishRequest
from net.loadbalance import VirtualService, problems, refuse
from net.naming import endpoint_mac
from net.policy import HostPolicies
from net.subnets import gateway, subnet_of


class FakeHostNetwork:
    """`plan`, `endpoints`, `published`, `services`, `spaces` are what stands; `foreign_ports` are held by
    strangers, and so are the addresses of `strangers` (→ MAC) on networks of the site's. While `trouble` says
    something, not all of a plan can be made; while `refusal` does, nothing of it is."""

    def __init__(self) -> None:
        self.plan: NetworkPlan | None = None
        self.applied = 0
        self.endpoints: dict[tuple[InstanceId, str], Endpoint] = {}
        self.published: dict[InstanceId, tuple[BoundPort, ...]] = {}
        self.spaces: dict[InstanceId, str] = {}
        self.services: dict[str, VirtualService] = {}
        self.policies = HostPolicies()
        self.foreign_ports: set[tuple[str, int]] = set()
        self.strangers: dict[str, str] = {}
        self.started = False
        self.trouble = ""
        self.refusal = ""
        self.troubles: tuple[str, ...] = ()
        self._bells: list[Callable[[Drift], None]] = []

    async def start(self) -> None:
        self.started = True

    async def close(self) -> None:
        self.started = False

    async def apply(self, plan: NetworkPlan) -> None:
        if self.refusal:
            raise InvalidInput(self.refusal)
        refuse(problems(plan.services, plan.service_ranges()))
        self.plan = plan
        self.services = dict(plan.services)
        self.policies = plan.policies
        self.applied += 1
        if self.trouble:
            raise CommandFailed(self.trouble)

    async def open_namespace(self, instance: InstanceId) -> str:
        return self.spaces.setdefault(instance, f"/run/flota/net/ns/{instance}")

    def namespace_of(self, instance: InstanceId) -> str:
        if instance not in self.spaces:
            raise NotFound(f"instance {short(instance)} has no network namespace")
        return self.spaces[instance]

    async def drop_namespace(self, instance: InstanceId) -> None:
        self.spaces.pop(instance, None)
        self.published.pop(instance, None)
        for key in [key for key in self.endpoints if key[0] == instance]:
            del self.endpoints[key]

    def namespaces(self) -> Sequence[InstanceId]:
        return sorted(self.spaces)

    async def attach(self, request: EndpointRequest) -> Endpoint:
        view = None if self.plan is None else self.plan.networks.get(request.network)
        if view is None:
            raise NotFound(f"this host carries no network {short(request.network)}")
        if request.instance not in self.spaces:
            raise NotFound(f"instance {short(request.instance)} has no network namespace")
        if view.spec.driver in SITE_DRIVERS and (request.instance, request.network) not in self.endpoints:
            for taken in {request.ipv4, request.ipv6} & self.strangers.keys():
                raise AddressTaken(taken, self.strangers[taken], view.spec.name)
        address = request.ipv4 or request.ipv6
        endpoint = Endpoint(
            network=NetworkId(request.network),
            network_name=view.spec.name,
            ifname=request.ifname,
            ipv4=request.ipv4,
            ipv6=request.ipv6,
            mac=request.mac or endpoint_mac(request.instance, request.network),
            gateway=str(gateway(subnet_of(view.spec, address))) if address else "",
        )
        self.endpoints[request.instance, request.network] = endpoint
        return endpoint

    async def detach(self, instance: InstanceId, network: str) -> None:
        self.endpoints.pop((instance, network), None)

    def attached(self, instance: InstanceId) -> Sequence[str]:
        return sorted(network for owner, network in self.endpoints if owner == instance)

    async def publish(self, request: PublishRequest) -> None:
        for port in request.ports:
            if self._taken(port, but=request.instance):
                raise InUse(f"port {port.published}/{port.protocol} is in use on this host")
        self.published[request.instance] = request.ports

    async def unpublish(self, instance: InstanceId) -> None:
        self.published.pop(instance, None)

    async def serve(self, changes: Mapping[str, VirtualService | None]) -> None:
        ranges = () if self.plan is None else self.plan.service_ranges()
        refuse(problems({k: s for k, s in changes.items() if s is not None}, ranges))
        for key, service in changes.items():
            if service is None:
                self.services.pop(key, None)
            else:
                self.services[key] = service

    async def police(self, policies: HostPolicies) -> None:
        self.policies = policies

    def free_port(
        self,
        protocol: str,
        host_ip: str,
        *,
        but: Container[tuple[str, int]] = frozenset(),
        within: tuple[int, int] = (FIRST_PORT, LAST_PORT),
    ) -> int:
        taken = {p.published for ports in self.published.values() for p in ports if p.protocol == protocol}
        taken |= {port for kind, port in self.foreign_ports if kind == protocol}
        for port in range(within[0], within[1] + 1):
            if port not in taken and (protocol, port) not in but:
                return port
        raise Exhausted(f"no free {protocol} port on {host_ip or 'this host'}")

    async def examine(self) -> Sequence[Drift]:
        return ()

    def on_drift(self, ring: Callable[[Drift], None]) -> None:
        self._bells.append(ring)

    def drift(self, drift: Drift) -> None:
        """Play a drift to whoever listens."""
        for ring in self._bells:
            ring(drift)

    def _taken(self, port: BoundPort, *, but: InstanceId) -> bool:
        if (port.protocol, port.published) in self.foreign_ports:
            return True
        return any(
            (other.protocol, other.published) == (port.protocol, port.published)
            and (not other.host_ip or not port.host_ip or other.host_ip == port.host_ip)
            for instance, ports in self.published.items()
            if instance != but
            for other in ports
        )

    def on_change(self, troubled: Callable[[], None], leased: Callable[[InstanceId], None]) -> None:
        self.ring_trouble, self.ring_lease = troubled, leased
