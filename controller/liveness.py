"""Which hosts live: a verdict per host from when it was last heard. Pure; times are monotonic seconds.

ready → unknown (silent, or its connection ended: nothing new goes there) → lost (its instances are replaced).
An ended connection is not yet a loss: an agent that restarts leaves its containers running. A controller that
has just started gives every host a fresh term. When more than one host and more than a share of them vanish
at once, the verdict is held: then it is more likely that we are cut off.
"""

from __future__ import annotations

from collections.abc import Mapping

from model.ids import HostId
from model.records import Host
from model.spec import Struct
from model.status import HostState


class Policy(Struct):
    """Seconds, but `hold_share`."""

    unknown_after: float = 1.5
    lost_after: float = 3.0
    start_term: float = 10.0
    """How long a new controller waits for the hosts that it finds in the store."""
    hold_share: float = 0.3
    hold_for: float = 30.0
    flap_window: float = 600.0
    settle_first: float = 10.0
    settle_limit: float = 300.0


def patient(lost_after: float) -> Policy:
    """The usual policy where a host is lost after so long, and unknown after half of it; 0: the usual one."""
    if not lost_after:
        return Policy()
    usual = Policy()
    return Policy(
        unknown_after=max(1.0, lost_after / 2),
        lost_after=max(1.0, lost_after),
        start_term=max(usual.start_term, 3 * lost_after),
    )


class Contact(Struct):
    """What this controller has heard of a host."""

    seen: float
    """Last proof that it hears us and answers."""
    connected: bool = False
    lost_at: tuple[float, ...] = ()
    """When it was found lost, within the flap window."""
    back_at: float = 0.0
    """When it last came back from being lost."""
    excused_until: float = 0.0
    """Its silence until then was announced: its agent is started again. A new session ends that."""


NOBODY = Contact(seen=0.0)


class Verdict(Struct):
    host: HostId
    state: HostState
    reason: str


class Assessment(Struct):
    """`next_at`: when to look again if nothing is heard until then. `held`: why losses are not declared."""

    verdicts: tuple[Verdict, ...] = ()
    next_at: float | None = None
    held: str = ""


def assess(
    hosts: Mapping[HostId, Host],
    contacts: Mapping[HostId, Contact],
    policy: Policy,
    *,
    now: float,
    began: float,
) -> Assessment:
    """Compare what is recorded with what is heard; only differences become verdicts."""
    judged = {host: record for host, record in hosts.items() if record.state is not HostState.JOINING}
    silence = {host: _silence(contacts.get(host), policy, now, began) for host in judged}
    standing = [host for host in judged if judged[host].state is not HostState.LOST]
    excused = {host for host in standing if contacts.get(host, NOBODY).excused_until > now}
    over = sorted(host for host in standing if silence[host] >= policy.lost_after and host not in excused)
    vanishing = [
        host for host in standing if _away(contacts.get(host), silence[host], policy) and host not in excused
    ]
    held = _held(over, vanishing, standing, silence, policy)
    verdicts: list[Verdict] = []
    due: list[float] = []
    fresh = now - began < policy.unknown_after
    if fresh:
        due.append(began + policy.unknown_after)
    for host in sorted(judged):
        if fresh and host not in contacts:
            continue  # its agent has not had the time to come back to us
        may_lose = not held and host not in excused
        verdict = _verdict(host, contacts.get(host), silence[host], policy, may_lose=may_lose)
        if verdict.state is not judged[host].state and _moves(judged[host].state, verdict.state):
            verdicts.append(verdict)
        for limit in (policy.unknown_after, policy.lost_after):
            if silence[host] < limit:
                due.append(now + limit - silence[host])
        if host in excused:
            due.append(contacts[host].excused_until)
    if held and len(vanishing) < len(standing):
        due.append(now + policy.lost_after + policy.hold_for - max(silence[host] for host in over))
    return Assessment(verdicts=tuple(verdicts), next_at=min(due, default=None), held=held)


def settling(contacts: Mapping[HostId, Contact], policy: Policy, now: float) -> dict[HostId, float]:
    """Hosts that were lost more than once lately, and until when nothing new goes there."""
    found: dict[HostId, float] = {}
    for host, contact in contacts.items():
        losses = sum(at > now - policy.flap_window for at in contact.lost_at)
        if losses >= 2:
            until = contact.back_at + min(
                policy.settle_limit, policy.settle_first * 2.0 ** min(losses - 2, 16)
            )
            if until > now:
                found[host] = until
    return found


def _silence(contact: Contact | None, policy: Policy, now: float, began: float) -> float:
    """Seconds without an answer; a host not heard yet has its start term before it counts as silent."""
    if contact is not None:
        return now - contact.seen
    return now - began - max(0.0, policy.start_term - policy.lost_after)


def _away(contact: Contact | None, silence: float, policy: Policy) -> bool:
    if contact is None:
        return silence >= policy.lost_after
    return silence >= policy.unknown_after or not contact.connected


def _held(
    over: list[HostId],
    vanishing: list[HostId],
    standing: list[HostId],
    silence: Mapping[HostId, float],
    policy: Policy,
) -> str:
    if not over or len(vanishing) < 2 or len(vanishing) <= policy.hold_share * len(standing):
        return ""
    words = f"{len(vanishing)} of {len(standing)} hosts vanished at once"
    if len(vanishing) == len(standing):
        return f"{words}: the controller itself is probably cut off; nothing is replaced"
    if max(silence[host] for host in over) >= policy.lost_after + policy.hold_for:
        return ""
    return f"{words}: waiting {policy.hold_for:g} s before their instances are replaced"


def _verdict(
    host: HostId, contact: Contact | None, silence: float, policy: Policy, *, may_lose: bool
) -> Verdict:
    if silence >= policy.lost_after and may_lose:
        return Verdict(host=host, state=HostState.LOST, reason=f"no answer for {policy.lost_after:g} s")
    if contact is None:
        return Verdict(host=host, state=HostState.UNKNOWN, reason="not heard since the controller started")
    if not contact.connected:
        return Verdict(host=host, state=HostState.UNKNOWN, reason="its agent's connection ended")
    if silence >= policy.unknown_after:
        return Verdict(host=host, state=HostState.UNKNOWN, reason=f"no answer for {policy.unknown_after:g} s")
    return Verdict(host=host, state=HostState.READY, reason="")


def _moves(old: HostState, new: HostState) -> bool:
    """A lost host comes back by a new session alone, which brings all that runs there."""
    return not (old is HostState.LOST and new is not HostState.LOST)
