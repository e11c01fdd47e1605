"""What `EXPOSE` and `--expose` say: ports as `80`, `53/udp`, `3000-3005/tcp`. Pure."""

from __future__ import annotations

import re
from typing import cast

from model.spec import Protocol

_EXPOSE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?\Z")


def exposed(text: str) -> tuple[tuple[int, Protocol], ...]:
    """`80`, `53/udp`, `3000-3005/tcp` as (port, protocol); empty when it is none."""
    match = _EXPOSE.match(text.lower())
    if match is None:
        return ()
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= 65535:
        return ()
    protocol = cast(Protocol, match[3] or "tcp")
    return tuple((port, protocol) for port in range(first, last + 1))
