"""Commands on hosts and join tokens. Pure: each gives a Plan, or raises and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from controller.commands.find import find_host
from controller.plan import Item, Plan, delete, put
from controller.recovery import heard, is_later
from controller.snapshot import Cluster
from model.api import HostAway, JoinRequest, UpdateHost
from model.errors import (
    AlreadyExists,
    Forbidden,
    NotFound,
    Problem,
    StaleRevision,
    Unauthenticated,
    WrongState,
)
from model.events import Event
from model.factrules import address_fault, label_problems
from model.ids import HostId
from model.records import Host, JoinToken
from model.spec import HostSpec
from model.status import HostFacts, HostState
from model.validate import check, validate_name

MOST_AWAY = 600.0


def update(cluster: Cluster, ref: str, request: UpdateHost, now: float) -> Plan:
    """Change availability and labels."""
    host = find_host(cluster, ref)
    if request.revision and request.revision != host.revision:
        raise StaleRevision(
            f"node {host.spec.name} changed since it was read (revision {host.revision})",
            hint="Read it again and repeat the change",
        )
    problems = [p for key in request.labels_set for p in validate_name("label", key.replace("/", "."), key)]
    check("invalid label", problems)
    labels = {k: v for k, v in host.spec.labels.items() if k not in request.labels_remove}
    labels.update(request.labels_set)
    availability = request.availability or host.spec.availability
    spec = replace(host.spec, labels=labels, availability=availability)
    if spec == host.spec:
        return Plan(subject=host.id)
    event = _event(host, "update", now, availability=str(availability))
    return Plan(items=(put(replace(host, spec=spec), "changed by hand"),), events=(event,), subject=host.id)


def away_problems(request: HostAway) -> Iterator[Problem]:
    if not 0 <= request.seconds <= MOST_AWAY:
        yield Problem(path="seconds", message=f"{request.seconds:g} is not between 0 and {MOST_AWAY:g}")


def remove(cluster: Cluster, ref: str, *, force: bool, now: float) -> Plan:
    """Take a host out of the fleet; its certificate stops being accepted. One in session, or with
    containers on it, needs `force`."""
    host = find_host(cluster, ref)
    name = host.spec.name
    if not force and host.state in (HostState.READY, HostState.UNKNOWN):
        raise WrongState(
            f"node {name} is {host.state}",
            hint=f"Drain it and stop its agent first, or `flota node rm --force {name}`",
        )
    plain = [i for i in cluster.on_host(host.id).values() if i.service is None]
    if plain and not force:
        raise WrongState(f"node {name} still has {len(plain)} containers", hint="Use --force to give them up")
    items: list[Item] = [delete(i, f"node {name} was removed") for i in plain]
    items.append(delete(host, "removed by hand"))
    settings = heard(cluster.settings, (host.id,))
    if settings != cluster.settings:
        items.append(put(settings, f"{name} is not waited for any more"))
    return Plan(items=tuple(items), events=(_event(host, "remove", now),), subject=host.id)


def admit(
    cluster: Cluster,
    request: JoinRequest,
    *,
    now: float,
    ident: HostId,
    fingerprint: str,
    connected: bool,
    replaces: str = "",
    proven: str = "",
) -> Plan:
    """A host with a good token: a new record, or a new certificate for the host of that name.

    `ident` is the id that its certificate names: that of the host of this name, or a new one. A host that is
    known is given to a token that `replaces` it, or to whom its certificate (SHA-256 in `proven`) is. Raises
    AlreadyExists for a name that is another host's.
    """
    check("invalid host", _join_problems(request))
    known = host_named(cluster, request.name)
    if replaces and (known is None or known.id != replaces):
        its = cluster.hosts.get(HostId(replaces))
        raise AlreadyExists(
            f"this token is for {its.spec.name if its else 'a host that is gone'} alone, not {request.name}",
            hint="Join by that name (--name), or with a token of its own: flota token create",
        )
    if known is not None and known.id != ident:
        raise AlreadyExists(
            f"another host has just joined as {request.name}", hint="Choose another name with --name"
        )
    if known is not None:
        theirs = replaces == known.id or _is(known, proven)
        _may_have(known, connected=connected, theirs=theirs, older=bool(proven))
        again = replace(known, certificate=fingerprint, renewal="")
        return Plan(items=(put(again, "it joined again"),), subject=ident)
    host = Host(
        id=ident,
        spec=HostSpec(name=request.name, labels=request.labels),
        facts=HostFacts(hostname=request.name, address=request.address),
        joined_at=now,
        certificate=fingerprint,
    )
    return Plan(items=(put(host, "it joined"),), events=(_event(host, "join", now),), subject=ident)


def _is(known: Host, proven: str) -> bool:
    return bool(proven) and proven in (known.certificate, known.renewal)


def _may_have(known: Host, *, connected: bool, theirs: bool, older: bool) -> None:
    """`older`: it shows a certificate that isn't the newest, as also after a join whose answer never came."""
    name = known.spec.name
    if connected:
        raise AlreadyExists(
            f"a node named {name} is in the fleet and connected", hint="Choose another name with --name"
        )
    if not theirs:
        way = f"flota token create --replace {name}, or first: flota node rm {name}"
        cut = f"If it is that one (a join of it was cut off, or its folder was put back): {way}"
        new = f"Choose another name with --name. If this machine is to take its place: {way}"
        raise AlreadyExists(
            f"a node named {name} is in the fleet ({known.state}), and this is not known to be it"
            + (": its certificate is not the newest" if older else ""),
            hint=cut if older else new,
        )


