"""What the proxy of published ports is to serve: containers' ports and services', told as they change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from net.endpoint import InstanceNetwork
from net.host import NetworkPlan
from net.loadbalance import VirtualService
from net.proxied import proxied, proxy_state, told
from net.proxying import PortProxy


class Telling:
    """`state` gives what stands: instances and plan."""

    def __init__(
        self, proxy: PortProxy, state: Callable[[], tuple[Iterable[InstanceNetwork], NetworkPlan | None]]
    ) -> None:
        self._proxy, self._state = proxy, state
        self._services: dict[str, VirtualService] = {}
        """Those with ports that the proxy serves."""

    async def services(self, services: Mapping[str, VirtualService]) -> None:
        """These, and no others."""
        self._services = {key: s for key, s in services.items() if told(s)}
        await self.tell()

    async def changed(self, changes: Mapping[str, VirtualService | None]) -> None:
        if any(map(told, changes.values())) or self._services.keys() & changes.keys():
            known = {**self._services, **changes}
            self._services = {key: s for key, s in known.items() if s is not None and told(s)}
            await self.tell()

    async def tell(self, *changed: InstanceNetwork) -> None:
        """Let it serve what is published now; wait for it if that matters to one of these."""
        instances, plan = self._state()
        self._proxy.update(proxy_state(instances, plan, self._services.values()))
        if any(proxied(network.published) for network in changed):
            await self._proxy.served()
