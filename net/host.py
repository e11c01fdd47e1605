"""What the agent needs of the network: the HostNetwork seam.

Implementations: `net.reconciler.NetReconciler` (real), `net.fake.FakeHostNetwork`. The agent says what should
be (`apply`), opens namespaces and attaches endpoints; the network code keeps it so and reports drift.
Invariant: attaching an endpoint changes nothing on any other host.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Protocol

from model.errors import InUse
from model.ids import HostId, InstanceId
from model.spec import NetworkSpec, Struct
from model.status import BoundPort, Endpoint, Nic
from model.view import NetworkView, Peer
from net.loadbalance import VirtualService
from net.policy import HostPolicies
from net.state import LocalEnd

FIRST_PORT, LAST_PORT = 32768, 65535
"""Where ports of a host's own choice come from."""


class NetworkPlan(Struct):
    """The networks this host should carry, and to whom they lead. A pure function of the View."""

    host: HostId
    address: str
    """This host's underlay address."""
    mtu: int
    vxlan_port: int
    networks: Mapping[str, NetworkView]
    """By network id; predefined `bridge` included."""
    peers: Mapping[HostId, Peer]
    checksums: bool = True
    """Tunnels leave them to the network card."""
    source_ports: tuple[int, int] = (0, 0)
    """Of tunnels; zeros: the kernel's choice."""
    behind_nat: bool = False
    """Peers can't begin to speak with this host."""
    ends: Mapping[str, tuple[LocalEnd, ...]] = {}
    """By id of an encrypted network: this host's own ends of its tunnels."""
    vip_ranges: Mapping[str, tuple[str, ...]] = {}
    """By network id: the ranges of its services' addresses, apart from every subnet. Ranges of networks that
    one container is on together should differ, for they are its way to them."""
    services: Mapping[str, VirtualService] = {}
    """By a key that is the caller's; as `HostNetwork.serve` takes them."""
    addresses: tuple[str, ...] = ()
    """All of this host's own."""
    nics: tuple[Nic, ...] = ()
    """The host's own links, for networks that stand on one."""
    link: str = ""
    """The underlay's, which carries `address`."""
    onlink: tuple[str, ...] = ()
    """Ranges that are reached on it without a router."""
    policies: HostPolicies = HostPolicies()
    """As `HostNetwork.police` takes them."""

    def service_ranges(self) -> tuple[str, ...]:
        """Of all networks, each once."""
        return tuple(sorted({r for ident in self.networks for r in self.vip_ranges.get(ident, ())}))


class EndpointRequest(Struct):
    """One foot of one container. `network` is an id in the plan; addresses are chosen already."""

    instance: InstanceId
    network: str
    ifname: str
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    default_route: bool = False
    """Whether it is the way to everywhere else in IPv4; of all endpoints of an instance one at most is."""
    default_route6: bool = False
    bandwidth_in: int = 0
    """Bytes a second that are sent to it at most; 0: no limit."""
    bandwidth_out: int = 0
    sysctls: Mapping[str, str] = {}
    """Of the interface inside, by name with dots, its own name written IFNAME."""
    dhcp: bool = False
    """Its IPv4 address is the site's DHCP server's to give; `ipv4` is empty when asked."""
    hostname: str = ""
    """Told to that server."""


class PublishRequest(Struct):
    """Published ports of one container; `published` is resolved, never 0."""

    instance: InstanceId
    ipv4: str
    ipv6: str
    ports: tuple[BoundPort, ...]


class Drift(Struct):
    """Something of ours was changed behind our back, and what was done."""

    object: str
    action: str
    failed: bool = False
    """It could not be set back."""


class AddressTaken(InUse):
    """Somebody on the site's network has it: `mac`."""

    def __init__(self, address: str, mac: str, network: str) -> None:
        super().__init__(
            f"address {address} of network {network} is in use on the site's network, by {mac}",
            hint="Set it aside (--aux-address), or let the machine that has it take another",
        )
        self.address, self.mac = address, mac


class HostNetwork(Protocol):
    async def start(self) -> None:
        """Observe what there is, begin to listen for changes."""
        ...

    async def close(self) -> None:
        """Stop listening; the kernel keeps everything."""
        ...

    async def apply(self, plan: NetworkPlan) -> None:
        """Make the host's side so; returns when it is. Networks no longer in the plan go."""
        ...

    async def open_namespace(self, instance: InstanceId) -> str:
        """Make (or find) the container's network namespace; its path, valid until `drop_namespace`."""
        ...

    def namespace_of(self, instance: InstanceId) -> str:
        """Its path. Raises NotFound where none was made, or it is gone."""
        ...

    async def drop_namespace(self, instance: InstanceId) -> None:
        """With all its endpoints. Idempotent."""
        ...

    def namespaces(self) -> Sequence[InstanceId]:
        """All that exist, for adoption and clean-up after a crash."""
        ...

    async def attach(self, request: EndpointRequest) -> Endpoint:
        """Idempotent: what stands is found, not made twice. One that differs only in being a way out is
        changed without a gap. Raises NotFound for an unknown network, and for one that needs a link which the
        host has not; AddressTaken where machines of the site are asked first and one has the address."""
        ...

    async def detach(self, instance: InstanceId, network: str) -> None:
        """Idempotent; also when the host no longer carries the network."""
        ...

    def attached(self, instance: InstanceId) -> Sequence[str]:
        """Ids of the networks on which it has an endpoint."""
        ...

    async def publish(self, request: PublishRequest) -> None:
        """Replace this container's published ports. Raises InUse when a port is taken, changing nothing."""
        ...

    async def unpublish(self, instance: InstanceId) -> None: ...

    async def serve(self, changes: Mapping[str, VirtualService | None]) -> None:
        """Services that are new or other than before, by key; None takes one away. Costs what changes, not
        what there is. New connections go by it at once, those that stand go on where they are, and datagrams
        leave members that are gone. `apply` replaces all services by those of its plan. Raises InvalidInput
        for an address outside the plan's ranges, changing nothing."""
        ...

    async def police(self, policies: HostPolicies) -> None:
        """These policies, and no others. In force when this returns, also for endpoints that are attached
        later: those are closed before their first packet, or not attached. Costs what changes."""
        ...

    def free_port(
        self,
        protocol: str,
        host_ip: str,
        *,
        but: Container[tuple[str, int]] = frozenset(),
        within: tuple[int, int] = (FIRST_PORT, LAST_PORT),
    ) -> int:
        """A port nobody has now, of that range (both ends included), and none of the (protocol, port) of
        `but`. Raises Exhausted."""
        ...

    async def examine(self) -> Sequence[Drift]:
        """Compare everything now, not at the next bell; what was wrong is set back, and told here as well as
        to those who listen."""
        ...

    def on_drift(self, ring: Callable[[Drift], None]) -> None: ...

    @property
    def troubles(self) -> tuple[str, ...]:
        """What people should know: which networks do not work here, and why."""
        ...

    def on_change(self, troubled: Callable[[], None], leased: Callable[[InstanceId], None]) -> None:
        """Who is called when `troubles` are others than before, and when the DHCP server gave an endpoint of
        that instance another address: attached again, it says which."""
        ...


PREDEFINED_BRIDGE = "bridge"
"""Id and name of the network that a container gets when it asks for none."""
INGRESS = "ingress"
"""Id and name of the network by which services' published ports reach their instances."""


def predefined_bridge(cidr: str = "172.29.0.0/16") -> NetworkSpec:
    from model.spec import Subnet

    return NetworkSpec(name=PREDEFINED_BRIDGE, driver="bridge", subnets=(Subnet(cidr=cidr),))
