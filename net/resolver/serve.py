"""The resolver at work: the state file is read when it changes, questions are answered from what it says.

A state that can't be read or makes no sense is refused with one line, and the one before it goes on being
served. After each look at the file the verdict is told (`Served`), so that an agent knows when the names of
a container that it is about to start can be asked for.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from aio.inotify import DirectoryBells
from aio.mailbox import Bell
from aio.supervisor import Supervisor
from model.codec import encode_json
from model.spec import Struct
from net.resolver import codec, statefile
from net.resolver.answer import Answerer, Forward
from net.resolver.forward import Forwarder
from net.resolver.hostconf import HostServers
from net.resolver.listen import Listeners, Send
from net.resolver.state import ResolverState
from net.resolver.statefile import Mark, Reading

log = logging.getLogger("flota.resolver")

RETRY, LOOK = 2.0, 30.0
"""Seconds until an address that could not be bound is tried again, and between looks without a bell."""
STATE, SERVED, PID = "state.json", "served.json", "pid"
MOST_FAILURES = 100
"""Faults of ours that are logged; the file must not grow with the questions."""


class Served(Struct):
    """What the resolver made of a state file, and how far it has read it."""

    mark: Mark = Mark()
    refused: str = ""
    """Why the state is not served; the one before it still is."""
    troubles: tuple[str, ...] = ()
    """Addresses that can't be listened on, and why."""


class Resolver:
    """`folder` is a descriptor of the folder with the state file, which may lie where we have no way to any
    more; `path` is its name, for watching. `tell` takes the verdict."""

    def __init__(
        self,
        folder: int,
        path: str,
        *,
        host: HostServers,
        tell: Callable[[bytes], None],
        port: int = 53,
        upstream_port: int = 53,
    ) -> None:
        self._folder, self._path, self._tell = folder, path, tell
        self._host, self._upstream_port = host, upstream_port
        self._listeners = Listeners(self._handle, port)
        self._forwarder: Forwarder | None = None
        self._file = StateFile(folder)
        self._reading = Reading()
        self._state = ResolverState()
        self._answerer = Answerer(self._state)
        self._served: Served | None = None
        self._turn = 0
        self._failures = 0

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Until cancelled. `ready` is called once the folder is watched, before anything is served."""
        bell, bells = Bell(), DirectoryBells()
        bells.add(self._path, bell.ring)
        ready()
        try:
            async with Supervisor("resolver") as supervisor:
                self._forwarder = Forwarder(
                    self._host, supervisor, own=lambda: self._listeners.addresses, port=self._upstream_port
                )
                log.info("serving the names in %s", self._path)
                try:
                    while True:
                        await self._look()
                        await bell.wait(RETRY if self._listeners.troubles else LOOK)
                finally:
                    self._forwarder.close()
                    self._file.close()
                    await self._listeners.close()
        finally:
            bells.close()

    async def _look(self) -> None:
        refused = self._served.refused if self._served is not None else ""
        try:
            reading = self._file.read(self._reading)
            if reading is not self._reading:
                self._reading = reading
                refused = self._take(reading)
        except OSError as error:
            refused = f"{self._path}/{STATE}: {error.strerror}"
            log.error("names: %s", refused)
        await self._listeners.apply(self._state.listen)
        served = Served(mark=self._reading.mark, refused=refused, troubles=self._listeners.troubles)
        if served != self._served:
            self._served = served
            self._tell(encode_json(served))

    def _take(self, reading: Reading) -> str:
        """Why it was refused; empty when it is served from now on."""
        refused = reading.refused
        if not refused:
            try:
                self._answerer = Answerer(reading.state, self._answerer)
                self._state = reading.state
            except ValueError as error:
                refused = str(error)
        if refused:
            log.error("a new state is refused, the one before it is served: %s", refused)
        return refused

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


class StateFile:
    """The file of a folder, read on where it grew and from its beginning where it is another. It is held
    open: as long as we have it, no other file can be taken for it."""

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._fd = -1

    def read(self, before: Reading) -> Reading:
        """The same `Reading` where nothing is new, or there is no file. Raises OSError."""
        try:
            found = os.stat(STATE, dir_fd=self._folder)
        except FileNotFoundError:
            return before
        if (
            self._fd >= 0
            and os.path.samestat(found, os.fstat(self._fd))
            and found.st_size >= before.mark.size
        ):
            data = os.pread(self._fd, found.st_size - before.mark.size, before.mark.size)
            return statefile.read_on(before, data) if b"\n" in data else before
        fd = os.open(STATE, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        self.close()
        self._fd = fd
        return statefile.read(os.pread(fd, os.fstat(fd).st_size, 0))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
