"""The last View in the journal: its scalars one row, each instance, network and peer a row of its own.

Invariant: rows are written as the difference to the last View that is known to be durable, so a write that
failed is made good by the next.
"""

from __future__ import annotations

import asyncio

from agent.journal import Journal, Write
from model import view as views
from model.buildcache import CacheKeeping
from model.codec import encode_wire
from model.ids import HostId, InstanceId, NetworkId, PolicyId, ServiceId
from model.image import ImageKeeping, KeptImages
from model.policy import PolicySpec
from model.records import Instance
from model.spec import Struct
from model.view import NetworkView, Peer, ServiceView, View


class _Head(Struct):
    revision: int
    fleet_id: str
    vxlan_port: int
    security_profile: str
    address_pools: tuple[str, ...]
    source_ports: tuple[int, int] = (0, 0)
    keeping: ImageKeeping = ImageKeeping()
    build_cache: CacheKeeping = CacheKeeping()


class ViewJournal:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._durable = View()

    def read(self) -> View | None:
        """None before the first View. Raises Damaged."""
        head = self._journal.read("view", _Head).get("head")
        if head is None:
            return None
        instances = {InstanceId(k): v for k, v in self._journal.read("instance", Instance).items()}
        networks = {NetworkId(k): v for k, v in self._journal.read("network", NetworkView).items()}
        peers = {HostId(k): v for k, v in self._journal.read("peer", Peer).items()}
        services = self._journal.read("service", ServiceView)
        kept_images = {ServiceId(k): v for k, v in self._journal.read("kept-images", KeptImages).items()}
        policies = {PolicyId(k): v for k, v in self._journal.read("policy", PolicySpec).items()}
        self._durable = View(
            revision=head.revision,
            fleet_id=head.fleet_id,
            vxlan_port=head.vxlan_port,
            source_ports=head.source_ports,
            security_profile=head.security_profile,
            address_pools=head.address_pools,
            instances=instances,
            networks=networks,
            peers=peers,
            services=services,
            policies=policies,
            keeping=head.keeping,
            build_cache=head.build_cache,
            kept_images=kept_images,
        )
        return self._durable

    def write(self, view: View) -> asyncio.Future[None]:
        """Durable once the future is done; what is journalled later is never durable before it."""
        delta = views.diff(self._durable, view)
        head = _Head(
            revision=view.revision,
            fleet_id=view.fleet_id,
            vxlan_port=view.vxlan_port,
            source_ports=view.source_ports,
            security_profile=view.security_profile,
            address_pools=view.address_pools,
            keeping=view.keeping,
            build_cache=view.build_cache,
        )
        writes: list[Write] = [("view", "head", encode_wire(head))]
        for kind, put, gone in (
            ("instance", delta.instances, delta.gone_instances),
            ("network", delta.networks, delta.gone_networks),
            ("peer", delta.peers, delta.gone_peers),
            ("service", delta.services, delta.gone_services),
            ("policy", delta.policies, delta.gone_policies),
            ("kept-images", delta.kept_images, delta.gone_kept_images),
        ):
            writes += [(kind, key, encode_wire(value)) for key, value in put.items()]
            writes += [(kind, key, None) for key in gone]
        written = self._journal.write(writes)
        written.add_done_callback(lambda done: self._written(done, view))
        return written

    def _written(self, done: asyncio.Future[None], view: View) -> None:
        if not done.cancelled() and done.exception() is None:
            self._durable = view
