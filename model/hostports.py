"""Host addresses of published ports, compared. Pure."""

from __future__ import annotations

import ipaddress


def addresses_overlap(a: str, b: str) -> bool:
    """Whether two host addresses of published ports have one in common; empty is every address."""
    if not a or not b or a == b:
        return True
    one, two = ipaddress.ip_address(a), ipaddress.ip_address(b)
    return one == two or (one.version == two.version and (one.is_unspecified or two.is_unspecified))
