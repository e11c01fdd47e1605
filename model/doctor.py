"""The check-up of a fleet's networks: what a host finds of its own, and what all of it together means. Pure.

A host looks whether its kernel is as it should be and asks every peer for an answer, by the underlay and by
each network they share, with small packets and with the largest that the network carries. Invariant: the same
checks give the same findings, each with what is wrong, between whom, and what to do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from model.ids import HostId
from model.spec import Struct
from model.status import HostFacts

Severity = Literal["fault", "warning", "repaired"]


class Repair(Struct):
    """Something of ours was not as it should be, and what was done."""

    object: str
    action: str


class PathCheck(Struct):
    """From one host to another. `network` empty: by the underlay itself."""

    host: HostId
    network: str
    target: str
    """The peer's address there."""
    size: int
    """Bytes of the largest packet that was sent: the network's MTU."""
    small: float | None = None
    """Seconds until a small packet was answered; None: never."""
    large: float | None = None
    note: str = ""
    """Why it could not even be sent."""


class HostCheck(Struct):
    host: HostId
    facts: HostFacts
    repairs: tuple[Repair, ...] = ()
    paths: tuple[PathCheck, ...] = ()
    troubles: tuple[str, ...] = ()
    """What the host complains of by itself."""
    leaked: tuple[str, ...] = ()
    """Addresses held for containers that it does not have."""


class Finding(Struct):
    severity: Severity
    where: str
    """Host, or pair of hosts, and network."""
    what: str
    hint: str = ""


class CheckUp(Struct):
    """`flota network doctor`."""

    hosts: int
    paths: int
    """That were tried, each way counts."""
    findings: tuple[Finding, ...] = ()


def diagnose(
    checks: Sequence[HostCheck], failed: Mapping[str, str], names: Mapping[HostId, str], vxlan_port: int
) -> CheckUp:
    """What the hosts' checks mean; `names` of all hosts that are known, `failed`: why some have no check."""
    asked = {check.host for check in checks}
    missing = sorted(name for ident, name in names.items() if ident not in asked)
    reasons = {name: failed.get(name, "it is not in session") for name in missing}
    findings = [Finding(severity="fault", where=n, what=f"not examined: {why}") for n, why in reasons.items()]
    for check in checks:
        name = names.get(check.host, check.host[:12])
        for repair in check.repairs:
            findings.append(Finding(severity="repaired", where=name, what=f"{repair.object} {repair.action}"))
        findings += [Finding(severity="fault", where=name, what=trouble) for trouble in check.troubles]
        if check.leaked:
            shown = ", ".join(check.leaked[:4]) + (" …" if len(check.leaked) > 4 else "")
            what = f"{len(check.leaked)} addresses are held for containers that are gone: {shown}"
            hint = "They are given back when its agent starts again"
            findings.append(Finding(severity="warning", where=name, what=what, hint=hint))
    findings += _mtus(checks, names)
    findings += _pairs(checks, names, vxlan_port)
    paths = sum(len(check.paths) for check in checks)
    return CheckUp(hosts=len(checks), paths=paths, findings=tuple(findings))


def _mtus(checks: Sequence[HostCheck], names: Mapping[HostId, str]) -> Iterable[Finding]:
    """Networks are as wide as each host's own underlay: between hosts that differ large datagrams vanish."""
    by_mtu: dict[int, list[str]] = defaultdict(list)
    for check in checks:
        by_mtu[check.facts.mtu].append(names.get(check.host, check.host[:12]))
    if len(by_mtu) > 1:
        told = ", ".join(f"{', '.join(sorted(hosts))}: {mtu}" for mtu, hosts in sorted(by_mtu.items()))
        yield Finding(
            severity="warning",
            where="underlay",
            what=f"hosts have links of different MTU ({told})",
            hint="Give the links one MTU, or the networks the smallest: --opt mtu=",
        )


def _pairs(checks: Sequence[HostCheck], names: Mapping[HostId, str], vxlan_port: int) -> Iterable[Finding]:
    for check in checks:
        underlay = {path.host: path for path in check.paths if not path.network}
        for path in check.paths:
            below = underlay.get(path.host)
            pair = f"{names.get(check.host, check.host[:12])} → {names.get(path.host, path.host[:12])}"
            where = f"{pair}, {path.network or 'underlay'}"
            finding = _of_path(path, below, where, vxlan_port)
            if finding is not None:
                yield finding


def _of_path(path: PathCheck, below: PathCheck | None, where: str, vxlan_port: int) -> Finding | None:
    if path.note:
        return Finding(severity="fault", where=where, what=path.note)
    if path.large is not None:
        return None
    if path.small is not None:
        return _narrow(path, where)
    if not path.network:
        hint = "Hosts need not answer pings, but must reach each other"
        return Finding(severity="warning", where=where, what=f"{path.target} does not answer", hint=hint)
    answers = below is not None and below.small is not None
    hint = (
        f"The hosts reach each other: let UDP {vxlan_port} pass between them, both ways"
        if answers
        else "The hosts don't reach each other either: look at the network between them"
    )
    return Finding(severity="fault", where=where, what=f"{path.target} does not answer", hint=hint)


def _narrow(path: PathCheck, where: str) -> Finding:
    what = f"packets of {path.size} bytes vanish, small ones pass"
    if not path.network:
        hint = "A link between the hosts carries less than their own; see the networks' lines"
        return Finding(severity="warning", where=where, what=what, hint=hint)
    hint = "The way between the hosts carries less than their links: make networks with a smaller --opt mtu="
    return Finding(severity="fault", where=where, what=what, hint=hint)
