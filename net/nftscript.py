"""nft tables as values to nft's language and back: scripts, and what a listing says. Pure.

A rule carries its reason and a digest of its own text as comment; so a listing is compared without parsing
nft's expressions, and people see why each rule is there. Invariant: where only elements differ, the script
touches only those elements; everything in a script happens in one transaction, or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from net.state import Chain, ElementSet, Family, NftTable, Rule

TABLE = "flota"


def table_script(family: Family, want: NftTable | None, have: NftTable | None) -> tuple[str, bool]:
    """The script that makes `want` of `have` ("" when nothing differs), and whether it remakes the table."""
    if want is None:
        return ("" if have is None else f"delete table {family} {TABLE}\n"), True
    if have is None or not same_frame(want, have):
        return "".join(f"{line}\n" for line in _whole(family, want)), True
    return "".join(f"{line}\n" for line in _elements(family, want.sets, have.sets)), False


def same_frame(want: NftTable, have: NftTable) -> bool:
    """Whether chains, rules and set definitions agree, whatever the elements."""
    return bool(_frame(want) == _frame(have))


def comment(rule: Rule) -> str:
    return f"{rule.why} #{hashlib.sha256(rule.text.encode()).hexdigest()[:8]}"


def elements_line(family: Family, name: str, elements: Mapping[str, str], verb: str) -> str:
    """`verb` is add or delete; nft wants no data in a delete."""
    data = verb == "add"
    words = ", ".join(f"{k} : {v}" if v and data else k for k, v in sorted(elements.items()))
    return f"{verb} element {family} {TABLE} {name} {{ {words} }}"


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
            seen = Rule(text="", why=rule.get("comment", ""))
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
        kind, typed = ("map", f"{found.type} : {found.data}") if found.data else ("set", found.type)
        plain = f"type {typed}{'; flags interval' if found.interval else ''}"
        words = found.filled or found.declared or plain
        yield f"  {kind} {name} {{ {words}; }}"
    for name, chain in table.chains.items():
        yield f"  chain {name} {{"
        if chain.hook:
            yield f"    type {chain.type} hook {chain.hook} priority {chain.priority}; policy {chain.policy};"
        for rule in chain.rules:
            yield f'    {rule.text} comment "{comment(rule)}"'
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
