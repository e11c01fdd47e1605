"""Which ports of this host are free: nobody of ours publishes them, and no program holds them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence, Set

from model.errors import Exhausted, InUse
from model.status import BoundPort
from net.host import PublishRequest
from net.kernel.base import Kernel

Ports = Set[tuple[str, int]]
"""(protocol, port)."""


def refuse_taken(
    kernel: Kernel, wanted: Sequence[BoundPort], held: Sequence[BoundPort], of_services: Ports
) -> None:
    """Raises InUse when a service has one, or a program of this host one that is not `held` already. Numbers
    that our proxy holds are passed over: it says itself whether it can listen."""
    proxied = {port.published for port in held if port.proxy_protocol}
    for port in wanted:
        if (port.protocol, port.published) in of_services:
            raise InUse(
                f"port {port.published}/{port.protocol} is published by a service on this host",
                hint="Choose another port; `flota service ls` shows whose it is",
            )
        if port in held or (port.protocol == "tcp" and port.published in proxied):
            continue
        if not kernel.port_is_free(port.protocol, port.host_ip, port.published):
            raise InUse(
                f"port {port.published}/{port.protocol} is in use by another program on this host",
                hint="Stop that program, or publish on another port",
            )


def free_port(
    kernel: Kernel,
    published: Iterable[PublishRequest],
    protocol: str,
    host_ip: str,
    *,
    ours: Ports,
    but: Container[tuple[str, int]],
    within: tuple[int, int],
) -> int:
    """As `net.host.HostNetwork.free_port`; services have `ours`. Raises Exhausted."""
    taken = {port.published for request in published for port in request.ports if port.protocol == protocol}
    for port in range(within[0], within[1] + 1):
        if port in taken or (protocol, port) in but or (protocol, port) in ours:
            continue
        if kernel.port_is_free(protocol, host_ip, port):
            return port
    raise Exhausted(f"no {protocol} port of {within[0]} to {within[1]} is free on {host_ip or 'this host'}")
