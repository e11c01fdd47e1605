"""What the API shows, from records and last reports. Pure."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from controller.condition import status_of
from controller.placing import World
from controller.policies import policy_lines, selected_by
from controller.snapshot import Cluster, Usage
from model.api import (
    BlockUsage,
    FleetInfo,
    HostInfo,
    InstanceInfo,
    NetworkInfo,
    PolicyInfo,
    ServiceInfo,
    Why,
)
from model.events import Event
from model.ids import HostId
from model.records import Desired, Host, Instance, Network, Policy, Service
from model.spec import Availability, Replicated, Reservations
from model.status import HostState, InstanceStatus, Phase
from model.version import VERSION
from net.ipam import room


def instance_status(cluster: Cluster, instance: Instance, world: World) -> InstanceStatus:
    host = cluster.hosts.get(instance.host) if instance.host is not None else None
    return status_of(instance, host, world.statuses.get(instance.id))


def instance_info(cluster: Cluster, instance: Instance, world: World) -> InstanceInfo:
    status = instance_status(cluster, instance, world)
    host = cluster.host_name(instance.host)
    return InstanceInfo(
        instance=instance,
        status=status,
        host_name=host,
        explanation=_explain(cluster, instance, status),
    )


def _explain(cluster: Cluster, instance: Instance, status: InstanceStatus) -> tuple[str, ...]:
    """Placement, wish, phase; newest last."""
    lines: list[str] = []
    if instance.host is not None:
        lines.append(f"placed on {cluster.host_name(instance.host)}: {instance.reason}")
    elif instance.reason:
        lines.append(instance.reason)
    if instance.desired is not Desired.RUNNING:
        lines.append(f"should be {instance.desired}: {instance.reason}")
    said = f"is {status.phase}"
    if status.exit_code is not None and status.phase.ended:
        said += f" with exit code {status.exit_code}"
    lines.append(f"{said}: {status.message}" if status.message else said)
    if status.health:
        about = f": {status.health_message}" if status.health_message else ""
        lines.append(f"its health check says {status.health}{about}")
    if status.opening:
        lines.append("is waited for until its ports take connections")
    if status.restarts:
        lines.append(f"was restarted {status.restarts} times by its restart policy")
    return tuple(dict.fromkeys(lines))


def service_info(cluster: Cluster, service: Service, world: World) -> ServiceInfo:
    ordered = sorted(
        cluster.of_service(service.id).values(), key=lambda i: (i.slot, i.host or "", -i.created_at, i.id)
    )
    infos = tuple(instance_info(cluster, instance, world) for instance in ordered)
    running = sum(info.status.ready and info.instance.desired is Desired.RUNNING for info in infos)
    return ServiceInfo(
        service=service,
        running=running,
        wanted=_wanted(cluster, service),
        instances=infos,
        explanation=tuple(condition.message for condition in service.conditions),
    )


def _wanted(cluster: Cluster, service: Service) -> int:
    if service.removed:
        return 0
    if isinstance(service.spec.mode, Replicated):
        return service.spec.mode.replicas
    return sum(i.desired is Desired.RUNNING for i in cluster.of_service(service.id).values())


def host_info(cluster: Cluster, host: Host, world: World, *, connected: bool, refused: str = "") -> HostInfo:
    used = cluster.usage.get(host.id, Usage())
    report = world.reports.get(host.id)
    conditions = list(report.conditions) if report else []
    if host.state_reason:
        conditions.append(f"{host.state}: {host.state_reason}")
    if refused:
        conditions.append(f"turned away: {refused}")
    if host.id in world.settling:
        conditions.append("settling: it came and went lately, so nothing new is placed on it for a while")
    here = cluster.on_host(host.id)
    conditions += [words for ident, words in sorted(world.strays.items()) if ident in here]
    return HostInfo(
        host=host,
        connected=connected,
        instances=len(cluster.on_host(host.id)),
        reserved=Reservations(nano_cpus=used.nano_cpus, memory=used.memory),
        conditions=(*conditions, *host.facts.warnings),
    )


def network_info(cluster: Cluster, network: Network, world: World) -> NetworkInfo:
    endpoints: dict[str, str] = {}
    for instance in cluster.on_network(network.id).values():
        status = world.statuses.get(instance.id)
        for endpoint in status.endpoints if status else ():
            if endpoint.network == network.id:
                found = (endpoint.ipv4, endpoint.ipv6)
                endpoints[instance.name] = ",".join(address for address in found if address)
    blocks = cluster.blocks_of(network.id)
    ordered = tuple(block for _, block in sorted(blocks.items()))
    met = {
        stranger.address: f"{stranger.mac}, met by {cluster.host_name(host)}"
        for host, report in sorted(world.reports.items())
        for stranger in report.strangers
        if stranger.network == network.id
    }
    return NetworkInfo(network=network, blocks=ordered, endpoints=endpoints, strangers=met)


def policy_info(cluster: Cluster, policy: Policy) -> PolicyInfo:
    return PolicyInfo(policy=policy, selected=selected_by(cluster, policy.spec))


def block_usage(cluster: Cluster, network: Network, world: World) -> tuple[BlockUsage, ...]:
    """How full each host's share of the network is, by what hosts reported last."""
    leases = sorted(cluster.blocks_of(network.id).values(), key=lambda b: _place(b.cidr.partition("/")[0]))
    blocks = [block for block in leases if not block.holder]
    fixed = {block.address: block for block in leases if block.holder}
    by_host: dict[HostId, list[str]] = defaultdict(list)
    for block in blocks:
        by_host[block.host].append(block.cidr)
    starts = [_place(block.cidr.partition("/")[0]) for block in blocks]
    statuses = (world.statuses.get(ident) for ident in cluster.on_network(network.id))
    feet = [e for s in statuses if s is not None for e in s.endpoints if e.network == network.id]
    addresses = {a for foot in feet for a in (foot.ipv4, foot.ipv6) if a}
    # Shares never overlap: an address is in the last one that begins before it, or in none.
    used = Counter(bisect_right(starts, _place(a)) - 1 for a in addresses if a not in fixed)
    within = Counter(bisect_right(starts, _place(a)) - 1 for a in fixed)
    sizes = [room(network.spec, block.cidr, by_host[block.host]) for block in blocks]
    singles = (
        BlockUsage(
            cidr=lease.cidr,
            host=cluster.host_name(lease.host),
            size=1,
            used=int(address in addresses),
            free=0,
            quarantined_until=lease.quarantined_until,
            fixed=True,
        )
        for address, lease in fixed.items()
    )
    shares = (
        BlockUsage(
            cidr=block.cidr,
            host=cluster.host_name(block.host),
            size=size,
            used=used[index],
            free=max(0, size - used[index] - within[index]),
            quarantined_until=block.quarantined_until,
        )
        for index, (block, size) in enumerate(zip(blocks, sizes, strict=True))
    )
    return (*shares, *singles)


