"""Which keys a change concerns. Pure.

Keys reuse the store's: `service`, `network`, `login`, and `instance` for plain containers.
Invariant: whatever can change a key's plan names that key; naming one too many costs a look.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from controller import ingress
from controller.attachments import network_if_any
from controller.reconcile.service import SHORT, UNPLACED
from controller.snapshot import Change, Cluster, Key, counts
from model.ids import HostId, NetworkId
from model.records import Block, Desired, Host, Instance, Network, Service
from model.spec import Global


def all_keys(cluster: Cluster) -> Iterable[Key]:
    """Everything that can be planned."""
    yield from (Key("service", ident) for ident in cluster.services)
    yield from (Key("network", ident) for ident in {*cluster.networks, ingress.NETWORK})
    yield from (Key("login", ident) for ident in cluster.logins)
    yield from (
        Key("instance", i.id)
        for i in cluster.instances.values()
        if i.service is None or i.service not in cluster.services
    )


def keys_of(cluster: Cluster, change: Change) -> set[Key]:
    """What must be looked at again after `change`."""
    keys: set[Key] = set()
    for record in (change.old, change.new):
        if isinstance(record, Service):
            keys |= {Key("service", record.id), *_of_addresses(cluster, record)}
            if record.ingress:
                keys.add(Key("network", ingress.NETWORK))
        elif isinstance(record, Block):
            keys.add(Key("network", record.network))
        elif isinstance(record, Network):
            keys |= {Key("network", record.id), Key("network", ingress.NETWORK)}
            if record.id == ingress.NETWORK:
                keys |= publishing_keys(cluster)
        elif isinstance(record, Instance):
            keys |= _of_instance(cluster, record)
        elif isinstance(record, Host):
            keys |= _of_host(cluster, record, change)
    if change.new is None and change.key.id in cluster.logins:
        keys.add(Key("login", change.key.id))
    if _frees(change):
        keys |= waiting_keys(cluster)
    return keys


def _of_addresses(cluster: Cluster, service: Service) -> set[Key]:
    """Networks that keep addresses for it."""
    wishes = [w.network for w in service.spec.container.networks if w.ipv4 or w.ipv6 or w.keep_address]
    found = (network_if_any(cluster, name) for name in wishes)
    return {Key("network", network.id) for network in found if network is not None}


def _of_instance(cluster: Cluster, instance: Instance) -> set[Key]:
    if instance.service is not None and instance.service in cluster.services:
        keys = {Key("service", instance.service)}
    else:
        keys = {Key("instance", instance.id)}
    if instance.desired is Desired.REMOVED or instance.id not in cluster.instances:
        keys |= {Key("network", a.network) for a in instance.attachments}
    return keys


def _of_host(cluster: Cluster, host: Host, change: Change) -> set[Key]:
    if _same(change):
        return set()
    keys = {*waiting_keys(cluster), *publishing_keys(cluster), Key("network", ingress.NETWORK)}
    keys |= {Key("service", s.id) for s in cluster.services.values() if isinstance(s.spec.mode, Global)}
    keys |= {Key("network", block.network) for block in cluster.blocks_by_host.get(host.id, {}).values()}
    for instance in cluster.on_host(host.id).values():
        keys |= _of_instance(cluster, instance)
    return keys


def _same(change: Change) -> bool:
    """Whether only what no decision looks at has changed (a reason, a certificate)."""
    old, new = change.old, change.new
    if not isinstance(old, Host) or not isinstance(new, Host):
        return False
    return (old.spec, old.facts, old.state) == (new.spec, new.facts, new.state)


def _frees(change: Change) -> bool:
    """Whether room may have appeared for those who wait."""
    old, new = change.old, change.new
    if isinstance(old, Block):
        return new is None
    if isinstance(old, Service):  # its ports on every host
        kept = new.ingress if isinstance(new, Service) and not new.removed else ()
        return not {*old.ingress} <= {*kept}
    if isinstance(old, Instance) and new is None and old.attachments:
        return True
    if not isinstance(old, Instance) or old.host is None or not counts(old):
        return False
    return not isinstance(new, Instance) or not counts(new)


def publishing_keys(cluster: Cluster) -> set[Key]:
    """Services whose ports hosts may be unable to open."""
    return {Key("service", service.id) for service in ingress.publishing(cluster)}


def waiting_keys(cluster: Cluster) -> set[Key]:
    """Services that wait for room."""
    return {
        Key("service", service.id)
        for service in cluster.services.values()
        if any(condition.type in (UNPLACED, SHORT) for condition in service.conditions)
    }


def short_keys(cluster: Cluster, host: HostId, networks: Collection[NetworkId]) -> set[Key]:
    """Services whose instances on that host may wait for an address on one of these networks, or no more."""
    return {
        Key("service", instance.service)
        for instance in (cluster.on_host(host).values() if networks else ())
        if instance.service is not None and any(a.network in networks for a in instance.attachments)
    }
