"""Who may do what with which repository. Pure.

Invariant: what no grant allows is refused. A grant of a prefix is for the repository of that name and those
below it; `delete` includes `push`, `push` includes `pull`.
"""

from __future__ import annotations

from typing import Literal

from image.registry.server.grammar import Target
from model.spec import Struct

Action = Literal["pull", "push", "delete"]
_RANK: dict[Action, int] = {"pull": 0, "push": 1, "delete": 2}


class Grant(Struct):
    action: Action
    prefix: str = ""
    """Empty: all repositories."""


class Caller(Struct):
    """Somebody, as the connection or a token shows him."""

    name: str
    grants: tuple[Grant, ...] = ()
    anonymous: bool = False


def may(caller: Caller, action: Action, name: str) -> bool:
    return any(_RANK[g.action] >= _RANK[action] and _covers(g.prefix, name) for g in caller.grants)


def _covers(prefix: str, name: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}/")


def needed(target: Target, method: str) -> Action | None:
    """What a request needs of its repository; None: to be known is enough."""
    if target.kind in ("base", "catalog"):
        return None
    if target.kind in ("uploads", "upload"):
        return "push"
    return {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}.get(method, "push")  # type: ignore[return-value]
