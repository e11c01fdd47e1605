"""The resolver at work: the state file is read when it changes, questions are answered from what it says.

After each look at the file the verdict is told, so that an agent knows when the names of a container that it
is about to start can be asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from aio.inotify import DirectoryBells
from aio.mailbox import Bell
from aio.supervisor import Supervisor
from net.resolver import codec
from net.resolver.answer import Answerer, Forward
from net.resolver.forward import Forwarder
from net.resolver.hostconf import HostServers
from net.resolver.listen import Listeners, Send
from net.resolver.state import ResolverState
from net.resolver.statefile import read, read_on
from net.supervise.place import Place

log = logging.getLogger("flota.resolver")

RETRY, LOOK = 2.0, 30.0
"""Seconds until an address that could not be bound is tried again, and between looks without a bell."""
MOST_FAILURES = 100
"""Faults of ours that are logged; the file must not grow with the questions."""


class Resolver:
    def __init__(self, place: Place, *, host: HostServers, port: int = 53, upstream_port: int = 53) -> None:
        self._place = place
        self._host, self._upstream_port = host, upstream_port
        self._listeners = Listeners(self._handle, port)
        self._forwarder: Forwarder | None = None
        self._state = ResolverState()
        self._answerer = Answerer(self._state)
        self._turn = 0
        self._failures = 0

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Until cancelled. `ready` is called once the folder is watched, before anything is served."""
        bell, bells = Bell(), DirectoryBells()
        bells.add(self._place.path, bell.ring)
        ready()
        try:
            async with Supervisor("resolver") as supervisor:
                self._forwarder = Forwarder(
                    self._host, supervisor, own=lambda: self._listeners.addresses, port=self._upstream_port
                )
                log.info("serving the names in %s", self._place.path)
                try:
                    while True:
                        await self._look()
                        await bell.wait(RETRY if self._listeners.troubles else LOOK)
                finally:
                    self._forwarder.close()
                    await self._listeners.close()
        finally:
            bells.close()

    async def _look(self) -> None:
        self._place.look(
            lambda data: self._take(read(data)), lambda lines: self._take(read_on(self._state, lines))
        )
        await self._listeners.apply(self._state.listen)
        self._place.tell(*self._listeners.troubles)

    def _take(self, state: ResolverState) -> None:
        self._answerer = Answerer(state, self._answerer)
        self._state = state

    def _handle(self, data: bytes, source: str, udp: bool, send: Send) -> bytes | None:
        self._turn += 1
        try:
            reply = self._answerer.answer(data, source, self._turn, udp=udp)
            if not isinstance(reply, Forward):
                return reply
            self._forward(data, source, reply.upstreams, udp, send)
            return None
        except Exception:  # one bad question must not end the others' names
            self._failures += 1
            if self._failures <= MOST_FAILURES:
                log.exception("a question from %s could not be answered", source)
            return codec.error(data, codec.SERVFAIL) if len(data) >= codec.HEADER else None

    def _forward(self, data: bytes, source: str, upstreams: tuple[str, ...], udp: bool, send: Send) -> None:
        query = codec.read_query(data)
        assert query is not None and self._forwarder is not None
        limit = min(query.size, codec.MOST_UDP) if udp else 0xFFFF

        def done(reply: bytes | None) -> None:
            answer = codec.response(query, codec.SERVFAIL) if reply is None else reply
            send(codec.truncated(answer, limit))

        self._forwarder.ask(query, source, upstreams, done)
