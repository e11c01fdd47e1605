"""A fleet whose state came out of a backup: what is older than its hosts, and when that is over. Pure.

Invariant: as long as a host is awaited, nothing is decided that gives away what it may hold, and no host is
told anything: each goes on with what it was told before. One that comes later is asked first, too.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from controller.plan import Plan, put
from controller.snapshot import Cluster
from model.api import Knock, RecoveryInfo
from model.errors import AlreadyExists, WrongState
from model.events import Event
from model.ids import HostId
from model.records import FleetSettings, Host, JoinToken, Record, Recovery, RegistryToken
from model.spec import HostSpec
from model.status import HostFacts, HostState
from model.validate import check, validate_name

LEAP = 1 << 30
"""Revisions that a restored store is ahead of its backup: more than the lost controller can have written."""
PER_SECOND = 1 << 20
"""More than any can write in a second: what was restored of one backup before is older in revisions, too."""


def restored(cluster: Cluster, *, taken_at: float, now: float) -> Cluster:
    """The state to begin with. Tokens, of joining and of the registry, are gone: one that was taken back
    since would be good again. Hosts that were lost when the backup was made are not waited for."""
    settings, hosts = cluster.settings, sorted(cluster.hosts.values(), key=lambda host: host.id)
    recovery = Recovery(
        revision=cluster.revision,
        taken_at=taken_at,
        restored_at=now,
        awaited=tuple(host.id for host in hosts if host.state is not HostState.LOST),
        unheard=tuple(host.id for host in hosts if host.state is HostState.LOST),
    )
    gone = JoinToken | RegistryToken | FleetSettings
    kept = [record for record in cluster.records() if not isinstance(record, gone)]
    revision = max(cluster.revision + LEAP, int(now) * PER_SECOND)
    begun = replace(settings, revision=revision, recovery=_or_none(recovery), restored_at=now)
    return Cluster().apply((*kept, begun), (), revision)[0]


def epoch_of(before: int, now: float) -> int:
    """A leader's epoch beyond all that the lost controller can have had: each of its starts added one."""
    return max(before + 1, int(now))


def held(cluster: Cluster) -> bool:
    """Whether nothing is decided for now."""
    recovery = cluster.settings.recovery
    return recovery is not None and bool(recovery.awaited)


def asks(cluster: Cluster, host: HostId) -> bool:
    """Whether that host is to say first what it was told last."""
    recovery = cluster.settings.recovery
    return recovery is not None and (bool(recovery.awaited) or host in recovery.unheard)


def is_later(cluster: Cluster, host: HostId, made: float) -> bool:
    """Whether a certificate that was made then is younger than the backup, and that host is yet to be heard:
    it may have been renewed since. Unix seconds."""
    found = cluster.settings.recovery
    return found is not None and made >= found.taken_at and host in (*found.awaited, *found.unheard)


def settled(cluster: Cluster) -> Cluster:
    """The same. Raises WrongState while hosts are awaited: what a command takes might be somebody's."""
    if not held(cluster):
        return cluster
    names = awaited_names(cluster)
    raise WrongState(
        f"the fleet is being restored from a backup: {', '.join(names)} not heard yet",
        hint="Start their agents (`flota follow` where the controller's address is another), "
        "or go on without them: flota fleet settle",
    )


def awaited_names(cluster: Cluster) -> tuple[str, ...]:
    recovery = cluster.settings.recovery
    return tuple(sorted(cluster.host_name(host) for host in recovery.awaited)) if recovery is not None else ()


def heard(settings: FleetSettings, hosts: Iterable[HostId]) -> FleetSettings:
    """These have said what they know, or are in the fleet no more; the last of all ends it."""
    recovery, done = settings.recovery, {*hosts}
    if recovery is None:
        return settings
    left = replace(
        recovery,
        awaited=tuple(host for host in recovery.awaited if host not in done),
        unheard=tuple(host for host in recovery.unheard if host not in done),
    )
    return replace(settings, recovery=_or_none(left))


def plan_settle(cluster: Cluster, now: float) -> Plan:
    """Go on without the hosts that have not been heard. Raises WrongState when none is waited for."""
    settings = cluster.settings
    recovery = settings.recovery
    if recovery is None or not recovery.awaited:
        raise WrongState("no host is waited for: the fleet decides for itself")
    unheard = (*recovery.unheard, *recovery.awaited)
    after = replace(settings, recovery=replace(recovery, awaited=(), unheard=unheard))
    words = f"by hand, without {', '.join(awaited_names(cluster))}"
    return Plan(items=(put(after, f"the fleet goes on {words}"),), events=(told(settings, words, now),))


def plan_admit(cluster: Cluster, knock: Knock, facts: HostFacts, certificate: str, now: float) -> Plan:
    """A host that joined after the backup is of the fleet again, by a person's word; it is asked what it
    knows. Raises AlreadyExists, InvalidInput."""
    check("this host can't be admitted", validate_name("host", knock.name, "name"))
    settings, recovery = cluster.settings, cluster.settings.recovery
    if any(host.spec.name == knock.name for host in cluster.hosts.values()):
        raise AlreadyExists(
            f"another host is called {knock.name}",
            hint=f"If it is no more: flota node rm --force {knock.name}",
        )
    host = Host(
        id=knock.id, spec=HostSpec(name=knock.name), facts=facts, joined_at=now, certificate=certificate
    )
    begun = recovery or Recovery(
        revision=cluster.revision, taken_at=settings.restored_at, restored_at=settings.restored_at
    )
    field = "awaited" if begun.awaited else "unheard"
    begun = replace(begun, **{field: (*getattr(begun, field), knock.id)})
    event = Event(type="node", action="join", id=host.id, name=knock.name, host=knock.name, at=now)
    items = (put(host, "admitted by hand"), put(replace(settings, recovery=begun), f"{knock.name} is asked"))
    return Plan(items=items, events=(event,), subject=host.id)


def info_of(cluster: Cluster, knocks: Iterable[Knock]) -> RecoveryInfo:
    found, settings = cluster.settings.recovery, cluster.settings
    unheard = found.unheard if found is not None else ()
    return RecoveryInfo(
        restored_at=settings.restored_at,
        taken_at=found.taken_at if found is not None else 0.0,
        awaited=awaited_names(cluster),
        unheard=tuple(sorted(cluster.host_name(host) for host in unheard)),
        knocks=tuple(sorted(knocks, key=lambda knock: knock.name)),
    )


def told(settings: FleetSettings, words: str, now: float) -> Event:
    return Event(
        type="fleet",
        action="recovered",
        id=settings.fleet_id,
        name=settings.name,
        at=now,
        attributes={"reason": words},
    )


def over(old: Record | None, new: Record | None) -> bool:
    """Whether with this change of the settings decisions begin again."""
    was = isinstance(old, FleetSettings) and old.recovery is not None and bool(old.recovery.awaited)
    return was and isinstance(new, FleetSettings) and not (new.recovery is not None and new.recovery.awaited)


def _or_none(recovery: Recovery) -> Recovery | None:
    return recovery if recovery.awaited or recovery.unheard else None
