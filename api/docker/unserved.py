"""Endpoints that Docker has and we have not: refused with 501 and why, not with "page not found". Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from api.docker.errors import Refusal
from api.docker.route import pattern

_LATER = "secrets and configs come with stacks"
WHY: Mapping[str, str] = {
    "/secrets": _LATER,
    "/secrets/{rest:.*}": _LATER,
    "/configs": _LATER,
    "/configs/{rest:.*}": _LATER,
    "/plugins": "flota has no plugins of Docker's kind",
    "/plugins/{rest:.*}": "flota has no plugins of Docker's kind",
    "/containers/{name}/checkpoints": "checkpoints are experimental in Docker",
    "/containers/{name}/checkpoints/{rest:.*}": "checkpoints are experimental in Docker",
    "/containers/{name}/attach/ws": "attach without WebSocket: POST /containers/{name}/attach",
}
_PATTERNS: Mapping[re.Pattern[str], str] = {pattern(path): why for path, why in WHY.items()}


def refuse(path: str) -> None:
    """Raises Refusal where a path is one of those."""
    for known, why in _PATTERNS.items():
        if known.match(path):
            raise Refusal(501, f"{path[:200]} is not supported: {why}")
