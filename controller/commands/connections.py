"""Commands on the networks and published ports of plain containers, running or not. Pure: each gives a Plan,
or raises and changes nothing. The host sees that what it has is not what is wanted, and changes it in
place."""

from __future__ import annotations

from msgspec.structs import replace

from controller import fixed
from controller.addressing import Leases
from controller.attachments import attachment_of, check_published, network_named, shares_namespace
from controller.commands.find import find_instance
from controller.parents import lacking
from controller.placing import World
from controller.plan import Plan, put
from controller.schedule.fleet import fleet_of, host_ports
from controller.snapshot import Cluster
from model.api import ConnectNetwork, DisconnectNetwork, UpdateBandwidth, UpdatePorts
from model.errors import AlreadyExists, InUse, InvalidInput, NotFound, WrongState
from model.ids import HostId
from model.records import Desired, Instance, Network, ResolvedAttachment
from model.spec import Publish
from model.validate import check, validate_container, validate_endpoint


def connect(cluster: Cluster, ref: str, request: ConnectNetwork, world: World, now: float) -> Plan:
    """Put a container on one more network."""
    network = network_named(cluster, ref)
    instance = _editable(cluster, request.container, f"connect it to {network.spec.name}")
    check("invalid endpoint", validate_endpoint(request.endpoint, "endpoint"))
    if any(a.network == network.id for a in instance.attachments):
        raise AlreadyExists(f"container {instance.name} is on network {network.spec.name} already")
    wish = request.endpoint
    if wish.ifname and any(a.ifname == wish.ifname for a in instance.attachments):
        raise InvalidInput(f"container {instance.name} has an interface {wish.ifname} already")
    attachment = attachment_of(network, wish)
    check_published(cluster, (*instance.attachments, attachment), instance.spec.ports)
    leases = Leases(cluster, now, world.statuses)
    if instance.host is not None:
        _check_carried(cluster, network, instance.host)
        attachment = fixed.hold(leases, attachment, instance, instance.host)
        leases.ensure(network, instance.host, attachment)
    changed = replace(instance, attachments=(*instance.attachments, attachment))
    reason = f"connected to {network.spec.name} by hand"
    return Plan(items=(put(changed, reason), *leases.items()), subject=instance.id)


def _check_carried(cluster: Cluster, network: Network, host: HostId) -> None:
    refusal = lacking((network,), cluster.hosts[host]).get(network.id) if host in cluster.hosts else None
    if refusal is not None:
        raise WrongState(f"network {network.spec.name} is not on {cluster.host_name(host)}: a host {refusal}")


def disconnect(cluster: Cluster, ref: str, request: DisconnectNetwork, now: float) -> Plan:
    """Take a container off a network; the way out and its published ports move to those that are left."""
    network = network_named(cluster, ref)
    instance = _editable(cluster, request.container, f"disconnect it from {network.spec.name}")
    left = tuple(a for a in instance.attachments if a.network != network.id)
    if len(left) == len(instance.attachments):
        if request.force:
            return Plan(subject=instance.id)
        raise NotFound(f"container {instance.name} is not on network {network.spec.name}")
    check_published(cluster, left, instance.spec.ports)
    changed = replace(instance, attachments=left)
    return Plan(items=(put(changed, f"disconnected from {network.spec.name} by hand"),), subject=instance.id)


