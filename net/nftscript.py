"""nft tables as values to nft's language and back: scripts, and what a listing says. Pure.

A rule carries its reason and a digest of its own text as comment; so a listing is compared without parsing
nft's expressions, and people see why each rule is there. Invariant: where only elements differ, the script
touches only those elements; everything in a script happens in one transaction, or not at all. And nothing in
a value becomes nft's language: what is no name, element or single line of it is refused, whoever said it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from model.errors import CommandFailed
from net.state import Chain, ElementSet, Family, NftTable, Rule

TABLE = "flota"
NOWHERE = "leads to a link that is gone"
_NAME = re.compile(r"[0-9A-Za-z_-]{1,127}\Z")
_WORD = r"(?:[0-9A-Za-z]|::)[0-9A-Za-z_:./-]*"
"""An address, prefix or range, MAC, link, protocol, number or number's range, as nft lists them."""
_KEY = re.compile(rf"{_WORD}(?: \. {_WORD})*\Z")
_DATA = re.compile(rf"(?:(?:jump|goto) {_WORD}|{_WORD}(?: \. {_WORD})*)\Z")


def table_script(family: Family, want: NftTable | None, have: NftTable | None) -> tuple[str, bool]:
    """The script that makes `want` of `have` ("" when nothing differs), and whether it remakes the table."""
    if want is None:
        return ("" if have is None else f"delete table {family} {TABLE}\n"), True
    if have is None or not same_frame(want, have) or not _removable(want.sets, have.sets):
        return "".join(f"{line}\n" for line in _whole(family, want)), True
    return "".join(f"{line}\n" for line in _elements(family, want.sets, have.sets)), False


def same_frame(want: NftTable, have: NftTable) -> bool:
    """Whether chains, rules and set definitions agree, whatever the elements."""
    return bool(_frame(want) == _frame(have))


def comment(rule: Rule) -> str:
    return f"{rule.why} #{hashlib.sha256(rule.text.encode()).hexdigest()[:8]}"


def elements_line(family: Family, name: str, elements: Mapping[str, str], verb: str) -> str:
    """`verb` is add or delete; nft wants no data in a delete. Raises CommandFailed for what is no element."""
    data = verb == "add"
    for key, value in elements.items():
        if not _KEY.match(key) or (data and value and not _DATA.match(value)):
            words = f"{key[:60]!r}{f' : {value[:60]!r}' if value else ''}"
            raise CommandFailed(
                f"table {TABLE} was not changed: {words} is no element of its set {name[:40]}"
            )
    words = ", ".join(f"{k} : {v}" if v and data else k for k, v in sorted(elements.items()))
    return f"{verb} element {family} {TABLE} {_named(name)} {{ {words} }}"


def parse_listing(listing: Mapping[str, Any]) -> NftTable:
    """The value of `nft -j list table`. Rules come back as their comments only (see `same_frame`)."""
    chains: dict[str, Chain] = {}
    rules: dict[str, list[Rule]] = {}
    sets: dict[str, ElementSet] = {}
    dormant = False
    for entry in listing.get("nftables", ()):
        if table := entry.get("table"):
            dormant = "dormant" in table.get("flags", ())
        elif chain := entry.get("chain"):
            chains[chain["name"]] = Chain(
                type=chain.get("type", ""),
                hook=chain.get("hook", ""),
                priority=int(chain.get("prio", 0)),
                policy=chain.get("policy", "accept"),
            )
        elif rule := entry.get("rule"):
            seen = Rule(text="", why=NOWHERE if _leads_nowhere(rule) else rule.get("comment", ""))
            rules.setdefault(rule["chain"], []).append(seen)
        elif found := entry.get("set") or entry.get("map"):
            sets[found["name"]] = ElementSet(
                type=_type(found["type"]),
                data=_type(found.get("map", "")),
                interval="interval" in found.get("flags", ()),
                filled=(filled := "timeout" if "timeout" in found.get("flags", ()) else ""),
                elements={} if filled else dict(_element(item) for item in found.get("elem", ())),
            )
    whole = {
        name: msgspec.structs.replace(chain, rules=tuple(rules.get(name, ())))
        for name, chain in chains.items()
    }
    return NftTable(chains=whole, sets=sets, dormant=dormant)


