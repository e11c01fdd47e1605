"""Where a server is, as people write it: `HOST`, `HOST:PORT`, IPv6 addresses bare or in brackets. Pure."""

from __future__ import annotations

import ipaddress

from model.errors import InvalidInput


def parted(text: str, port: int) -> tuple[str, int]:
    """Host, without brackets, and port; `port` where none is written. Raises InvalidInput."""
    if _is_ipv6(text):
        return text, port
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        known = bool(bracket) and _is_ipv6(host) and rest[:1] in ("", ":")
        tail = rest[1:]
    else:
        host, _, tail = text.partition(":")
        known = bool(host)
        rest = text[len(host) :]
    if not known or (rest and not (tail.isascii() and tail.isdecimal() and 0 < int(tail) <= 65535)):
        raise InvalidInput(f"{text[:80]!r} is no HOST:PORT", hint="Write IPv6 addresses as [fd00::1]:7420")
    return host, int(tail) if rest else port


def joined(host: str, port: int) -> str:
    """As in a URL (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if _is_ipv6(host) else f"{host}:{port}"


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6 and "%" not in text
    except ValueError:
        return False