def _place(address: str) -> tuple[int, int]:
    """By which addresses of both families are in order."""
    found = ipaddress.ip_address(address)
    return found.version, int(found)


def fleet_info(cluster: Cluster, world: World, *, release: str, store: str, registry: str) -> FleetInfo:
    running = sum(
        s.phase is Phase.RUNNING and ident in cluster.instances for ident, s in world.statuses.items()
    )
    return FleetInfo(
        name=cluster.settings.name,
        fleet_id=cluster.settings.fleet_id,
        version=VERSION,
        release=release,
        revision=cluster.revision,
        hosts=len(cluster.hosts),
        hosts_ready=sum(host.state is HostState.READY for host in cluster.hosts.values()),
        services=len(cluster.services),
        instances=len(cluster.instances),
        instances_running=running,
        store=store,
        registry=registry,
        storage_drivers=storage_drivers(cluster.hosts.values()),
    )


MOST_NAMED = 5
"""Hosts that a line names one by one."""


def storage_drivers(hosts: Iterable[Host]) -> tuple[str, ...]:
    """A line for each driver and reason there is, the most frequent first."""
    found: dict[tuple[str, str], list[str]] = {}
    for host in hosts:
        if host.facts.storage_driver:
            found.setdefault((host.facts.storage_driver, host.facts.storage_reason), []).append(
                host.facts.hostname
            )
    return tuple(
        f"{driver} on {_named(sorted(names))}{f': {why}' if why else ''}"
        for (driver, why), names in sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    )


def _named(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def why_instance(cluster: Cluster, instance: Instance, world: World, events: tuple[Event, ...]) -> Why:
    info = instance_info(cluster, instance, world)
    where = f" on {info.host_name}" if info.host_name else ""
    return Why(
        kind="instance",
        id=instance.id,
        name=instance.name,
        summary=f"container {instance.name} is {info.status.phase}{where}",
        reasons=(*info.explanation, *policy_lines(cluster, instance)),
        events=events,
    )


def why_service(cluster: Cluster, service: Service, world: World, events: tuple[Event, ...]) -> Why:
    info = service_info(cluster, service, world)
    reasons = [
        f"{one.instance.name} should be {one.instance.desired}: {one.instance.reason}"
        for one in info.instances
    ]
    return Why(
        kind="service",
        id=service.id,
        name=service.spec.name,
        summary=f"service {service.spec.name}: {info.running} of {info.wanted} run",
        reasons=(*info.explanation, *reasons),
        events=events,
        conditions=service.conditions,
    )


def why_host(
    cluster: Cluster,
    host: Host,
    world: World,
    events: tuple[Event, ...],
    *,
    held: str,
    connected: bool,
    refused: str = "",
) -> Why:
    info = host_info(cluster, host, world, connected=connected, refused=refused)
    reasons = list(info.conditions)
    if host.spec.availability is not Availability.ACTIVE:
        reasons.append(f"its availability is {host.spec.availability}")
    if held:
        reasons.append(held)
    return Why(
        kind="node",
        id=host.id,
        name=host.spec.name,
        summary=f"node {host.spec.name} is {host.state}",
        reasons=tuple(reasons),
        events=events,
    )


def why_network(cluster: Cluster, network: Network, events: tuple[Event, ...]) -> Why:
    blocks = cluster.blocks_of(network.id)
    subnets = ", ".join(subnet.cidr for subnet in network.spec.subnets)
    return Why(
        kind="network",
        id=network.id,
        name=network.spec.name,
        summary=f"network {network.spec.name} ({network.spec.driver}) is {subnets}",
        reasons=(f"{len(blocks)} blocks are leased, {len(cluster.on_network(network.id))} containers on it",),
        events=events,
    )
