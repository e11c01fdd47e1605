"""From hosts' checks of their networks to findings. Pure.

Invariant: the same checks give the same findings, each with what is wrong, between whom, and what to do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from model.doctor import CheckUp, Finding, HostCheck, PathCheck, Through, Way
from model.ids import HostId

NOWHERE = "none"
"""`PathCheck.way` of what the kernel sends by no link."""

UNTUNNELLED = (
    "The hosts reach each other: let the network's own addresses pass between them (host firewalls and "
    "switches may drop what comes from addresses that they don't know), or use a tunnel"
)


def diagnose(
    checks: Sequence[HostCheck], failed: Mapping[str, str], names: Mapping[HostId, str], vxlan_port: int
) -> CheckUp:
    """What the hosts' checks mean; `names` of all hosts that are known, `failed`: why some have no check."""
    asked = {check.host for check in checks}
    findings = [
        _of_host("fault", name, "not-examined", f"not examined: {failed.get(name, 'it is not in session')}")
        for name in sorted(name for ident, name in names.items() if ident not in asked)
    ]
    for check in checks:
        findings += _own(check, _name(check.host, names))
    findings += _mtus(checks, names)
    findings += _named(_answered_astray(list(_pairs(checks, names, vxlan_port))))
    ways = tuple(way for check in checks for way in _ways(check, names))
    return CheckUp(hosts=len(checks), paths=len(ways), findings=tuple(findings), ways=ways)


def _name(host: HostId, names: Mapping[HostId, str]) -> str:
    return names.get(host, host[:12])


def _of_host(severity: str, name: str, kind: str, what: str, hint: str = "") -> Finding:
    return Finding(severity=severity, where=name, what=what, hint=hint, kind=kind, host=name)  # type: ignore[arg-type]


def _own(check: HostCheck, name: str) -> Iterable[Finding]:
    """What a host says of itself."""
    for repair in check.repairs:
        severity, kind = ("fault", "not-repaired") if repair.failed else ("repaired", "repaired")
        yield _of_host(severity, name, kind, f"{repair.object} {repair.action}")
    if not check.facts.checksums:
        what = "its network card spoils checksums in tunnels, so they are made by processor"
        yield _of_host("repaired", name, "checksums", what)
    for trouble in check.troubles:
        yield _of_host("fault", name, "trouble", trouble)
    for through in check.through:
        if not through.answered:
            yield _stuck(through, name)
    if check.leaked:
        shown = ", ".join(check.leaked[:4]) + (" …" if len(check.leaked) > 4 else "")
        what = f"{len(check.leaked)} addresses are held for containers that are gone: {shown}"
        yield _of_host("warning", name, "leaked", what, "They are given back when its agent starts again")


def _stuck(through: Through, name: str) -> Finding:
    what = f"containers get no answer of other hosts (IPv{through.version}), though their host does"
    hint = 'A firewall here drops what is forwarded: let flb+ and flx+ pass, see "Beside other firewalls"'
    found = _of_host("fault", name, "forwarding", what, hint)
    return replace(found, where=f"{name}, {through.network}", network=through.network)


def _mtus(checks: Sequence[HostCheck], names: Mapping[HostId, str]) -> Iterable[Finding]:
    """Networks are as wide as each host's own underlay: between hosts that differ large datagrams vanish."""
    by_mtu: dict[int, list[str]] = defaultdict(list)
    for check in checks:
        by_mtu[check.facts.mtu].append(_name(check.host, names))
    if len(by_mtu) > 1:
        told = ", ".join(f"{', '.join(sorted(hosts))}: {mtu}" for mtu, hosts in sorted(by_mtu.items()))
        yield Finding(
            severity="warning",
            where="underlay",
            what=f"hosts have links of different MTU ({told})",
            hint="Give the links one MTU, or the networks the smallest: --opt mtu=",
            kind="mtu-differs",
        )


def _pairs(checks: Sequence[HostCheck], names: Mapping[HostId, str], vxlan_port: int) -> Iterable[Finding]:
    behind = {check.host for check in checks if check.facts.behind_nat}
    for check in checks:
        underlay = {path.host: path for path in check.paths if not path.network}
        reached = {path.host for path in check.paths if path.network and path.small is not None}
        for path in check.paths:
            if not path.network and path.host in reached and path.small is None and not path.note:
                continue  # hosts need not answer pings, and what matters gets through
            finding = _of_path(path, underlay.get(path.host), vxlan_port)
            if finding is not None and path.network and {check.host, path.host} <= behind:
                finding = _behind_nats(finding)
            if finding is not None:
                host, peer = _name(check.host, names), _name(path.host, names)
                where = f"{host} → {peer}, {path.network or 'underlay'}"
                yield replace(finding, where=where, host=host, peer=peer, network=path.network)


