"""Foreign names: forwarded as raw bytes, answered out of the cache, or joined to an equal question under way.

Invariants: at most `MOST_FLIGHTS` questions are under way, `MOST_OF_ONE` of them for one container; nothing
is ever forwarded to one of our own addresses. A loop through a name server in a container ends as well: its
question comes back, finds itself under way, and waits for itself until the deadline.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections import Counter
from collections.abc import Callable, Collection

from aio.supervisor import Supervisor
from net.resolver import codec
from net.resolver.cache import Cache
from net.resolver.codec import Query
from net.resolver.exchange import Exchange, Reply, matches, sockaddr
from net.resolver.hostconf import MOST_SERVERS, HostServers

MOST_FLIGHTS, MOST_OF_ONE, MOST_WAITERS = 512, 128, 64
SLOW = 10.0
"""Seconds for which a server that let its time pass is asked last."""
TCP_DEADLINE = 3.0
_MOST_SLOW = 256

Key = tuple[tuple[str, ...], bytes]
Done = Callable[[bytes | None], None]


class _Flight:
    __slots__ = ("exchange", "waiters")

    def __init__(self) -> None:
        self.waiters: list[tuple[bytes, str, Done]] = []
        self.exchange: Exchange | None = None


class Forwarder:
    """`own` are the addresses that we listen on."""

    def __init__(
        self, host: HostServers, supervisor: Supervisor, *, own: Callable[[], Collection[str]], port: int = 53
    ) -> None:
        self._host, self._supervisor, self._own, self._port = host, supervisor, own, port
        self._cache = Cache()
        self._flights: dict[Key, _Flight] = {}
        self._of: Counter[str] = Counter()
        self._slow: dict[str, float] = {}
        self._numbers = itertools.count()
        self._loop = asyncio.get_running_loop()

    @property
    def under_way(self) -> int:
        return len(self._flights)

    def ask(self, query: Query, source: str, upstreams: tuple[str, ...], done: Done) -> None:
        """`done` gets the answer with the question's id, or None when there is none to be had."""
        own = self._own()
        wanted = upstreams or self._host.servers()
        servers = tuple(s for s in wanted if s.partition("%")[0] not in own)[:MOST_SERVERS]
        key = servers, query.data[2:]
        kept = self._cache.get(key, self._loop.time())
        if kept is not None:
            done(query.data[:2] + kept[2:])
            return
        flight = self._flights.get(key)
        full = self._of[source] >= MOST_OF_ONE or (flight is None and len(self._flights) >= MOST_FLIGHTS)
        if full or not servers or (flight is not None and len(flight.waiters) >= MOST_WAITERS):
            done(None)
            return
        self._of[source] += 1
        waiter = query.data[:2], source, done
        if flight is not None:
            flight.waiters.append(waiter)
            return
        flight = self._flights[key] = _Flight()
        flight.waiters.append(waiter)
        flight.exchange = Exchange(
            query.data,
            query.end,
            self._in_turn(servers),
            self._port,
            done=lambda reply: self._answered(key, query, reply),
            heard=self._heard,
        )
        flight.exchange.start()

    def close(self) -> None:
        """Every question under way is answered with None."""
        for flight in list(self._flights.values()):
            if flight.exchange is not None:
                flight.exchange.close()
        for key in list(self._flights):
            self._land(key, None)

    def _in_turn(self, servers: tuple[str, ...]) -> list[str]:
        """In the given order, but those that were too slow lately come last."""
        now = self._loop.time()
        return sorted(servers, key=lambda server: self._slow.get(server, 0.0) > now)

    def _heard(self, server: str, answered: bool) -> None:
        if answered:
            self._slow.pop(server, None)
            return
        if len(self._slow) >= _MOST_SLOW:
            self._slow.clear()
        self._slow[server] = self._loop.time() + SLOW

    def _answered(self, key: Key, query: Query, reply: Reply | None) -> None:
        if reply is None or not reply.seen.flags & codec.TC:
            self._land(key, reply)
            return
        cut_off = reply

        async def again() -> None:
            self._land(key, await by_tcp(query, cut_off.server, self._port) or cut_off)

        self._supervisor.start(f"tcp/{next(self._numbers)}", again)

    def _land(self, key: Key, reply: Reply | None) -> None:
        flight = self._flights.pop(key, None)
        if flight is None:
            return
        if reply is not None:
            self._cache.put(key, reply.data, reply.seen, self._loop.time())
        for ident, source, done in flight.waiters:
            self._of[source] -= 1
            if not self._of[source]:
                del self._of[source]
            done(None if reply is None else ident + reply.data[2:])


async def by_tcp(query: Query, server: str, port: int) -> Reply | None:
    """None when it can't be had."""
    writer = sock = None
    try:
        async with asyncio.timeout(TCP_DEADLINE):
            family, address = sockaddr(server, port)
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            await asyncio.get_running_loop().sock_connect(sock, address)
            reader, writer = await asyncio.open_connection(sock=sock)
            writer.write(struct.pack("!H", len(query.data)) + query.data)
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            data = await reader.readexactly(size)
        if matches(data, query.data[:2], query.data, query.end):
            return Reply(data, codec.walk(data), server)
    except (OSError, EOFError, TimeoutError, ValueError, codec.Malformed):
        pass
    finally:
        if writer is not None:
            writer.transport.abort()
        elif sock is not None:
            sock.close()
    return None
