"""`-p [IP:][HOST:]CONTAINER[/PROTO]`, ranges, and the long form of services. Pure."""

from __future__ import annotations

import re
from typing import cast

from model.errors import InvalidInput
from model.spec import Protocol, Publish

_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?\Z")
_PROTOCOLS = ("tcp", "udp", "sctp")


def parse_publish(text: str) -> list[Publish]:
    """One `-p` value; a range gives several. Raises InvalidInput."""
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if (slash and not protocol) or protocol not in _PROTOCOLS:
        raise InvalidInput(f"publish {text[:60]!r}: protocol must be tcp, udp or sctp")
    host_ip, published, target = _split(rest, text)
    targets = _range(target, text)
    if not published:
        hosts = [0] * len(targets)
    else:
        hosts = _range(published, text)
        if len(hosts) != len(targets):
            raise InvalidInput(f"publish {text[:60]!r}: the ranges differ in length")
    return [
        Publish(target=t, published=h, protocol=cast(Protocol, protocol), host_ip=host_ip)
        for h, t in zip(hosts, targets, strict=True)
    ]


def parse_service_publish(text: str) -> list[Publish]:
    """`mode=host,published=8080,target=80[,protocol=tcp]`, or the short form, which means ingress."""
    from msgspec.structs import replace

    if "=" not in text:
        return [replace(p, mode="ingress") for p in parse_publish(text)]
    words = dict(part.partition("=")[::2] for part in text.split(","))
    unknown = sorted(set(words) - {"mode", "published", "target", "protocol", "host_ip"})
    if unknown or "target" not in words:
        raise InvalidInput(
            f"publish {text[:80]!r}: {f'unknown word {unknown[0]!r}' if unknown else 'target is missing'}",
            hint="Write mode=host,published=8080,target=80",
        )
    mode = words.get("mode", "ingress")
    if mode not in ("host", "ingress"):
        raise InvalidInput(f"publish {text[:80]!r}: mode must be host or ingress")
    short = f"{words.get('published', '')}:{words['target']}/{words.get('protocol', 'tcp')}".lstrip(":")
    ip = words.get("host_ip", "")
    return [replace(p, mode=mode, host_ip=ip) for p in parse_publish(short)]


def _split(rest: str, text: str) -> tuple[str, str, str]:
    if rest.startswith("["):
        ip, bracket, tail = rest[1:].partition("]:")
        if not bracket:
            raise InvalidInput(f"publish {text[:60]!r}: the address is not closed by ]")
        published, _, target = tail.rpartition(":")
        return ip, published, target
    parts = rest.split(":")
    if len(parts) > 3:
        raise InvalidInput(
            f"publish {text[:60]!r}: too many colons", hint="Write an IPv6 address as [::1]:80:80"
        )
    ip, published, target = ["", "", "", *parts][-3:]
    return ip, published, target


def _range(text: str, whole: str) -> list[int]:
    match = _RANGE.match(text)
    first = int(match[1]) if match else 0
    last = int(match[2] or match[1]) if match else 0
    if not 1 <= first <= last <= 65535:
        raise InvalidInput(f"publish {whole[:60]!r}: {text[:20]!r} is no port or range from 1 to 65535")
    return list(range(first, last + 1))
