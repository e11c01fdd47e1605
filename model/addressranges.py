"""Addresses as users list them: single ones and ranges with commas between, `10.1.2.3,10.1.2.8-10.1.2.9`.
Pure.

A replicated service lists more than one: its replica N gets the Nth. Invariant: what `parse` accepts is of
one family, and in the order in which it was written.
"""

from __future__ import annotations

import ipaddress

from model.errors import InvalidInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Span = tuple[Address, Address]
"""First and last, both included."""
MOST_PARTS = 256


def parse(text: str, version: int) -> tuple[Span, ...]:
    """Raises InvalidInput for what is no address, range `FIRST-LAST` or prefix of that family."""
    parts = text.split(",")
    if len(parts) > MOST_PARTS:
        raise InvalidInput(f"{len(parts)} addresses and ranges are more than {MOST_PARTS}: write ranges")
    return tuple(_span(part.strip(), version) for part in parts)


def _span(text: str, version: int) -> Span:
    try:
        first, dash, last = text.partition("-")
        if "%" in text:
            raise ValueError("a zone has no meaning here")
        if dash:
            low, high = ipaddress.ip_address(first.strip()), ipaddress.ip_address(last.strip())
        else:
            whole = ipaddress.ip_network(text)
            low, high = whole[0], whole[-1]
    except ValueError as error:
        raise InvalidInput(f"{text[:60]!r} is no IPv{version} address or range: {error}") from None
    if low.version != version or high.version != version:
        raise InvalidInput(f"{text[:60]!r} is no IPv{version} address or range")
    if int(high) < int(low):
        raise InvalidInput(f"range {text[:80]} ends before it begins")
    return low, high


def count(spans: tuple[Span, ...]) -> int:
    return sum(int(last) - int(first) + 1 for first, last in spans)
