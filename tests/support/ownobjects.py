"""All that is flota's in a host's kernel, found by its marks and not by what we know to have made, and how a
stranger would delete each.

Marks: namespaces by where they are mounted; links by name and alias, and what stands on them; routes and
rules by their protocol; tables by name. A kind of object that `net.diff` can make must be found here
(tests/unit/test_own_objects.py).
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from net.diff import Item
from net.naming import ALIAS, PREFIXES, VETH
from net.state import (
    PROTOCOL,
    Address,
    Admission,
    Detour,
    Fdb,
    Limit,
    Link,
    Neighbour,
    PolicyRule,
    Route,
    Steering,
    Sysctl,
    TunnelPeer,
    Way,
)

Run = Callable[[Sequence[str]], str]
"""A command on the host; its output. Raises when it fails."""
KINDS: Mapping[type[Item], str] = {
    Link: "link",
    Address: "address",
    Neighbour: "neighbour",
    Fdb: "fdb",
    Route: "route",
    PolicyRule: "rule",
    Limit: "qdisc",
    Detour: "filter",
}
NOT_OBJECTS: Mapping[type[Item], str] = {
    Sysctl: "a switch is set, not deleted (tests/kernel/test_drift.py)",
    Steering: "a file of a link's (tests/kernel/test_drift.py)",
    Way: "inside a container's namespace",
    TunnelPeer: "known to its device alone (tests/kernel/test_encrypted_networks.py)",
    Admission: "a rule in Docker's chain (tests/kernel/test_docker_chain.py)",
}
TABLES = ("flota", "flota_services")


@dataclass(frozen=True, order=True)
class Owned:
    kind: str
    name: str
    """As it will be called when it is back: without handles, numbers and counters."""
    delete: tuple[str, ...]


def owned(run: Run) -> list[Owned]:
    """Everything, in a stable order, each name once."""
    kinds = (_namespaces, _links, _layer3, _shaping, _nft)
    found = {(one.kind, one.name): one for kind in kinds for one in kind(run)}
    return [found[key] for key in sorted(found)]


def names(objects: Iterable[Owned]) -> frozenset[str]:
    return frozenset(f"{one.kind} {one.name}" for one in objects)


def _namespaces(run: Run) -> Iterator[Owned]:
    """Of containers, by the mounts that hold them."""
    for line in run(("cat", "/proc/self/mountinfo")).splitlines():
        fields = line.split()
        root, place = fields[3], fields[4]
        if root.startswith("net:[") and "/flota/" in place:
            yield Owned("namespace", f"{place} {root}", ("umount", place))


# -- links and what stands on them --------------------------------------------------------------------------
def _json(run: Run, *words: str) -> list[dict[str, Any]]:
    text = run(words)
    return json.loads(text) if text.strip() else []


def _own_links(run: Run) -> list[dict[str, Any]]:
    links = _json(run, "ip", "-j", "-d", "link")
    return [link for link in links if _is_own(link["ifname"], link.get("ifalias", ""))]


def _is_own(name: str, alias: str) -> bool:
    return name.startswith(PREFIXES) and alias.startswith(ALIAS)


def _links(run: Run) -> Iterator[Owned]:
    ours = _own_links(run)
    for link in ours:
        name = link["ifname"]
        yield Owned("link", f"{name} mtu {link['mtu']} master {link.get('master', '')}",
                    ("ip", "link", "del", name))  # fmt: skip
    stands = {link["ifname"] for link in ours if not link["ifname"].startswith(VETH)}
    for link in _json(run, "ip", "-j", "address"):
        for held in link.get("addr_info", ()) if link.get("ifname") in stands else ():
            if held.get("scope") == "link":
                continue
            cidr = f"{held['local']}/{held['prefixlen']}"
            yield Owned("address", f"{cidr} on {link['ifname']}",
                        ("ip", "address", "del", cidr, "dev", link["ifname"]))  # fmt: skip
    for entry in _json(run, "ip", "-j", "neigh", "show", "nud", "permanent"):
        if entry["dev"] in stands and "lladdr" in entry:
            yield Owned("neighbour", f"{entry['dst']} {entry['lladdr']} on {entry['dev']}",
                        ("ip", "neigh", "del", entry["dst"], "dev", entry["dev"]))  # fmt: skip
    for entry in _json(run, "bridge", "-j", "fdb"):
        if entry.get("ifname") in stands and "dst" in entry and entry.get("state") == "permanent":
            mac, dev, dst = entry["mac"], entry["ifname"], entry["dst"]
            yield Owned("fdb", f"{mac} to {dst} on {dev}",
                        ("bridge", "fdb", "del", mac, "dev", dev, "dst", dst))  # fmt: skip


# -- routes and rules ---------------------------------------------------------------------------------------
_CHANGES = re.compile(r" (linkdown|dead|pref \w+|expires \d+sec|\[detached\])")


def _layer3(run: Run) -> Iterator[Owned]:
    for family in ("-4", "-6"):
        routes = run(("ip", family, "route", "show", "table", "all", "proto", str(PROTOCOL)))
        for line in routes.splitlines():
            words = _CHANGES.sub("", line).split()
            yield Owned("route", f"{family} {' '.join(words)}", ("ip", family, "route", "del", *words))
        for line in run(("ip", family, "rule")).splitlines():
            priority, _, rest = line.partition(":")
            if f"proto {PROTOCOL}" in rest:
                yield Owned("rule", f"{family} {priority} {rest.strip()}",
                            ("ip", family, "rule", "del", "priority", priority))  # fmt: skip


# -- limits -------------------------------------------------------------------------------------------------
def _shaping(run: Run) -> Iterator[Owned]:
    ours = {link["ifname"] for link in _own_links(run)}
    for line in run(("tc", "qdisc")).splitlines():
        _, kind, _, _, name, *rest = line.split()
        if name not in ours or kind not in ("tbf", "ingress"):
            continue
        place = "ingress" if kind == "ingress" else "root"
        yield Owned("qdisc", f"{kind} of {name} {' '.join(rest)}", ("tc", "qdisc", "del", "dev", name, place))
        if kind == "ingress":
            told = run(("tc", "filter", "show", "dev", name, "ingress"))
            for action in re.findall(r"action order 1: (.*)", told):
                words = ("tc", "filter", "del", "dev", name, "ingress")
                yield Owned("filter", f"{action} of {name}", words)


# -- nft ----------------------------------------------------------------------------------------------------
def _nft(run: Run) -> Iterator[Owned]:
    """Chains and sets are named with what is in them where that can't be deleted by itself."""
    for entry in _json_nft(run, "list", "tables"):
        table = entry.get("table")
        if table is None or table["name"] not in TABLES:
            continue
        at = (table["family"], table["name"])
        yield Owned("nft table", " ".join(at), ("nft", "delete", "table", *at))
        listing = _json_nft(run, "list", "table", *at)
        text = json.dumps(listing)
        idle = {
            entry["chain"]["name"]
            for entry in listing
            if "chain" in entry and "hook" not in entry["chain"]
            if f'"target": "{entry["chain"]["name"]}"' not in text
        }
        for inner in listing:
            ((kind, body),) = inner.items()
            if body.get("chain", body.get("name")) in idle:
                continue  # nothing leads there any more
            if kind == "chain":
                hooked = f" {body['hook']} {body['prio']} {body['policy']}" if "hook" in body else ""
                name = f"{' '.join(at)} {body['name']}{hooked}"
                yield Owned("nft chain", name, ("nft", "flush", "chain", *at, body["name"]))
            elif kind == "rule":
                yield _nft_rule(at, body)
            elif kind in ("set", "map"):
                yield from _nft_set(at, kind, body)