def _answered_astray(findings: list[Finding]) -> list[Finding]:
    """A host that leads what it sends astray does so with its answers: nothing is blocked there."""
    astray = {(f.host, f.peer, f.network) for f in findings if f.kind == "led-astray"}
    return [
        replace(
            f, kind="led-astray", hint=f"{f.peer} leads its answers astray: see what it sends to {f.host}"
        )
        if f.kind == "blocked" and (f.peer, f.host, f.network) in astray
        else f
        for f in findings
    ]


def _named(findings: list[Finding]) -> list[Finding]:
    """Where all blocked ways of a network are one host's, and it has several, that host is named."""
    blocked: dict[str, list[set[str]]] = defaultdict(list)
    for finding in findings:
        if finding.kind == "blocked":
            blocked[finding.network].append({finding.host, finding.peer})
    for network, ends in blocked.items():
        common = set.intersection(*ends)
        if len(common) == 1 and len(set.union(*ends)) > 2:
            hint = f"; every way that fails is {common.pop()}'s: look there first"
            findings = [
                replace(f, hint=f.hint + hint) if f.kind == "blocked" and f.network == network else f
                for f in findings
            ]
    return findings


def _of_path(path: PathCheck, below: PathCheck | None, vxlan_port: int) -> Finding | None:
    if path.way:
        return _astray(path)
    if path.note:
        return Finding(severity="fault", where="", what=path.note, kind="not-sent")
    if path.large is not None:
        return None
    if path.small is not None:
        return _narrow(path)
    what = f"{path.target} does not answer"
    if not path.network:
        hint = "Hosts need not answer pings, but must reach each other"
        return Finding(severity="warning", where="", what=what, hint=hint, kind="unreachable")
    if below is not None and below.small is not None:
        hint = f"The hosts reach each other: let UDP {path.port or vxlan_port} pass between them, both ways"
        if not path.tunnel:
            hint = UNTUNNELLED
        return Finding(severity="fault", where="", what=what, hint=hint, kind="blocked")
    hint = (
        "The hosts answer each other no pings either: look at the network between them, and let "
        f"UDP {path.port or vxlan_port} pass, both ways"
        if path.tunnel
        else "The hosts answer each other no pings either: look at the network between them"
    )
    return Finding(severity="fault", where="", what=what, hint=hint, kind="unreachable")


def _behind_nats(finding: Finding) -> Finding:
    if finding.kind not in ("unreachable", "blocked"):
        return finding
    hint = "Both are behind NAT: they meet on a link that they share, and nothing relays for them"
    return replace(finding, hint=hint, kind="behind-nats")


def _astray(path: PathCheck) -> Finding:
    """Answered or not: what a host sends elsewhere, it does not send by the network."""
    leads = "nowhere" if path.way == NOWHERE else f"by {path.way}"
    what = f"what is sent to {path.target} is led {leads}, not by the network's own link"
    hint = f"A route or rule that is not flota's is in the way: see `ip route get {path.target}` there"
    return Finding(severity="fault", where="", what=what, hint=hint, kind="led-astray")


def _narrow(path: PathCheck) -> Finding:
    what = f"packets of {path.size} bytes vanish, small ones pass"
    if not path.network:
        hint = "A link between the hosts carries less than their own; see the networks' lines"
        return Finding(severity="warning", where="", what=what, hint=hint, kind="narrow")
    hint = "The way between the hosts carries less than their links: make networks with a smaller --opt mtu="
    return Finding(severity="fault", where="", what=what, hint=hint, kind="narrow")


def _ways(check: HostCheck, names: Mapping[HostId, str]) -> Iterable[Way]:
    for path in check.paths:
        yield Way(
            host=_name(check.host, names),
            peer=_name(path.host, names),
            network=path.network,
            version=6 if ":" in path.target else 4,
            size=path.size,
            small=path.small,
            large=path.large,
        )
