"""What a host firewall that lets translated connections pass would say of a published port. Pure.

firewalld accepts whatever was translated (`ct status dnat`), so it never judges a published port. Its rules
for what comes in are therefore read and asked before we translate: what they would refuse is not translated,
and firewalld itself answers. Invariant: what is not understood never opens anything. A rule that accepts by a
condition unknown here is passed over; one that refuses, or leads elsewhere, refuses by those that are known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from model.spec import Struct
from net.naming import BRIDGE, VXLAN, WIREGUARD
from net.state import Admission, Chain, Rule, rule

TABLE = "firewalld"
"""Of family inet; as firewalld 0.9 to 2.x make it with FirewallBackend=nftables."""
ENTRANCE = "filter_INPUT"
OUTSIDE, GATE = "outside", "gate-"
"""Our chains: the one that strangers enter, and, with a number behind, those that repeat firewalld's."""
_WORD = re.compile(r"[\w.:/+-]+\*?")
_META = frozenset({"iifname", "nfproto", "l4proto"})
_PAYLOAD = frozenset(
    {("ether", "saddr")}
    | {(family, end) for family in ("ip", "ip6") for end in ("saddr", "daddr")}
    | {(transport, end) for transport in ("tcp", "udp", "sctp", "th") for end in ("sport", "dport")}
)
_NEVER_PUBLISHED = frozenset({"icmp", "icmpv6", "igmp", "esp", "ah", "dccp", "udplite"})
_VERDICTS = frozenset({"accept", "drop", "reject", "return", "jump", "goto"})
_SILENT = frozenset({"counter", "log"})


class Step(Struct):
    """A rule of firewalld's, as far as it matters: conditions in nft's words, and what follows."""

    match: str
    verdict: str
    """accept, refuse, return, `jump N`, `goto N` (N: a chain's number)."""


class HostFirewall(Struct):
    """firewalld's `chains` by number, what comes in enters at the first; none: nobody decides beside us."""

    chains: tuple[tuple[Step, ...], ...] = ()
    admissions: tuple[Admission, ...] = ()
    """What must stand in Docker's chain (`net.dockeruser`)."""
    alone: bool = False
    """Nobody but us filters what passes, and this kernel knows shortcuts (`net.shortcuts`)."""
    unrouted: Mapping[str, tuple[str, ...]] = {}
    """By family's digit: links between which the host did not route before flota."""


NO_FIREWALL = HostFirewall()


def heard(listing: str, stands: Callable[[], bool]) -> HostFirewall:
    """`read` of a listing as text, "" where there was none: then everything is refused, as long as the table
    `stands`."""
    try:
        return read(json.loads(listing))
    except ValueError:
        return read({}) if stands() else NO_FIREWALL


def read(listing: Mapping[str, Any]) -> HostFirewall:
    """Of `nft -j list table inet firewalld`. Chains without a step, and jumps there, are left out. A table
    without the chain where it is entered refuses everything."""
    rules: dict[str, list[Any]] = {}
    for entry in listing.get("nftables", ()):
        if "rule" in entry:
            rules.setdefault(entry["rule"]["chain"], []).append(entry["rule"]["expr"])
    if ENTRANCE not in rules:
        return HostFirewall(chains=((Step(match="", verdict="refuse"),),))
    steps: dict[str, tuple[Step, ...]] = {}
    _steps(ENTRANCE, rules, steps)
    chains = {name: found for name, found in reversed(steps.items()) if found or name == ENTRANCE}
    numbers = {name: number for number, name in enumerate(chains)}
    return HostFirewall(
        chains=tuple(tuple(_numbered(step, numbers) for step in found) for found in chains.values())
    )


def gate(firewall: HostFirewall, inside: str, first: Iterable[Rule] = ()) -> Mapping[str, Chain]:
    """Chains by which what comes from outside enters the chain `inside` if firewalld would accept it, and
    passes by translation if not; by `OUTSIDE`, whose rules begin with `first`. None without a firewall.
    Containers are no strangers: networks and policies say whom they reach."""
    if not firewall.chains:
        return {}
    verdicts = {"accept": f"goto {inside}", "refuse": "accept", "return": "return"}
    outside = (
        *first,
        # One by one: of flw* and flx* in a set nft 1.0 makes a range, and ends the process that lists it.
        *(rule(f'iifname "{prefix}*" goto {inside}', "containers") for prefix in (BRIDGE, VXLAN, WIREGUARD)),
        rule(f"goto {GATE}0", "firewalld decides about the rest"),
    )
    return {OUTSIDE: Chain(rules=outside)} | {
        f"{GATE}{number}": Chain(rules=tuple(_repeated(step, verdicts) for step in steps))
        for number, steps in enumerate(firewall.chains)
    }


