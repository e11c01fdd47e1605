"""Our rules in DOCKER-USER, the chain that Docker keeps for rules of others. Pure.

Docker Engine sets the policy of its FORWARD chain to drop, and a drop is final, so nothing of ours would pass
on its hosts. This is the one exception to touching marked objects only: rules marked as ours, behind the
user's own, whose drops stay final, and before the chain's last RETURN. They accept what is ours to judge,
which the table `flota` does; what our containers send to Docker's bridges stays Docker's to judge. None of
them stands where ufw drops too: its chains come after Docker's, and what it closes stays closed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from itertools import pairwise

from net.naming import BRIDGE, VXLAN, WIREGUARD
from net.state import Admission, AdmissionFamily

CHAIN = "DOCKER-USER"
MARK = "flota"
"""The comment of our rules."""
_RETURN = ["-j", "RETURN"]
UFW = ("ufw-", "ufw6-")
"""How its chains are called."""


def older_kind(tables: str, program: str | None) -> bool:
    """Whether the older kind of iptables, with these `tables` (/proc/net/ip_tables_names), may have rules of
    Docker's, which makes them by the same `program`."""
    return program is not None and "filter" in tables.split()


def wanted(listing: str, family: AdmissionFamily) -> Admission | None:
    """By what `iptables -S` lists; None where there is no such chain, or nothing is dropped for want of a
    rule, or where ufw has a say of its own."""
    rules = _split(listing)
    if ["-N", CHAIN] not in rules or ["-P", "FORWARD", "DROP"] not in rules:
        return None
    if any(words[:2] == ["-A", "FORWARD"] and words[-1].startswith(UFW) for words in rules):
        return None
    return Admission(family=family, past=tuple(sorted(_bridges(rules))))


def seen(listing: str, family: AdmissionFamily) -> Admission | None:
    """What of ours stands there, in whatever order."""
    chain = _chain(listing)
    ours = [words for words in chain if _is_ours(words)]
    if not ours:
        return None
    past = tuple(
        sorted({words[words.index("-o") + 1] for words in ours if words[-1] == "RETURN" and "-o" in words})
    )
    found = Admission(family=family, past=past)
    others = [words for words in chain if not _is_ours(words)]
    at = _place(others)
    sound = chain == [*others[:at], *_rules(found), *others[at:]]
    return found if sound else Admission(family=family, past=past, sound=False)


def script(listing: str, admission: Admission | None) -> str:
    """For `iptables-restore --noflush`, which does all of it or nothing; None: ours are to go."""
    chain = _chain(listing)
    lines = [f"-D {CHAIN} {shlex.join(words)}" for words in chain if _is_ours(words)]
    if admission is not None:
        at = _place([words for words in chain if not _is_ours(words)]) + 1
        lines += [
            f"-I {CHAIN} {at + number} {shlex.join(words)}" for number, words in enumerate(_rules(admission))
        ]
    return "\n".join(("*filter", *lines, "COMMIT", ""))


def _rules(admission: Admission) -> list[list[str]]:
    """As `iptables -S` writes them."""
    links, mark = (
        [f"{prefix}+" for prefix in (BRIDGE, VXLAN, WIREGUARD)],
        ["-m", "comment", "--comment", MARK],
    )
    docker = [["-i", link, "-o", past, *mark, *_RETURN] for past in admission.past for link in links]
    ours = [[way, link, *mark, "-j", "ACCEPT"] for link in links for way in ("-i", "-o")]
    return [*docker, *ours]


def _place(others: Sequence[list[str]]) -> int:
    """How many rules of others ours come behind."""
    return len(others) - 1 if others and others[-1] == _RETURN else len(others)


def _bridges(rules: Iterable[list[str]]) -> Iterable[str]:
    """Those of Docker's own rules `-o BRIDGE -j DOCKER`, in whichever chain an engine has them."""
    for words in rules:
        if words[:1] == ["-A"] and words[-2:] == ["-j", "DOCKER"] and words[2:3] == ["-o"]:
            yield words[3]


def _is_ours(words: Sequence[str]) -> bool:
    return ("--comment", MARK) in pairwise(words)


def _chain(listing: str) -> list[list[str]]:
    """The chain's rules, without its name."""
    return [words[2:] for words in _split(listing) if words[:2] == ["-A", CHAIN]]


def _split(listing: str) -> list[list[str]]:
    return [shlex.split(line) for line in listing.splitlines()]
