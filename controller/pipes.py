"""Connections that hosts dial for us to use: a pool per host.

The controller can't reach a host, so each agent keeps a few connections on offer. Invariants: a pipe is
handed out once, and an offer ends when its pipe is used up or gone; a host that is given up keeps none, idle
or in use.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from api.channels import Dropped, Pipe
from model.errors import Unavailable
from model.ids import HostId

WAIT = 10.0
"""Seconds that a call waits for a host to offer a connection."""


class Pipes:
    def __init__(self, wait: float = WAIT) -> None:
        self._wait = wait
        self._idle: dict[HostId, deque[Pipe]] = {}
        self._wanted: dict[HostId, deque[asyncio.Future[Pipe]]] = {}
        self._accepted: dict[HostId, list[Pipe]] = {}
        """Idle or in use."""

    async def accept(self, host: HostId, pipe: Pipe) -> None:
        """Offer a connection; returns once it is closed, by whichever side."""
        self._accepted.setdefault(host, []).append(pipe)
        self._offer(host, pipe)
        try:
            with contextlib.suppress(OSError):
                await pipe.writer.wait_closed()
        finally:
            self._withdraw(host, pipe)

    async def open(self, host: HostId, name: str) -> Pipe:
        """Take one; the newest first, as it is the likeliest to be alive. Raises Unavailable naming the
        host."""
        idle = self._idle.get(host)
        while idle:
            pipe = idle.pop()
            if not pipe.writer.is_closing() and not pipe.reader.at_eof():
                return pipe
        future: asyncio.Future[Pipe] = asyncio.get_running_loop().create_future()
        self._wanted.setdefault(host, deque()).append(future)
        try:
            async with asyncio.timeout(self._wait):
                try:
                    return await future
                except asyncio.CancelledError:
                    self._forgo(host, future)
                    raise
        except TimeoutError as error:
            raise Unavailable(
                f"host {name} does not answer: no connection within {self._wait:g} s",
                hint=f"See `flota node inspect {name}`",
            ) from error

    def drop(self, host: HostId, why: str) -> None:
        """Abort all that this host offered. Whoever reads from one, or waits for one, is told `why`: Dropped,
        Unavailable."""
        for pipe in self._accepted.get(host, ()):
            pipe.reader.set_exception(Dropped(why))
            pipe.writer.transport.abort()
        for future in self._wanted.pop(host, ()):
            if not future.done():
                future.set_exception(Unavailable(why))

    def drop_idle(self, host: HostId) -> None:
        """Close what this host offered and nobody uses: it offers others."""
        for pipe in self._idle.get(host, ()):
            pipe.writer.transport.abort()

    def _offer(self, host: HostId, pipe: Pipe) -> None:
        """To whoever waits longest, or for whoever comes."""
        wanted = self._wanted.get(host)
        while wanted:
            future = wanted.popleft()
            if not wanted:
                del self._wanted[host]
            if not future.done():
                future.set_result(pipe)
                return
        self._idle.setdefault(host, deque()).append(pipe)

    def _forgo(self, host: HostId, future: asyncio.Future[Pipe]) -> None:
        """Its taker left. What it was handed in the same turn is untouched, and its host, which believes it
        idle, dials no other: it goes to the next."""
        if future.done() and not future.cancelled():
            if future.exception() is None and not future.result().writer.is_closing():
                self._offer(host, future.result())
            return
        wanted = self._wanted.get(host)
        if wanted is not None:
            with contextlib.suppress(ValueError):
                wanted.remove(future)
            if not wanted:
                del self._wanted[host]

    def _withdraw(self, host: HostId, pipe: Pipe) -> None:
        accepted = self._accepted[host]
        accepted.remove(pipe)
        if not accepted:
            del self._accepted[host]
        idle = self._idle.get(host)
        if idle is not None:
            with contextlib.suppress(ValueError):
                idle.remove(pipe)
            if not idle:
                del self._idle[host]