def update_ports(cluster: Cluster, ref: str, request: UpdatePorts, world: World, now: float) -> Plan:
    """Publish more ports, or fewer. Raises InUse when one is taken on its host, as far as that is known."""
    instance = _editable(cluster, ref, "publish its ports")
    left = list(instance.spec.ports)
    for gone in request.remove:
        found = [port for port in left if _meant(gone, port)]
        if not found:
            raise NotFound(f"container {instance.name} publishes no port {_words(gone)}")
        left = [port for port in left if port not in found]
    spec = replace(instance.spec, ports=(*left, *request.add))
    problems = validate_container(
        replace(spec, networks=())
    )  # one made without a network may have one by now
    check("invalid ports", [p for p in problems if p.path.startswith("spec.ports")])
    if request.add and not instance.attachments:
        raise WrongState(
            f"container {instance.name} is on no network",
            hint=f"flota network connect NETWORK {instance.name}",
        )
    if request.add:
        check_published(cluster, instance.attachments, spec.ports)
        _check_ports(cluster, instance, request.add, world)
    if spec == instance.spec:
        return Plan(subject=instance.id)
    return Plan(
        items=(put(replace(instance, spec=spec), "its ports were changed by hand"),), subject=instance.id
    )


def update_bandwidth(cluster: Cluster, ref: str, request: UpdateBandwidth) -> Plan:
    """Other limits for an endpoint; its host changes them in place."""
    instance = _editable(cluster, ref, "change its bandwidth")
    attachment = _endpoint_on(cluster, instance, request.network)
    rates = {"bandwidth_in": request.bandwidth_in, "bandwidth_out": request.bandwidth_out}
    wish = replace(attachment, **{field: rate for field, rate in rates.items() if rate is not None})
    check("invalid bandwidth", validate_endpoint(wish, "endpoint"))
    if wish == attachment:
        return Plan(subject=instance.id)
    attachments = tuple(wish if a is attachment else a for a in instance.attachments)
    changed = replace(instance, attachments=attachments)
    return Plan(items=(put(changed, "its bandwidth was changed by hand"),), subject=instance.id)


def _endpoint_on(cluster: Cluster, instance: Instance, network: str) -> ResolvedAttachment:
    if not network and len(instance.attachments) == 1:
        return instance.attachments[0]
    if not network:
        names = ", ".join(cluster.networks[a.network].spec.name for a in instance.attachments) or "none"
        raise InvalidInput(f"container {instance.name} is on several networks or none ({names}): name one")
    wanted = network_named(cluster, network)
    for attachment in instance.attachments:
        if attachment.network == wanted.id:
            return attachment
    raise NotFound(f"container {instance.name} is not on network {wanted.spec.name}")


def _editable(cluster: Cluster, ref: str, what: str) -> Instance:
    instance = find_instance(cluster, ref)
    name = instance.name
    if instance.service is not None:
        raise WrongState(
            f"can't {what}: container {name} belongs to service {instance.service_name}",
            hint=f"Change the service: flota service update {instance.service_name}",
        )
    if instance.desired is Desired.REMOVED:
        raise WrongState(f"can't {what}: container {name} is being removed")
    mode = shares_namespace(cluster, instance.spec)
    if mode:
        raise WrongState(
            f"can't {what}: container {name} has the network of {mode}",
            hint="Make it anew with a network of its own",
        )
    return instance


def _check_ports(cluster: Cluster, instance: Instance, added: tuple[Publish, ...], world: World) -> None:
    host = instance.host
    if host is None or host not in cluster.hosts:
        return
    candidate = fleet_of(cluster, world.reports, own=world.own)[host]
    candidate.records = [other for other in candidate.records if other.id != instance.id]
    taken = candidate.taken_port(host_ports(added))
    if taken is not None:
        name = candidate.host.spec.name
        raise InUse(f"port {taken[1]}/{taken[0]} is in use on {name}", hint="Choose another port")


def _meant(wish: Publish, port: Publish) -> bool:
    """Whether a port is one of those that a `--publish-rm` names."""
    return (
        (wish.target, wish.protocol) == (port.target, port.protocol)
        and wish.published in (0, port.published)
        and wish.host_ip in ("", port.host_ip)
    )


def _words(port: Publish) -> str:
    where = f"{port.host_ip}:" if port.host_ip else ""
    published = f"{port.published}:" if port.published else ""
    return f"{where}{published}{port.target}/{port.protocol}"