def _nft_rule(at: tuple[str, str], body: dict[str, Any]) -> Owned:
    words = json.dumps(_without_counters(body["expr"]), sort_keys=True)
    name = f"{' '.join(at)} {body['chain']} {body.get('comment', '')} {words}"
    return Owned(
        "nft rule", name, ("nft", "delete", "rule", *at, body["chain"], "handle", str(body["handle"]))
    )


def _nft_set(at: tuple[str, str], kind: str, body: dict[str, Any]) -> Iterator[Owned]:
    name = body["name"]
    yield Owned("nft set", f"{' '.join(at)} {name}", ("nft", "flush", kind, *at, name))
    if {"dynamic", "timeout"} & set(body.get("flags", ())):
        return
    for element in body.get("elem", ()):
        key, value = (element[0], element[1]) if kind == "map" else (element, None)
        text = _element(key)
        data = "" if value is None else f" : {json.dumps(value, sort_keys=True)}"
        yield Owned("nft element", f"{' '.join(at)} {name} {text}{data}",
                    ("nft", "delete", "element", *at, name, f"{{ {text} }}"))  # fmt: skip


def _element(key: Any) -> str:
    """In nft's own notation."""
    match key:
        case {"concat": parts}:
            return " . ".join(map(_element, parts))
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case {"range": [first, last]}:
            return f"{_element(first)}-{_element(last)}"
        case {"elem": {"val": value}}:
            return _element(value)
        case _:
            return str(key) if _plain(str(key)) else f'"{key}"'


def _plain(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
        return True
    except ValueError:
        return bool(re.fullmatch(r"[\w:.]+", text)) and not text.startswith(PREFIXES)


def _without_counters(value: Any) -> Any:
    match value:
        case {"counter": _}:
            return "counter"
        case dict():
            return {key: _without_counters(inner) for key, inner in value.items()}
        case list():
            return [_without_counters(inner) for inner in value]
        case _:
            return value


def _json_nft(run: Run, *words: str) -> list[dict[str, Any]]:
    return [e for e in json.loads(run(("nft", "-j", *words)))["nftables"] if "metainfo" not in e]
