"""Endpoints whose IPv4 address the site's DHCP server gives: made without one, given what their client got.

Invariants: an endpoint's address is the one of its client's last word, or none; it changes in place, the
interface and its other addresses stay; what lies outside the network's subnet is never taken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from msgspec.structs import replace

from aio.mailbox import Bell
from model.errors import CommandFailed, FlotaError
from model.ids import InstanceId
from model.status import Endpoint
from model.view import NetworkView
from net.convergence import Convergence
from net.dhcping import DhcpClients
from net.diff import Op
from net.endpoint import InstanceNetwork, endpoint_status
from net.host import EndpointRequest
from net.naming import veth_name
from net.state import Link, Way
from net.subnets import subnet_of

log = logging.getLogger("flota.net")

Meant = Callable[[EndpointRequest], tuple[NetworkView, InstanceNetwork, Link]]


class Leasing:
    """The host's network does what is common to all endpoints: `attach` makes one, `meant` says what it is,
    `elements` changes the packet filter for it, `keep` remembers it."""

    def __init__(
        self,
        run_dir: Path,
        lock: asyncio.Lock,
        convergence: Convergence,
        attach: Callable[[EndpointRequest], Awaitable[Endpoint]],
        meant: Meant,
        elements: Callable[[InstanceNetwork, InstanceNetwork], Awaitable[None]],
        keep: Callable[[InstanceId, InstanceNetwork], None],
    ) -> None:
        self.clients = DhcpClients(run_dir)
        self.clients.changed = self._said
        self.moved: Callable[[InstanceId], None] = lambda instance: None
        """Told when an endpoint of that instance has another address than it was made with."""
        self._lock, self._convergence, self._attach = lock, convergence, attach
        self._meant, self._elements, self._keep = meant, elements, keep
        self._requests: dict[str, EndpointRequest] = {}
        """By endpoint: what was asked for, without an address."""
        self._bell = Bell()
        self._news: set[str] = set()

    async def run(self) -> None:
        """Until cancelled: follow what clients say."""
        while True:
            await self._bell.wait()
            while self._news:
                endpoint = self._news.pop()
                try:
                    await self._follow(endpoint)
                except FlotaError as error:
                    log.warning("DHCP: %s", error)

    def adopt(self, instances: Iterable[InstanceNetwork]) -> None:
        """Clients that an earlier agent started go on being kept."""
        for instance in instances:
            for foot in instance.endpoints:
                if foot.dhcp:
                    self._follow_from_now(foot, instance.namespace)

    def look(self) -> None:
        """At what all clients said: networks are known now."""
        self._news |= self._requests.keys()
        self._bell.ring()

    async def attach(self, request: EndpointRequest) -> Endpoint:
        """As `HostNetwork.attach`, once there is a lease. Raises DeadlineExceeded without one."""
        name = veth_name(request.instance, request.network)
        known = self._meant(request)[1]
        before = known.endpoint(request.network)
        lease = self.clients.lease(name)
        if before is not None and before.dhcp and before.ipv4 and lease is not None:
            found = await self._attach(replace(request, ipv4=before.ipv4))
            self._follow_from_now(request, known.namespace)
            return found
        await self._attach(request)
        self._follow_from_now(request, known.namespace)
        lease = await self.clients.obtained(name)
        return await self._readdress(request, lease.address)

    async def drop(self, instance: InstanceId, networks: Iterable[str]) -> None:
        for network in networks:
            name = veth_name(instance, network)
            if self._requests.pop(name, None) is not None:
                await self.clients.drop(name)

    def _follow_from_now(self, request: EndpointRequest, namespace: str) -> None:
        name = veth_name(request.instance, request.network)
        self._requests[name] = replace(request, ipv4="")
        self.clients.keep(name, namespace, request.ifname, request.hostname or request.instance[:12])

    def _said(self, endpoint: str) -> None:
        self._news.add(endpoint)
        self._bell.ring()

    async def _follow(self, endpoint: str) -> None:
        request, lease = self._requests.get(endpoint), self.clients.lease(endpoint)
        if request is None or lease is None:
            return
        known = self._meant(request)[1].endpoint(request.network)
        if known is None or known.ipv4 == lease.address or (not known.ipv4 and not lease.address):
            return
        log.info("%s: its DHCP server gave %s after %s", endpoint, lease.address or "nothing", known.ipv4)
        await self._readdress(request, lease.address)
        self.moved(request.instance)

    async def _readdress(self, request: EndpointRequest, address: str) -> Endpoint:
        """Raises CommandFailed for an address that is not the network's."""
        async with self._lock:
            view = self._meant(request)[0]
            try:
                if address:
                    subnet_of(view.spec, address)
            except FlotaError as error:
                raise CommandFailed(f"the DHCP server gave {address}: {error.message}") from error
            now = replace(request, ipv4=address)
            view, known, link = self._meant(now)
            before = known.endpoint(request.network)
            if before is None:
                raise CommandFailed("the endpoint went while its address was asked for")
            now = replace(before, ipv4=address)
            assert link.foot is not None
            rest = tuple(e for e in known.endpoints if e.network != request.network)
            after = replace(known, endpoints=(*rest, now))
            await self._elements(known, after)
            change = Way(link=link.name, foot=link.foot, anew=True)
            await self._convergence.issue((Op(verb="change", item=change),))
            self._keep(request.instance, after)
            return endpoint_status(now, view)
