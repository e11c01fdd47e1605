"""Events: what happened, for people and programs that watch. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from model.spec import Struct

EventType = Literal[
    "container", "service", "network", "volume", "image", "node", "fleet", "policy", "registry"
]


class Event(Struct):
    """`cursor` rises by one per event of one controller run; an action is docker's word where it has one
    (create, start, die, oom, stop, kill, pause, unpause, destroy, connect, pull …)."""

    type: EventType
    action: str
    id: str
    name: str = ""
    host: str = ""
    at: float = 0.0
    attributes: Mapping[str, str] = {}
    cursor: int = 0


def of_container(labels: Mapping[str, str], image: str = "", **more: str) -> dict[str, str]:
    """Attributes of a container's event: what is said of it, and its labels, which hide nothing of that."""
    own = {"image": image, **more} if image else more
    return own | {name: value for name, value in labels.items() if name not in own}
