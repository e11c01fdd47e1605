"""What a host was told last, taken into a state that is older than that. Pure.

A View's entries are copies of records, with their revisions: of an instance the newer one is the truth.
Invariant: a host is believed of itself alone, as one that was taken over might say anything: its own
instances and its own shares, networks that meet none that is known; what doesn't fit is left out and told.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Set

from msgspec.structs import replace

from controller.addressing import spans_hosts
from controller.fixed import holder_of
from controller.plan import Item, Plan, delete, put
from controller.recovery import asks, heard, told
from controller.snapshot import Cluster
from model.addressrules import without_addresses
from model.events import Event
from model.ids import HostId, InstanceId, is_id
from model.netoptions import encrypted
from model.networkrules import validate_network
from model.records import Block, Desired, Instance, Network, Record, ResolvedAttachment
from model.status import Phase
from model.validate import range_of, validate_container, validate_name
from model.view import NetworkView, View
from model.wire import Recall
from net.ipam import overlap

MOST_NAME, SHORT = 128, 6
"""Characters of a name, and of its id behind the name of an instance whose name somebody else has."""


def plan_recall(
    cluster: Cluster, host: HostId, recalls: Mapping[HostId, Recall], now: float
) -> tuple[Plan, tuple[str, ...]]:
    """What to write now that `host` has told, and what of it was left out, in words. `recalls` is all that
    was told so far, its own too: what one has may be free only by another's word. The host is heard then;
    with the last one decisions begin again."""
    recovery = cluster.settings.recovery
    record = cluster.hosts.get(host)
    if recovery is None or record is None or not asks(cluster, host):
        return Plan(), ()
    merge = _Merge(cluster, {h: r for h, r in recalls.items() if h in cluster.hosts}, now)
    merge.run(sorted(merge.recalls) if recovery.awaited else [host])
    settings = heard(cluster.settings, (host,))
    items, events = list(merge.items.values()), tuple[Event, ...]()
    if settings != cluster.settings:
        items.append(put(settings, f"{record.spec.name} said what it knows"))
    if settings.recovery is None or (recovery.awaited and not settings.recovery.awaited):
        events = (told(settings, "all hosts said what they know", now),)
    return Plan(items=tuple(items), events=events), tuple(merge.left_out.get(host, ()))


class _Merge:
    """Lives as long as the decision. `cluster` is as if all `items` were written."""

    def __init__(self, cluster: Cluster, recalls: Mapping[HostId, Recall], now: float) -> None:
        self.cluster = cluster
        self.recalls = recalls
        self.now = now
        self.items: dict[tuple[str, str], Item] = {}
        self.left_out: dict[HostId, list[str]] = {}
        self.host, self.view = HostId(""), View()
        self.there: Set[InstanceId] = frozenset()

    def run(self, hosts: Iterable[HostId]) -> None:
        """Take what these told. Twice: what was in the way may have been given up by a later one's word. As
        long as nothing is decided all can be taken again; afterwards what one told is old."""
        for _ in range(2):
            self.left_out = {}
            for host in hosts:
                self._take(host, self.recalls[host])

    def _take(self, host: HostId, recall: Recall) -> None:
        self.host, self.view = host, recall.view
        self.there = {s.instance for s in recall.statuses if s.phase is not Phase.REMOVED}
        if self.view.fleet_id not in ("", self.cluster.settings.fleet_id):
            self.left_out[host] = ["what it knows is of another fleet"]
            return
        for _, network in sorted(self.view.networks.items()):
            self._network(network)
        self._instances()
        for _, network in sorted(self.view.networks.items()):
            if network.id in self.cluster.networks:
                self._shares(network)

    def _write(self, record: Record, reason: str, *, gone: bool = False) -> None:
        kind = type(record).__name__
        key = kind, record.key if isinstance(record, Block) else record.id
        before = self.items.get(key)
        if before is not None and before.delete:  # it is replaced by another one of its name
            record = replace(record, revision=before.record.revision)
        self.items[key] = delete(record, reason) if gone else put(record, reason)
        puts, deletes = ((), (record,)) if gone else ((record,), ())
        self.cluster, _ = self.cluster.apply(puts, deletes, self.cluster.revision)

    def _skip(self, what: str, why: str) -> None:
        self.left_out.setdefault(self.host, []).append(f"{what} is left out: {why}")

    # -- networks -----------------------------------------------------------------------------------
    def _network(self, told: NetworkView) -> None:
        known = self.cluster.networks.get(told.id)
        if known is not None:
            if encrypted(known.spec.options) and told.keys.newest > known.keys.newest:
                self._write(replace(known, keys=told.keys), "hosts have newer keys of it")
            return
        why = [] if is_id(told.id) else ["it has no id"]
        why += [str(problem) for problem in validate_network(told.spec)]
        why += [f"{text[:60]!r} is no range" for text in told.vip_ranges if range_of(text) is None]
        rivals = list(self._rivals(told)) if not why else []
        why += [words for other, words in rivals if not self._given_up(other)]
        if why:
            self._skip(f"network {told.spec.name[:80]}", why[0])
            return
        for other in {other.id: other for other, _ in rivals}.values():
            for block in self.cluster.blocks_of(other.id).values():
                self._write(block, f"network {other.spec.name} is no more", gone=True)
            self._write(other, f"removed after the backup: {told.spec.name} has its place", gone=True)
        made = Network(
            id=told.id,
            spec=told.spec,
            vni=told.vni,
            vip_ranges=told.vip_ranges,
            keys=told.keys,
            created_at=self.now,
            keyed_at=self.now,
        )
        self._write(made, "made after the backup, a host has it")

    def _rivals(self, told: NetworkView) -> Iterator[tuple[Network, str]]:
        """Networks beside which it can't be, and why."""
        found = (range_of(text) for text in (*(s.cidr for s in told.spec.subnets), *told.vip_ranges))
        mine = [range_ for range_ in found if range_ is not None]
        for other in self.cluster.networks.values():
            if other.spec.name == told.spec.name:
                yield other, f"{other.spec.name} is another one"
            if told.vni and other.vni == told.vni:
                yield other, f"{other.spec.name} has its number"
            for text in (*(s.cidr for s in other.spec.subnets), *other.vip_ranges):
                if any(overlap(range_, ipaddress.ip_network(text)) for range_ in mine):
                    yield other, f"it overlaps {text} of {other.spec.name}"

    def _given_up(self, other: Network) -> bool:
        """Whether a network of the backup is surely no more: nobody is on it, and each host that had a share
        of it has been heard and does not carry it."""
        views = [recall.view for recall in self.recalls.values()]
        return (
            other.revision > 0
            and not other.predefined
            and not self.cluster.on_network(other.id)
            and all(block.host in self.recalls for block in self.cluster.blocks_of(other.id).values())
            and not any(other.id in view.networks for view in views)
        )

    def _shares(self, told: NetworkView) -> None:
        network = self.cluster.networks[told.id]
        if not spans_hosts(network):
            return
        for cidr in told.blocks:
            lease = Block(network=network.id, cidr=cidr, host=self.host, leased_at=self.now)
            self._lease(network, lease)
        holders = {address: who for fixed in (told.fixed, told.fixed6) for who, address in fixed.items()}
        for cidr in told.singles:
            instance = self.cluster.instances.get(holders.get(cidr.partition("/")[0], InstanceId("")))
            if instance is not None and instance.host == self.host:
                lease = Block(network=network.id, cidr=cidr, host=self.host, leased_at=self.now)
                self._lease(network, replace(lease, holder=holder_of(instance, self.host)))

    def _lease(self, network: Network, lease: Block) -> None:
        """A share that is new here, unless it is of somebody else or nowhere in the network."""
        known = self.cluster.blocks.get(lease.key)
        what = f"{lease.cidr[:60]} of {network.spec.name}"
        range_ = range_of(lease.cidr)
        if known is not None and known.host == self.host:
            if known.quarantined_until:
                self._write(replace(known, quarantined_until=0.0), "its host has it")
            return
        if range_ is None or not any(_within(range_, s.cidr) for s in network.spec.subnets):
            self._skip(what, "it is in none of its subnets")
            return
        others = [
            other
            for other in self.cluster.blocks_of(network.id).values()
            if other.key == lease.key
            or (
                bool(other.holder) is bool(lease.holder) and overlap(range_, ipaddress.ip_network(other.cidr))
            )
        ]
        if kept := [other for other in others if not self._let_go(other)]:
            self._skip(what, f"{kept[0].cidr} is {self.cluster.host_name(kept[0].host)}'s in the backup")
            return
        for other in others:
            self._write(other, "given back after the backup", gone=True)
        self._write(lease, "leased after the backup, its host has it")

    def _let_go(self, lease: Block) -> bool:
        """Whether its host was told after the backup that it has it no more, by its own word."""
        recall = self.recalls.get(lease.host)
        if recall is None or not 0 < lease.revision <= recall.view.revision:
            return False
        known = recall.view.networks.get(lease.network)
        return known is None or lease.cidr not in known.held

    # -- instances ----------------------------------------------------------------------------------
    def _instances(self) -> None:
        for _, instance in sorted(self.view.instances.items()):
            known = self.cluster.instances.get(instance.id)
            if why := next(self._instance_faults(instance, known), ""):
                self._skip(f"container {instance.name[:80]}", why)
            elif known is None:
                self._unknown(instance)
            elif 0 < known.revision < instance.revision:
                self._newer(instance, known)
            elif self._taken_by_word(known):
                self._rejoined(instance, known)
        for ident, known in sorted(self.cluster.on_host(self.host).items()):
            here = ident in self.view.instances or ident in self.there
            if not here and 0 < known.revision <= self.view.revision:
                self._write(known, "removed after the backup, its host does not have it", gone=True)

    def _instance_faults(self, told: Instance, known: Instance | None) -> Iterator[str]:
        if not is_id(told.id):
            yield "it has no id"
        if told.host != self.host or (known is not None and known.host not in (None, self.host)):
            yield "it is another host's"
        yield from (str(p) for p in validate_name("container", told.name, "name"))
        of_service = told.service is not None
        spec = without_addresses(told.spec) if of_service else told.spec
        yield from (str(p) for p in validate_container(spec, of_service=of_service))

    def _unknown(self, told: Instance) -> None:
        if told.desired is Desired.REMOVED and told.id not in self.there:
            return
        made, reason = replace(told, revision=0), "made after the backup, its host has it"
        if told.service is not None and told.service not in self.cluster.services:
            made = replace(made, service=None, service_name="", slot=0, generation=0)
            made = replace(made, spec=without_addresses(made.spec))
            reason += f"; its service {told.service_name[:80]} is not in the backup"
        attached = self._attached(told)
        self._write(replace(made, name=self._name(told), attachments=attached, reason=reason), reason)

    def _taken_by_word(self, known: Instance) -> bool:
        """Whether it is what hosts said, not the backup, and nobody can have changed it since."""
        recovery = self.cluster.settings.recovery
        undecided = recovery is not None and bool(recovery.awaited) and known.revision > recovery.revision
        return known.revision == 0 or undecided

    def _rejoined(self, told: Instance, known: Instance) -> None:
        """A network for which another host's word made room comes back to who was taken without it."""
        attached = self._attached(told)
        if attached != known.attachments:
            self._write(replace(known, attachments=attached), "its network is there again")

    def _attached(self, told: Instance) -> tuple[ResolvedAttachment, ...]:
        return tuple(a for a in told.attachments if a.network in self.cluster.networks)

    def _name(self, told: Instance) -> str:
        """Its own, unless somebody else has that: then with as much of its id behind it as makes it its own.
        At last the id alone, a name that nobody chooses."""
        if told.desired is Desired.REMOVED:
            return told.name
        sizes = range(SHORT, len(told.id) + 1)
        longer = (f"{told.name[: MOST_NAME - size - 1]}-{told.id[:size]}" for size in sizes)
        names = self.cluster.names
        free = (name for name in (told.name, *longer) if names.get(name) in (None, told.id))
        return next(free, told.id)

    def _newer(self, told: Instance, known: Instance) -> None:
        if told.desired is Desired.REMOVED and told.id not in self.there:
            self._write(known, "removed after the backup, its host does not have it", gone=True)
            return
        newer = replace(
            told, revision=known.revision, service=known.service, attachments=self._attached(told)
        )
        self._write(replace(newer, name=self._name(told)), "changed after the backup, its host knows how")


def _within(range_: ipaddress.IPv4Network | ipaddress.IPv6Network, cidr: str) -> bool:
    whole = ipaddress.ip_network(cidr)
    return range_.version == whole.version and range_.subnet_of(whole)  # type: ignore[arg-type]
