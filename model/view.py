"""The View: all that one host needs to do its work, and the difference between two Views. Pure.

The first message of a session carries the whole View, later ones carry deltas that say which revision
they apply to; a host that finds a gap asks for the whole again. `apply(diff(a, b), a) == b`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from model.buildcache import CacheKeeping
from model.ids import HostId, InstanceId, NetworkId, PolicyId, ServiceId
from model.image import ImageKeeping, KeptImages
from model.policy import PolicySpec
from model.records import Instance
from model.spec import Balance, NetworkSpec, Publish, Struct
from model.tunnels import KeyPhase, TunnelEnd

K = TypeVar("K", bound=str)
V = TypeVar("V")


class Peer(Struct):
    """Another host of the fleet, as seen by the network code."""

    host: HostId
    name: str
    address: str
    addresses: tuple[str, ...] = ()
    """All of its own, as far as it told."""
    behind_nat: bool = False
    """It has to speak first."""
    link_local: str = ""
    """IPv6, on the link that carries `address`."""


class NetworkPeer(Struct):
    """A host that carries a network, and its blocks there."""

    host: HostId
    blocks: tuple[str, ...]
    number: int = 0
    """Of the ingress network: from 1, a host where published ports are open; the same on every host."""
    ends: tuple[TunnelEnd, ...] = ()
    """Of an encrypted network."""


class NetworkView(Struct):
    """A network that this host carries."""

    id: NetworkId
    spec: NetworkSpec
    vni: int
    blocks: tuple[str, ...]
    """This host's, out of which its agent hands addresses."""
    peers: tuple[NetworkPeer, ...] = ()
    vip_ranges: tuple[str, ...] = ()
    """In which the addresses of its services lie."""
    keys: KeyPhase = KeyPhase()
    """Of an encrypted network."""
    fixed: Mapping[InstanceId, str] = {}
    """Addresses that were promised to instances of this host by name."""
    fixed6: Mapping[InstanceId, str] = {}
    parent: str = ""
    """Of a network on the site's own: this host's link that it stands on; empty: it has none that fits."""
    singles: tuple[str, ...] = ()
    """Fixed addresses that are this host's beside its blocks, with prefix length."""
    awaited: tuple[str, ...] = ()
    """Promised to instances of this host, but another host has not said yet that it has given them up."""
    set_aside: Mapping[str, str] = {}
    """Addresses that this host gives to nobody, each with the mark of its lease; it says which of them nobody
    here has (`HostReport.vacated`)."""

    @property
    def held(self) -> tuple[str, ...]:
        """All ranges that are this host's."""
        return (*self.blocks, *self.singles)


class ServiceView(Struct):
    """A service's address on a network that this host carries; on the ingress network its ports that are open
    on this host instead."""

    name: str
    ipv4: str = ""
    ipv6: str = ""
    balance: Balance = "round-robin"
    ports: tuple[Publish, ...] = ()
    """`published` is never 0 here."""


def service_key(network: NetworkId, service: ServiceId) -> str:
    """Of a `View.services` entry."""
    return f"{network}/{service}"


class View(Struct):
    revision: int = 0
    fleet_id: str = ""
    vxlan_port: int = 4789
    source_ports: tuple[int, int] = (0, 0)
    security_profile: str = "default"
    address_pools: tuple[str, ...] = ()
    instances: Mapping[InstanceId, Instance] = {}
    networks: Mapping[NetworkId, NetworkView] = {}
    peers: Mapping[HostId, Peer] = {}
    services: Mapping[str, ServiceView] = {}
    """By `service_key`. A map beside the networks, so that one service's change is one entry."""
    policies: Mapping[PolicyId, PolicySpec] = {}
    """Those that select an instance of this host."""
    judged: bool = False
    """There are policies in the fleet: instances start once the hosts that judge know them (wire.Arrived)."""
    keeping: ImageKeeping = ImageKeeping()
    build_cache: CacheKeeping = CacheKeeping()
    kept_images: Mapping[ServiceId, KeptImages] = {}
    """For services, whether or not they run here."""


