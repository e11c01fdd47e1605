"""Ports between Docker's maps (`80/tcp` → bindings) and ours. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from api.docker.containers.body import Binding
from model.errors import InvalidInput
from model.spec import Protocol, Publish
from model.status import BoundPort

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?\Z")
_PROTOCOLS = ("tcp", "udp", "sctp")


def published(bindings: Mapping[str, tuple[Binding, ...] | None]) -> tuple[Publish, ...]:
    """HostConfig.PortBindings. A port without bindings is none. Raises InvalidInput."""
    found: list[Publish] = []
    for text, wishes in bindings.items():
        target, last, protocol = _target(text)
        if target != last:
            raise InvalidInput(
                f"invalid port specification: '{text[:40]}': a range has no bindings of its own"
            )
        for wish in wishes or ():
            first, end = _range(wish.host_port) if wish.host_port else (0, 0)
            found.append(
                Publish(
                    target=target,
                    published=first,
                    published_to=end if end != first else 0,
                    protocol=protocol,
                    host_ip=wish.host_ip,
                )
            )
    return tuple(found)


def exposed(ports: Iterable[str]) -> tuple[str, ...]:
    """Config.ExposedPorts. Raises InvalidInput."""
    for text in ports:
        _target(text)
    return tuple(ports)


def _target(text: str) -> tuple[int, int, Protocol]:
    number, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in _PROTOCOLS:
        raise InvalidInput(f"invalid port specification: '{text[:40]}': invalid proto: {protocol[:20]}")
    return *_range(number), cast(Protocol, protocol)


def _range(text: str) -> tuple[int, int]:
    match = _PORT.match(text)
    first = int(match[1]) if match else 0
    last = int(match[2] or match[1]) if match else 0
    if not 1 <= first <= last <= 65535:
        raise InvalidInput(f"invalid port specification: '{text[:40]}'")
    return first, last


def key(target: int, protocol: str) -> str:
    return f"{target}/{protocol}"


def bindings(ports: Iterable[Publish]) -> dict[str, Any]:
    """As HostConfig.PortBindings shows what was asked for."""
    found: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        number = str(port.published) if port.published else ""
        if port.published_to:
            number += f"-{port.published_to}"
        wish = {"HostIp": port.host_ip, "HostPort": number}
        found.setdefault(key(port.target, port.protocol), []).append(wish)
    return found


def bound(ports: Iterable[BoundPort], exposing: Iterable[str]) -> dict[str, Any]:
    """As NetworkSettings.Ports shows what stands; null for a port that is exposed and not bound."""
    found: dict[str, Any] = {}
    for text in exposing:
        try:
            first, last, protocol = _target(text)
        except InvalidInput:  # of an image, whose words are not ours to judge
            continue
        found.update(dict.fromkeys((key(port, protocol) for port in range(first, last + 1)), None))
    for port in ports:
        at = key(port.target, port.protocol)
        found[at] = [*(found.get(at) or ()), *_stands(port)]
    return found


def _stands(port: BoundPort) -> list[dict[str, str]]:
    addresses = [port.host_ip] if port.host_ip else ["0.0.0.0", "::"]  # noqa: S104 (shown, not bound)
    return [{"HostIp": address, "HostPort": str(port.published)} for address in addresses]


def listed(ports: Iterable[BoundPort], exposing: Iterable[str]) -> list[dict[str, Any]]:
    """As a list of containers shows them."""
    found: list[dict[str, Any]] = []
    for at, stands in bound(ports, exposing).items():
        target, _, protocol = at.partition("/")
        base = {"PrivatePort": int(target), "Type": protocol}
        if not stands:
            found.append(base)
        for one in stands or ():
            found.append({"IP": one["HostIp"], **base, "PublicPort": int(one["HostPort"])})
    return found
