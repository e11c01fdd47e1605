"""Commands on networks. Pure: each gives a Plan, or raises and changes nothing."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from controller.addressing import free_vni, resolve_subnets, vip_ranges
from controller.attachments import network_if_any, network_named
from controller.plan import Item, Plan, delete, merged, put
from controller.reconcile.keys import next_keys
from controller.snapshot import Cluster
from model.errors import AlreadyExists, InUse, InvalidInput, WrongState
from model.events import Event
from model.ids import NetworkId
from model.netoptions import COMMON, KNOWN, SITE_DRIVERS, canonical, encrypted
from model.networkrules import validate_network
from model.records import Desired, Network
from model.spec import NetworkSpec
from model.validate import check
from net.backend import BACKENDS, spans_hosts
from net.host import INGRESS, PREDEFINED_BRIDGE, predefined_bridge


def create(cluster: Cluster, spec: NetworkSpec, *, now: float, ident: NetworkId) -> Plan:
    """Record a new network with its subnets and its number."""
    spec = replace(spec, options=canonical(spec.options))
    check("invalid network", validate_network(spec))
    _check_driver(spec)
    if spec.name == INGRESS:
        raise InvalidInput(
            f"the name {INGRESS} is taken: that network is made when a service publishes a port on every host"
        )
    if any(network.spec.name == spec.name for network in cluster.networks.values()):
        raise AlreadyExists(f"a network named {spec.name} exists", hint=f"flota network rm {spec.name}")
    _check_mtu(cluster, spec)
    shared = spans_hosts(spec.driver) and spec.driver not in SITE_DRIVERS
    vni = _vni(cluster, spec) if shared else 0
    hosts = cluster.hosts.values()
    number = vni or len(cluster.networks)
    subnets = resolve_subnets(spec, cluster, vni=number, hosts=hosts)
    network = Network(
        id=ident,
        spec=replace(spec, subnets=subnets),
        vni=vni,
        vip_ranges=()
        if spec.driver in SITE_DRIVERS
        else vip_ranges(subnets, cluster, vni=number, hosts=hosts),
        created_at=now,
        keyed_at=now,
    )
    event = Event(type="network", action="create", id=ident, name=spec.name, at=now)
    return Plan(items=(put(network, "asked for"),), events=(event,), subject=ident)


def rotate_keys(cluster: Cluster, ref: str, now: float) -> Plan:
    """Begin to change an encrypted network's keys. Raises WrongState for one that has none, or whose keys are
    being changed."""
    network = network_named(cluster, ref)
    name = network.spec.name
    if not encrypted(network.spec.options):
        raise WrongState(f"network {name} is not encrypted, so it has no keys")
    if network.keys.oldest != network.keys.newest:
        raise WrongState(f"the keys of network {name} are being changed already")
    return next_keys(network, "asked for", now)


def prune(cluster: Cluster, chosen: Callable[[Network], bool], now: float) -> tuple[Plan, tuple[str, ...]]:
    """Remove all networks that nobody uses, of those that are `chosen`; their names too."""
    unused = [
        network
        for network in sorted(cluster.networks.values(), key=lambda n: n.spec.name)
        if not network.predefined and chosen(network) and not _users(cluster, network)
    ]
    plans = [_removal(cluster, network, "nobody uses it", now) for network in unused]
    return merged(plans), tuple(network.spec.name for network in unused)


def remove(cluster: Cluster, ref: str, now: float) -> Plan:
    """Raises InUse naming who still needs it."""
    network = network_named(cluster, ref)
    name = network.spec.name
    if network.predefined:
        raise WrongState(f"network {name} is predefined and can't be removed")
    using = sorted(_users(cluster, network))
    if using:
        shown = ", ".join(using[:4]) + (f" and {len(using) - 4} more" if len(using) > 4 else "")
        raise InUse(
            f"network {name} is in use by {shown}",
            hint=f"Remove these first, or take them off it: flota network disconnect {name} CONTAINER",
        )
    return _removal(cluster, network, "removed by hand", now)


def _removal(cluster: Cluster, network: Network, reason: str, now: float) -> Plan:
    name = network.spec.name
    blocks = cluster.blocks_by_network.get(network.id, {}).values()
    items: list[Item] = [delete(block, f"network {name} was removed") for block in blocks]
    event = Event(type="network", action="destroy", id=network.id, name=name, at=now)
    return Plan(items=(*items, delete(network, reason)), events=(event,), subject=network.id)


def predefined(cluster: Cluster, now: float) -> Plan:
    """The network of containers that ask for none, made once per fleet."""
    if PREDEFINED_BRIDGE in cluster.networks:
        return Plan()
    network = Network(
        id=NetworkId(PREDEFINED_BRIDGE), spec=predefined_bridge(), predefined=True, created_at=now
    )
    return Plan(items=(put(network, "every fleet has it"),))


def _check_driver(spec: NetworkSpec) -> None:
    """A third party's has options of its own, of which it tells no more than the names."""
    backend = BACKENDS.get(spec.driver)
    if backend is None:
        known = ", ".join(BACKENDS)
        raise InvalidInput(f"unknown network driver {spec.driver[:40]!r}", hint=f"Known: {known}")
    if spec.driver in KNOWN:
        return
    has = (*COMMON, *backend.features.options)
    for key in spec.options.keys() - set(has):
        raise InvalidInput(
            f"unknown option {key[:80]!r}", hint=f"A {spec.driver} network has {', '.join(has)}"
        )


def _check_mtu(cluster: Cluster, spec: NetworkSpec) -> None:
    """A tunnel's packet must fit into the underlay's, on every host."""
    if not spans_hosts(spec.driver) or spec.driver in SITE_DRIVERS or "mtu" not in spec.options:
        return
    asked = int(spec.options["mtu"])
    for host in cluster.hosts.values():
        wrapping = BACKENDS[spec.driver].overhead(spec.options, host.facts.address)
        most = host.facts.mtu - wrapping
        if asked > most:
            name = host.spec.name
            carried = f"tunnels of {name} carry" if wrapping else f"the underlay of {name} carries"
            raise InvalidInput(
                f"an mtu of {asked} does not fit: {carried} {most} bytes",
                hint="Leave it out to get the largest that fits",
            )


def _vni(cluster: Cluster, spec: NetworkSpec) -> int:
    asked = spec.options.get("vni")
    if asked is None:
        return free_vni(cluster)
    for network in cluster.networks.values():
        if network.vni == int(asked):
            raise AlreadyExists(f"vni {asked} is in use by network {network.spec.name}")
    return int(asked)


def _users(cluster: Cluster, network: Network) -> set[str]:
    """Containers count until nothing of them is left, replicas until they are kept for their logs only: their
    host still needs the network to clean up. A replica whose service is named too goes without saying."""
    services = {
        service.id: f"service {service.spec.name}"
        for service in cluster.services.values()
        for wish in service.spec.container.networks
        if _means(cluster, wish.network, network)
    }
    users = set(services.values())
    for i in cluster.on_network(network.id).values():
        if i.service is not None and i.desired is Desired.REMOVED:
            users.add(f"container {i.name} (being removed)")
        elif i.service is None or (i.desired is not Desired.STOPPED and i.service not in services):
            users.add(f"container {i.name}")
    return users


def _means(cluster: Cluster, ref: str, network: Network) -> bool:
    """Whether it is this network that `ref` names; others are looked at only for a prefix of its id."""
    if ref in (network.id, network.spec.name):
        return True
    return network.id.startswith(ref) and network_if_any(cluster, ref) == network
