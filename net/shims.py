"""Whether a machine of the site has an address that is this host's own on a network there.

Blocks decide which address that is, alike on all hosts, so another can't be taken; it is told instead, beside
what others change. Asked when the host comes on a network and when its agent starts, while all else goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from aio.mailbox import Bell
from model.errors import CommandFailed
from net.backend.base import full_prefix
from net.host import Drift, NetworkPlan
from net.kernel.base import Kernel
from net.naming import shim_name
from net.plan import scene_of, traits_of
from net.state import Foot

HERE = "/proc/self/ns/net"
HEARD = ("bridge", "l2 bridge")
"""Modes in which this host does not hear its shim's questions itself: a switch that sends them back (vepa)
lets the parent answer for it."""


class Shims:
    """`tell` is told of addresses that others have."""

    def __init__(self, kernel: Kernel, tell: Callable[[Sequence[Drift]], None]) -> None:
        self._kernel, self._tell = kernel, tell
        self._wanted: Mapping[str, Foot] = {}
        self._asked: dict[str, Foot] = {}
        self._failed: dict[str, Foot] = {}
        """Could not be asked about last, which is told once."""
        self._bell = Bell()

    def follow(self, plan: NetworkPlan) -> None:
        """The plan that stands now."""
        scene = scene_of(plan)
        found = {view.spec.name: (view.id, traits_of(view, scene)) for view in plan.networks.values()}
        self._wanted = {
            name: _foot(ident, traits.here)
            for name, (ident, traits) in found.items()
            if traits.upper is not None and traits.upper.below and traits.here and traits.upper.mode in HEARD
        }
        self._bell.ring()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._bell.wait()
            self._asked = {name: foot for name, foot in self._asked.items() if self._wanted.get(name) == foot}
            for name, foot in list(self._wanted.items()):
                if name not in self._asked and await self._ask(name, foot):
                    self._asked[name] = foot

    async def _ask(self, network: str, foot: Foot) -> bool:
        """Whether it could be asked; if not, it is with the next plan."""
        try:
            taken = await self._kernel.ask(foot)
        except (CommandFailed, OSError) as error:  # it is gone again, or could not be made, which is told
            if self._failed.get(network) != foot:
                self._tell([Drift(object=f"network {network}", action=f"not asked about: {error}")])
            self._failed[network] = foot
            return False
        words = "a machine of the site has it too, {}: let that one take another"
        drifts = [
            (f"address {address} of network {network}", words.format(mac)) for address, mac in taken.items()
        ]
        self._tell([Drift(object=what, action=action) for what, action in drifts])
        return True


def _foot(network: str, addresses: tuple[str, ...]) -> Foot:
    cidrs = tuple(full_prefix(address) for address in addresses)
    return Foot(namespace=HERE, ifname=shim_name(network), mac="", addresses=cidrs)