def _repeated(step: Step, verdicts: Mapping[str, str]) -> Rule:
    word, _, number = step.verdict.partition(" ")
    verdict = f"{word} {GATE}{number}" if number else verdicts[word]
    return rule(f"{step.match} {verdict}".strip(), "as firewalld")


def _steps(chain: str, rules: Mapping[str, list[Any]], into: dict[str, tuple[Step, ...]]) -> None:
    """Depth first, so that a chain comes after those it leads to. Chains that are empty are entered too."""
    found: list[Step] = []
    for expression in rules.get(chain, ()):
        step = _step(expression)
        if step is None:
            continue
        word, _, target = step.verdict.partition(" ")
        if target and target not in into:
            _steps(target, rules, into)
        if target and not into[target]:
            if word == "goto":
                found.append(Step(match=step.match, verdict="return"))
            continue
        found.append(step)
    into[chain] = tuple(found)


def _numbered(step: Step, numbers: Mapping[str, int]) -> Step:
    word, _, target = step.verdict.partition(" ")
    return Step(match=step.match, verdict=f"{word} {numbers[target]}") if target else step


def _step(expression: Iterable[Mapping[str, Any]]) -> Step | None:
    """None: it says nothing about published ports."""
    known: list[str] = []
    understood, verdict = True, ""
    for part in expression:
        ((kind, body),) = part.items()
        if kind == "match":
            if _protocol(body["left"]) in _NEVER_PUBLISHED:
                return None
            words = _condition(body)
            known += [words] if words else []
            understood = understood and bool(words)
        elif kind in _VERDICTS:
            target = f" {body['target']}" if kind in ("jump", "goto") else ""
            verdict = {"drop": "refuse", "reject": "refuse"}.get(kind, f"{kind}{target}")
        elif kind not in _SILENT:
            understood = False
    if not verdict or (verdict == "accept" and not understood):
        return None
    return Step(match=" ".join(known), verdict=verdict if understood else "refuse")


def _protocol(left: Any) -> str:
    return str(left["payload"].get("protocol", "")) if isinstance(left, dict) and "payload" in left else ""


def _condition(match: Mapping[str, Any]) -> str:
    """In nft's language; "" for one that is not understood."""
    left, right = _left(match["left"]), _right(match["right"])
    if not left or not right or match["op"] not in ("==", "!=", "in"):
        return ""
    if left == "meta iifname":  # no name is taken for a word of the language
        right = re.sub(_WORD, lambda name: f'"{name[0]}"', right)
    return f"{left} {'!= ' if match['op'] == '!=' else ''}{right}"


def _left(left: Any) -> str:
    match left:
        case {"meta": {"key": str(key)}} if key in _META:
            return f"meta {key}"
        case {"ct": {"key": "state" | "status" as key}}:
            return f"ct {key}"
        case {"payload": {"protocol": str(protocol), "field": str(field)}} if (protocol, field) in _PAYLOAD:
            return f"{protocol} {field}"
    return ""


def _right(right: Any) -> str:
    match right:
        case bool():
            return ""
        case int():
            return str(right)
        case str():
            return right if _WORD.fullmatch(right) else ""
        case {"prefix": {"addr": str(address), "len": int(length)}} if _WORD.fullmatch(address):
            return f"{address}/{length}"
        case {"range": [low, high]}:
            ends = tuple(_plain((low, high)))
            return "-".join(ends) if all(ends) else ""
        case {"set": list(items)} | list(items):
            words = [_right(item) for item in items]
            return f"{{ {', '.join(words)} }}" if words and all(words) else ""
    return ""


def _plain(items: Iterable[Any]) -> Iterator[str]:
    for item in items:
        yield str(item) if isinstance(item, int | str) and _WORD.fullmatch(str(item)) else ""