def _leads_nowhere(rule: Mapping[str, Any]) -> bool:
    """Rules know links by number; one that no link has any more is listed as such."""
    steps = (step.get("fwd", {}) for step in rule.get("expr", ()) if isinstance(step, dict))
    return any(str(step.get("dev", "")).isdigit() for step in steps)


def _frame(table: NftTable) -> Any:
    chains = {
        name: (c.type, c.hook, c.priority, c.policy, tuple(comment(r) if r.text else r.why for r in c.rules))
        for name, c in table.chains.items()
    }
    sets = {name: (s.type, s.data, s.interval, bool(s.filled)) for name, s in table.sets.items()}
    return table.dormant, chains, sets


def _whole(family: Family, table: NftTable) -> Iterable[str]:
    yield f"add table {family} {TABLE}"
    yield f"delete table {family} {TABLE}"
    yield f"table {family} {TABLE} {{"
    for name, found in table.sets.items():
        _named(name)
        kind, typed = ("map", f"{found.type} : {found.data}") if found.data else ("set", found.type)
        plain = f"type {typed}{'; flags interval' if found.interval else ''}"
        words = found.filled or found.declared or plain
        yield _line(f"  {kind} {name} {{ {words}; }}")
    for name, chain in table.chains.items():
        yield f"  chain {_named(name)} {{"
        if chain.hook:
            where = f'{chain.hook} device "{chain.device}"' if chain.device else chain.hook
            yield _line(
                f"    type {chain.type} hook {where} priority {chain.priority}; policy {chain.policy};"
            )
        for rule in chain.rules:
            yield _line(f'    {rule.text} comment "{_unquoted(comment(rule))}"')
        yield "  }"
    yield "}"
    for name, found in table.sets.items():
        if found.elements:
            yield elements_line(family, name, found.elements, "add")


def _elements(
    family: Family, want: Mapping[str, ElementSet], have: Mapping[str, ElementSet]
) -> Iterable[str]:
    for name, wanted in want.items():
        now, then = wanted.elements, have[name].elements
        if now is then:
            continue
        gone = {key: value for key, value in then.items() if now.get(key) != value}
        new = {key: value for key, value in now.items() if then.get(key) != value}
        if gone:
            yield elements_line(family, name, gone, "delete")
        if new:
            yield elements_line(family, name, new, "add")


def _removable(want: Mapping[str, ElementSet], have: Mapping[str, ElementSet]) -> bool:
    """Whether what has to go can be said; a stranger's element that can't goes with the whole table."""
    return all(
        _KEY.match(key)
        for name, wanted in want.items()
        if wanted.elements is not have[name].elements
        for key in have[name].elements.keys() - wanted.elements.keys()
    )


def _named(name: str) -> str:
    if not _NAME.match(name):
        raise CommandFailed(f"table {TABLE} was not changed: {name[:60]!r} is no name")
    return name


def _line(text: str) -> str:
    if not text.isprintable():
        raise CommandFailed(f"table {TABLE} was not changed: {text[:80]!r} is not one line")
    return text


def _unquoted(text: str) -> str:
    if '"' in text:
        raise CommandFailed(f"table {TABLE} was not changed: {text[:80]!r} is no comment")
    return text


def _type(found: Any) -> str:
    return " . ".join(found) if isinstance(found, list) else str(found)


def _element(item: Any) -> tuple[str, str]:
    if isinstance(item, list):
        return _words(item[0]), _words(item[1])
    return _words(item), ""


def _words(item: Any) -> str:
    """One element in nft's own notation, as `_elements` and the planner write it."""
    if isinstance(item, dict):
        if "elem" in item:
            return _words(item["elem"]["val"])
        if "concat" in item:
            return " . ".join(_words(part) for part in item["concat"])
        if "prefix" in item:
            return f"{item['prefix']['addr']}/{item['prefix']['len']}"
        if "range" in item:
            return "-".join(_words(part) for part in item["range"])
        for verdict in ("jump", "goto"):
            if verdict in item:
                return f"{verdict} {item[verdict]['target']}"
    return str(item)