class ViewDelta(Struct):
    """`None` scalars are unchanged; maps hold new and changed entries, `gone_*` the removed keys."""

    from_revision: int
    to_revision: int
    fleet_id: str | None = None
    vxlan_port: int | None = None
    source_ports: tuple[int, int] | None = None
    security_profile: str | None = None
    address_pools: tuple[str, ...] | None = None
    instances: Mapping[InstanceId, Instance] = {}
    networks: Mapping[NetworkId, NetworkView] = {}
    peers: Mapping[HostId, Peer] = {}
    services: Mapping[str, ServiceView] = {}
    policies: Mapping[PolicyId, PolicySpec] = {}
    judged: bool | None = None
    keeping: ImageKeeping | None = None
    build_cache: CacheKeeping | None = None
    kept_images: Mapping[ServiceId, KeptImages] = {}
    gone_instances: tuple[InstanceId, ...] = ()
    gone_networks: tuple[NetworkId, ...] = ()
    gone_peers: tuple[HostId, ...] = ()
    gone_services: tuple[str, ...] = ()
    gone_policies: tuple[PolicyId, ...] = ()
    gone_kept_images: tuple[ServiceId, ...] = ()

    @property
    def empty(self) -> bool:
        return msgspec.structs.replace(self, from_revision=0, to_revision=0) == _EMPTY


_EMPTY = ViewDelta(from_revision=0, to_revision=0)


def diff(old: View, new: View) -> ViewDelta:
    """What turns `old` into `new`."""
    instances, gone_instances = _diff(old.instances, new.instances)
    networks, gone_networks = _diff(old.networks, new.networks)
    peers, gone_peers = _diff(old.peers, new.peers)
    services, gone_services = _diff(old.services, new.services)
    policies, gone_policies = _diff(old.policies, new.policies)
    kept_images, gone_kept_images = _diff(old.kept_images, new.kept_images)
    return ViewDelta(
        from_revision=old.revision,
        to_revision=new.revision,
        fleet_id=new.fleet_id if new.fleet_id != old.fleet_id else None,
        vxlan_port=new.vxlan_port if new.vxlan_port != old.vxlan_port else None,
        source_ports=new.source_ports if new.source_ports != old.source_ports else None,
        security_profile=new.security_profile if new.security_profile != old.security_profile else None,
        address_pools=new.address_pools if new.address_pools != old.address_pools else None,
        instances=instances,
        networks=networks,
        peers=peers,
        services=services,
        policies=policies,
        judged=new.judged if new.judged != old.judged else None,
        keeping=new.keeping if new.keeping != old.keeping else None,
        build_cache=new.build_cache if new.build_cache != old.build_cache else None,
        kept_images=kept_images,
        gone_instances=gone_instances,
        gone_networks=gone_networks,
        gone_peers=gone_peers,
        gone_services=gone_services,
        gone_policies=gone_policies,
        gone_kept_images=gone_kept_images,
    )


def apply(delta: ViewDelta, view: View) -> View | None:
    """The new View, or None when the delta does not start at this View's revision (ask for the whole)."""
    if delta.from_revision != view.revision:
        return None
    return View(
        revision=delta.to_revision,
        fleet_id=view.fleet_id if delta.fleet_id is None else delta.fleet_id,
        vxlan_port=view.vxlan_port if delta.vxlan_port is None else delta.vxlan_port,
        source_ports=view.source_ports if delta.source_ports is None else delta.source_ports,
        security_profile=view.security_profile if delta.security_profile is None else delta.security_profile,
        address_pools=view.address_pools if delta.address_pools is None else delta.address_pools,
        instances=_apply(view.instances, delta.instances, delta.gone_instances),
        networks=_apply(view.networks, delta.networks, delta.gone_networks),
        peers=_apply(view.peers, delta.peers, delta.gone_peers),
        services=_apply(view.services, delta.services, delta.gone_services),
        policies=_apply(view.policies, delta.policies, delta.gone_policies),
        judged=view.judged if delta.judged is None else delta.judged,
        keeping=view.keeping if delta.keeping is None else delta.keeping,
        build_cache=view.build_cache if delta.build_cache is None else delta.build_cache,
        kept_images=_apply(view.kept_images, delta.kept_images, delta.gone_kept_images),
    )


def _diff(old: Mapping[K, V], new: Mapping[K, V]) -> tuple[dict[K, V], tuple[K, ...]]:
    if old is new:
        return {}, ()
    changed = {key: value for key, value in new.items() if key not in old or old[key] != value}
    return changed, tuple(sorted(key for key in old if key not in new))


def _apply(old: Mapping[K, V], put: Mapping[K, V], gone: tuple[K, ...]) -> Mapping[K, V]:
    if not put and not gone:
        return old
    return {key: value for key, value in {**old, **put}.items() if key not in gone}
