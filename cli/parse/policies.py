"""`--for`, `--ingress` and `--egress` of policies, a port to explain, and whole policies in files. Pure."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any, cast, get_args

from msgspec.structs import replace

from model.codec import convert_strict
from model.errors import InvalidInput
from model.policy import PolicyPeer, PolicyPort, PolicyProtocol, PolicyRule, PolicySpec, Selector

_FOR = "Write all, or service=NAME, container=NAME, network=NAME, label=KEY[=VALUE]"
_RULE = (
    "Write deny, allow, or allow=PEER[,allow=PEER…][,port=80[-90][/tcp]…]; a PEER is service:NAME, "
    "container:NAME, network:NAME, label:KEY=VALUE, cidr:RANGE (then except=RANGE) or outside"
)
_PROTOCOLS = get_args(PolicyProtocol)


def selector(texts: Sequence[str]) -> Selector:
    """All words of all `--for` must hold. Raises InvalidInput."""
    words = [word for text in texts for word in text.split(",") if word]
    if words == ["all"]:
        return Selector()
    found: dict[str, Any] = {"labels": {}}
    for word in words:
        key, _, value = word.partition("=")
        if key == "label" and value:
            name, _, wanted = value.partition("=")
            found["labels"][name] = wanted
        elif key in ("service", "container", "network") and value:
            if key in found:
                raise InvalidInput(f"{key} is given twice: nothing is both", hint="Make two policies")
            found[key] = value
        else:
            raise InvalidInput(f"{word[:80]!r} selects nothing", hint=_FOR)
    return Selector(**found)


def rules(texts: Sequence[str]) -> tuple[PolicyRule, ...]:
    """Of one direction: `deny` alone, `allow`, or a rule each. Raises InvalidInput."""
    if "deny" in texts:
        if len(texts) > 1:
            raise InvalidInput(
                "deny excludes rules of the same direction", hint="What no rule allows is denied"
            )
        return ()
    return tuple(rule(text) for text in texts)


def rule(text: str) -> PolicyRule:
    """`allow=service:api,port=80/tcp`. Raises InvalidInput."""
    if text == "allow":
        return PolicyRule()
    peers: list[PolicyPeer] = []
    ports: list[PolicyPort] = []
    for word in filter(None, text.split(",")):
        key, equals, value = word.partition("=")
        if key == "allow" and (not equals or value == "any"):
            continue
        if key == "allow" and value:
            peers.append(_peer(value))
        elif key == "except" and value and peers and peers[-1].cidr:
            peers[-1] = replace(peers[-1], without=(*peers[-1].without, value))
        elif key == "port" and value:
            ports.append(port(value))
        else:
            raise InvalidInput(f"rule {text[:80]!r}: {word[:40]!r} makes no sense", hint=_RULE)
    if not text.startswith("allow"):
        raise InvalidInput(f"rule {text[:80]!r} does not say allow", hint=_RULE)
    return PolicyRule(peers=tuple(peers), ports=tuple(ports))


def _peer(text: str) -> PolicyPeer:
    kind, _, value = text.partition(":")
    fields: dict[str, Any] = {kind: value}
    if text == "outside":
        return PolicyPeer(outside=True)
    if kind == "label" and value:
        name, _, wanted = value.partition("=")
        return PolicyPeer(labels={name: wanted})
    if kind in ("service", "container", "network", "cidr") and value:
        return PolicyPeer(**fields)
    raise InvalidInput(f"{text[:80]!r} is no peer", hint=_RULE)


def port(text: str) -> PolicyPort:
    """`80`, `80/udp`, `8000-8010/tcp`, `icmp`. Raises InvalidInput."""
    if text in _PROTOCOLS:
        return PolicyPort(protocol=cast("PolicyProtocol", text))
    numbers, _, protocol = text.partition("/")
    first, _, last = numbers.partition("-")
    if protocol not in ("", *_PROTOCOLS) or not (first.isdecimal() and (last.isdecimal() or not last)):
        raise InvalidInput(f"port {text[:40]!r}", hint="Write 80, 80/udp, 8000-8010/tcp, icmp")
    return PolicyPort(port=int(first), to=int(last or 0), protocol=cast("PolicyProtocol", protocol or "tcp"))


def from_file(name: str, text: str) -> PolicySpec:
    """A whole policy in JSON, TOML or YAML, as `flota policy inspect` shows its spec. Raises InvalidInput."""
    return convert_strict(_plain(name, text), PolicySpec, name)


def _plain(name: str, text: str) -> Any:
    """By the file's name where that says which; else what does not begin as JSON is TOML if it can be."""
    from cli.parse.yaml12 import parse_yaml  # a hundredth of a second that most commands do without

    if name.endswith((".yaml", ".yml")):
        return parse_yaml(name, text)
    try:
        return json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except RecursionError as error:
        raise InvalidInput(f"{name[:80]} is nested too deep") from error
    except ValueError as error:
        if not name.endswith((".json", ".toml")) and isinstance(found := parse_yaml(name, text), dict):
            return found
        raise InvalidInput(f"{name[:80]} is none of JSON, TOML and YAML: {error}") from error


def unset(spec: PolicySpec, flags: dict[str, Any]) -> Iterator[str]:
    """What `policy create` needs and nobody gave."""
    if not flags["selects"]:
        yield "--for"
    if spec.ingress is None and spec.egress is None:
        yield "--ingress or --egress"
