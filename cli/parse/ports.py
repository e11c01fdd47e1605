"""`-p [IP:][HOST:]CONTAINER[/PROTO]`, ranges, and the long form of services. Pure."""

from __future__ import annotations

import re
from typing import cast

from msgspec.structs import replace

from model.errors import InvalidInput
from model.spec import Protocol, Publish

_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?\Z")
_PROTOCOLS = ("tcp", "udp", "sctp")


def parse_publish(text: str) -> list[Publish]:
    """One `-p` value, short or long; a range gives several. Raises InvalidInput."""
    return _long(text, "host") if "=" in text else _short(text)


def parse_service_publish(text: str) -> list[Publish]:
    """`published=8080,target=80[,mode=host][,on=CONSTRAINT]`, or the short form; both mean ingress."""
    if "=" in text:
        return _long(text, "ingress")
    return [replace(port, mode="ingress") for port in _short(text)]


def _short(text: str) -> list[Publish]:
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if (slash and not protocol) or protocol not in _PROTOCOLS:
        raise InvalidInput(f"publish {text[:60]!r}: protocol must be tcp, udp or sctp")
    host_ip, published, target = _split(rest, text)
    targets = _range(target, text)
    hosts = _range(published, text) if published else [0] * len(targets)
    kind = cast(Protocol, protocol)
    if len(targets) == 1 and len(hosts) > 1:
        one = Publish(target=targets[0], published=hosts[0], published_to=hosts[-1], protocol=kind)
        return [replace(one, host_ip=host_ip)]
    if len(hosts) != len(targets):
        raise InvalidInput(f"publish {text[:60]!r}: the ranges differ in length")
    return [
        Publish(target=t, published=h, protocol=kind, host_ip=host_ip)
        for h, t in zip(hosts, targets, strict=True)
    ]


def _long(text: str, mode: str) -> list[Publish]:
    pairs = [part.partition("=")[::2] for part in text.split(",")]
    words = dict(pairs)
    known = {"mode", "published", "target", "protocol", "host_ip", "allow", "on", "proxy-protocol"}
    unknown = sorted(set(words) - known)
    if unknown or not words.get("target"):
        raise InvalidInput(
            f"publish {text[:80]!r}: {f'unknown word {unknown[0]!r}' if unknown else 'target is missing'}",
            hint="Write published=8080,target=80[,protocol=tcp][,mode=host][,host_ip=ADDRESS][,allow=RANGE]"
            "[,on=CONSTRAINT][,proxy-protocol=v1|v2]",
        )
    mode = words.get("mode", mode)
    if mode not in ("host", "ingress"):
        raise InvalidInput(f"publish {text[:80]!r}: mode must be host or ingress")
    header = words.get("proxy-protocol", "")
    if header not in ("", "v1", "v2"):
        raise InvalidInput(f"publish {text[:80]!r}: proxy-protocol must be v1 or v2")
    short = f"{words.get('published', '')}:{words['target']}/{words.get('protocol', 'tcp')}".lstrip(":")
    allow, on = (tuple(value for key, value in pairs if key == word) for word in ("allow", "on"))
    more = {"mode": mode, "host_ip": words.get("host_ip", "").strip("[]"), "allow": allow, "on": on}
    more["proxy_protocol"] = header
    return [replace(port, **more) for port in _short(short)]


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
