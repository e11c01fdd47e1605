"""Published ports listened on, and each connection handed to a backend in turn.

A change of a port's backends, clients or header touches no connection and no listening socket; a port that is
gone only stops listening. Connections are bounded, in all and of one port, so that a flood at one port leaves
room for the others.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from net.proxy.clients import Clients
from net.proxy.header import Header, encode
from net.proxy.pipes import Pipes
from net.proxy.ranges import Ranges
from net.proxy.relay import Relay, refuse, tune
from net.proxy.state import Places, Port, trouble
from net.sockets import bound

log = logging.getLogger("flota.proxy")

MOST_CONNECTIONS, SHARE = 10_000, 0.6
BACKLOG = 4096
TRIES = 3
"""Backends that are asked for one connection, when they refuse."""
REST = 0.2
"""Seconds without accepting after the kernel had no room for one more."""
_BATCH = 64
"""Connections taken in a row before others have their turn."""
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(slots=True)
class _Listener:
    sock: socket.socket
    port: Port
    clients: Clients
    turn: int = 0
    short: bool = False
    """Whether the kernel had no room for its last connection."""
    live: set[Relay] = field(default_factory=set)


class Listeners:
    """`most` is a number of connections; one port has `SHARE` of them at most."""

    def __init__(self, *, most: int = MOST_CONNECTIONS) -> None:
        self.most = most
        self._listeners: dict[tuple[str, int], _Listener] = {}
        self._troubles: dict[tuple[str, int], str] = {}
        self._deny: Ranges | None = None
        self._pipes = Pipes()
        self._loop = asyncio.get_running_loop()
        self._relays: set[Relay] = set()
        self._no_ipv6 = not os.path.exists("/proc/net/if_inet6")

    @property
    def troubles(self) -> tuple[str, ...]:
        """Why ports that should be served are not, in words."""
        return tuple(sorted(set(self._troubles.values())))

    @property
    def connections(self) -> int:
        return len(self._relays)

    def apply(self, wanted: Places, deny: Sequence[str]) -> None:
        """Serve these and no others; what could not be bound is tried again."""
        self._deny = Ranges(deny) if deny else None
        for place in self._listeners.keys() - wanted.keys():
            self._close(place)
        for place in self._troubles.keys() - wanted.keys():
            del self._troubles[place]
        for place, port in wanted.items():
            listener = self._listeners.get(place)
            if listener is not None:
                listener.port, listener.clients = port, Clients(port)
            elif not (self._no_ipv6 and ":" in place[0]):
                self._open(place, port)

    def close(self) -> None:
        """All of it; connections are reset."""
        for place in list(self._listeners):
            self._close(place)
        for relay in list(self._relays):
            relay.abort()
        self._pipes.close()

    def _open(self, place: tuple[str, int], port: Port) -> None:
        try:
            sock = bound(*place, socket.SOCK_STREAM)
            try:
                tune(sock)
                sock.listen(BACKLOG)
            except OSError:
                sock.close()
                raise
        except OSError as error:
            words = trouble(place[1], f"cannot listen on {place[0]}: {error.strerror}")
            if self._troubles.get(place) != words:
                self._troubles[place] = words
                log.error("%s", words)
            return
        self._troubles.pop(place, None)
        listener = self._listeners[place] = _Listener(sock, port, Clients(port))
        self._loop.add_reader(sock.fileno(), self._accept, listener)

    def _close(self, place: tuple[str, int]) -> None:
        listener = self._listeners.pop(place)
        self._loop.remove_reader(listener.sock.fileno())
        listener.sock.close()

    def _accept(self, listener: _Listener) -> None:
        for _ in range(_BATCH):
            try:
                client, address = listener.sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._rest(listener, error)
                return
            client.setblocking(False)
            listener.short = False
            self._take(listener, client, address)

    def _rest(self, listener: _Listener, error: OSError) -> None:
        loop, fd = self._loop, listener.sock.fileno()
        if not listener.short:
            log.error("%s", trouble(listener.port.port, f"cannot accept: {error.strerror}"))
        listener.short = True

        def again() -> None:
            if listener.sock.fileno() >= 0:
                loop.add_reader(fd, self._accept, listener)

        loop.remove_reader(fd)
        loop.call_later(REST, again)

    def _take(self, listener: _Listener, client: socket.socket, address: tuple[str, int]) -> None:
        port, source = listener.port, address[0].partition("%")[0]
        full = len(self._relays) >= self.most or len(listener.live) >= self.most * SHARE
        own, own_port = client.getsockname()[:2]
        own = own.partition("%")[0]
        denied = self._deny is not None and source in self._deny
        backends = () if full or denied else listener.clients.backends(source, own)
        if not backends:
            refuse(client)
            return
        header = Header(source=source, source_port=address[1], destination=own, destination_port=own_port)
        listener.turn = first = (listener.turn + 1) % len(backends)
        order = (*backends[first:], *backends[:first])[:TRIES]

        def gone(relay: Relay) -> None:
            self._relays.discard(relay)
            listener.live.discard(relay)

        relay = Relay(self._loop, client, encode(header, port.header), order, self._pipes, gone)
        self._relays.add(relay)
        listener.live.add(relay)
        relay.start()