def _join_problems(request: JoinRequest) -> Iterator[Problem]:
    """It may come without an address: its agent tells one before anybody is led there."""
    yield from validate_name("host", request.name, "name")
    if request.address and (fault := address_fault(request.address)):
        yield Problem(path="address", message=fault)
    yield from label_problems(request.labels, "labels")


def disowned(host: Host, certificate: str) -> str:
    """Why a connection with this certificate (SHA-256) is not the host's, for people: of all that name it,
    the last one alone is good, and the one before until that is in use. Empty: it is."""
    if not host.certificate or (certificate and certificate in (host.certificate, host.renewal)):
        return ""
    name = host.spec.name
    return (
        f"{name} joined again or renewed its certificate since this one was made: only the newest is good "
        f"(if it was this machine that did, and was cut off: flota token create --replace {name}, and join "
        "by that token)"
    )


def renew(cluster: Cluster, ident: HostId, *, shown: str, fingerprint: str) -> Plan:
    """A host has a new certificate made. The one that it has `shown` stays good until the new one is in use,
    so a host that never gets to see that goes on. Raises NotFound, Forbidden."""
    host = member(cluster, ident, shown)
    after = replace(host, certificate=shown, renewal=fingerprint)
    return Plan(items=(put(after, "its next certificate is made"),), subject=ident)


def promote(cluster: Cluster, ident: HostId, shown: str, made: float = 0.0) -> Plan:
    """The host is in session by this certificate: if it was the next one, the one before is good no more.
    So it is with one that was `made` (unix seconds) after the backup that this state came out of."""
    host = cluster.hosts.get(ident)
    if host is None or not shown:
        return Plan()
    if shown != host.renewal and not (disowned(host, shown) and is_later(cluster, ident, made)):
        return Plan()
    after = replace(host, certificate=shown, renewal="")
    return Plan(items=(put(after, "its next certificate is in use"),), subject=ident)


def follows(old: Host, new: Host) -> bool:
    """Whether its certificate is another one because the next is in use, or its time has come."""
    return bool(old.renewal) and new.certificate == old.renewal


def member(cluster: Cluster, ident: HostId, shown: str) -> Host:
    """Raises NotFound, and Forbidden for a certificate that is not the host's (any more)."""
    host = cluster.hosts.get(ident)
    if host is None:
        raise NotFound("this host is not in the fleet (any more)")
    if words := disowned(host, shown):
        raise Forbidden(words)
    return host


def host_named(cluster: Cluster, name: str) -> Host | None:
    return next((host for host in cluster.hosts.values() if host.spec.name == name), None)


def token_for(cluster: Cluster, digest: str, now: float) -> JoinToken:
    """The live token whose secret has this hash. Raises Unauthenticated."""
    for token in cluster.tokens.values():
        if token.secret_hash == digest:
            if token.expires_at and token.expires_at <= now:
                raise Unauthenticated("the join token has expired", hint="Make one: flota token create")
            return token
    raise Unauthenticated("the join token is not known to this fleet", hint="Make one: flota token create")


def used(made: Plan, token: JoinToken) -> Plan:
    """A plan by which a host joins with this token, which is gone then if it is good once."""
    if not token.once:
        return made
    return replace(made, items=(*made.items, delete(token, "a host has joined by it")))


def _event(host: Host, action: str, now: float, **attributes: str) -> Event:
    name = host.spec.name
    return Event(type="node", action=action, id=host.id, name=name, host=name, at=now, attributes=attributes)
