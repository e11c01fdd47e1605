"""What an agent knows of one instance: the journalled truth of this host. Pure."""

from __future__ import annotations

import msgspec

from agent.probe import HealthState
from agent.runtime.base import Created
from model.ids import InstanceId
from model.records import ResolvedAttachment
from model.spec import Publish, Resources, Struct
from model.status import BoundPort, Endpoint, InstanceStatus, Phase


class Local(Struct):
    """The flags say what exists now; `phase` is what is told to people."""

    instance: InstanceId
    attempt: int = 0
    """The last wanted attempt that was begun."""
    phase: Phase = Phase.ASSIGNED
    rooted: bool = False
    """It has a writable layer."""
    making: bool = False
    """Something of a container may exist beyond the root: namespaces, mounts, a bundle, a runtime
    container."""
    prepared: bool = False
    """All that its process needs stands: root, network, volumes, ports."""
    created: Created | None = None
    """Its process is held or runs under this conmon, in the boot `boot_id`."""
    boot_id: str = ""
    started: bool = False
    ended: bool = False
    """Its process is over; what is left of it is to be cleaned up."""
    paused: bool = False
    switching: bool = False
    """It is being frozen or thawed: until that is over nobody knows which of both it is."""
    killed: bool = False
    """A person's signal was meant to end it; its restart policy does not apply to this end."""
    exit_code: int | None = None
    oom_killed: bool = False
    restarts: int = 0
    """By the restart policy, in this attempt."""
    failures: int = 0
    """Restarts in a row without a run that lasted; for the back-off."""
    retry_at: float = 0.0
    """Clock.now() of the next start under the restart policy."""
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    message: str = ""
    image_id: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[BoundPort, ...] = ()
    volumes: tuple[tuple[str, str], ...] = ()
    drained_at: float = 0.0
    """When it may be told to stop; 0 as long as nobody wants it to."""
    departing: bool = False
    """Since then no other host sends it new connections; `drained_at` counts from there."""
    attached: tuple[ResolvedAttachment, ...] | None = None
    """The wish of which the endpoints were made; None in the record of an older agent."""
    published: tuple[Publish, ...] | None = None
    """The wish of which the ports were made."""
    rewiring: bool = False
    """Endpoints or ports are being changed: there may be some of which nothing else here tells."""
    wired_for: int = 0
    """Revision of the last wish for which they were changed, or are to be."""
    limits: Resources | None = None
    """What its process's cgroup has been told; None in the record of an older agent, or without a process."""
    limiting: bool = False
    """They are being changed: until that is over nobody knows which of them hold."""
    limited_for: int = 0
    """Revision of the last wish for which that was changed, or is to be."""
    health: HealthState | None = None
    """Of the present run; None without a check."""
    opening: bool = False
    """Its declared ports are waited for, in the present run."""
    ready_since: float = 0.0
    """When it became ready, in the present run; 0 as long as it is not."""
    anonymous: tuple[str, ...] = ()
    """Volumes that were made for this instance alone."""

    @property
    def live(self) -> bool:
        """Its process is held or runs."""
        return self.created is not None and not self.ended

    @property
    def running(self) -> bool:
        return self.live and self.started


def status_of(record: Local) -> InstanceStatus:
    """As it is reported."""
    running = record.running
    health = record.health if running else None
    return InstanceStatus(
        instance=record.instance,
        attempt=record.attempt,
        phase=record.phase,
        paused=record.paused,
        pid=record.created.pid if running and record.created else 0,
        exit_code=record.exit_code,
        oom_killed=record.oom_killed,
        restarts=record.restarts,
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        message=record.message,
        image_id=record.image_id,
        endpoints=record.endpoints,
        ports=record.ports,
        volumes=record.volumes,
        wired_for=record.wired_for,
        limits=record.limits if record.live else None,
        limited_for=record.limited_for,
        health=health.status if health is not None else "",
        health_message=health.message if health is not None else "",
        opening=running and record.opening,
        ready_since=record.ready_since,
    )


def timed(record: Local, now: float) -> Local:
    """With the time since when it is ready, if it is."""
    ready = status_of(record).ready
    if ready is bool(record.ready_since):
        return record
    return msgspec.structs.replace(record, ready_since=now if ready else 0.0)


def intends(before: Local, after: Local) -> bool:
    """Whether something begins that must be in the journal before it is done."""
    return (
        (after.making and not before.making)
        or (after.rewiring and not before.rewiring)
        or (after.switching and not before.switching)
        or (after.limiting and not before.limiting)
    )


def impossible(record: Local) -> str:
    """What is impossible about a record, in words; empty for every one that can be."""
    rules = (
        (record.created is None or record.making, "a process without an intent"),
        (not record.started or record.created is not None or record.ended, "started, but no process"),
        (not record.prepared or record.making, "prepared, but nothing is being made"),
        (not record.making or record.rooted, "made without a root"),
        (not record.paused or record.running, "paused, but not running"),
        (not record.switching or record.running, "frozen or thawed, but not running"),
        (record.phase is not Phase.RUNNING or record.started, "running, but never started"),
        (record.phase is not Phase.REMOVED or not (record.making or record.rooted), "removed, but not gone"),
        (not record.rewiring or record.making, "networks changed of nothing"),
        (record.phase is not Phase.RESTARTING or not record.making, "restarting before it was cleaned"),
    )
    return "; ".join(words for holds, words in rules if not holds)
