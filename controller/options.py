"""What the owner of a fleet's controller may set of it; all else is in the store's settings."""

from __future__ import annotations

from controller.liveness import Policy
from model.spec import Struct


class Options(Struct):
    """What a fleet's owner may set; the rest is in the store's settings."""

    name: str = "flota"
    ping_every: float = 0.5
    liveness: Policy = Policy()
    address_pools: tuple[str, ...] = ()
    """Only read when the fleet is made; empty: the default."""
    advertise: str = ""
    """host:port under which hosts reach this controller, for join commands."""
    registry: str = ""
    """host:port of the fleet's registry, if there is one."""
