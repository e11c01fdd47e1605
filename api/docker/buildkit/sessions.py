"""Sessions of BuildKit's clients: connections over which we ask them for files, secrets and logins.

A client makes one beside its build and names it there (`session=`); either may come first. Invariant: a
session is known as long as its connection stands, there are no more than MOST, and one that is asked for
and does not come is waited for no longer than WAIT.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from api.docker.buildkit.grpc import Channel
from api.docker.errors import Refusal
from model.errors import Exhausted, InvalidInput, Unavailable

MOST = 256
WAIT = 30.0
"""Seconds. The client connects at once; it may be behind a slow network."""


class BuildSession:
    """`methods`: what the client serves, as `/package.Service/Method`, in small letters."""

    def __init__(self, channel: Channel, shared: str, methods: frozenset[str]) -> None:
        self.channel = channel
        self.shared = shared
        """What the client calls the folder that it builds, for caches."""
        self._methods = methods

    def end(self) -> None:
        """Nothing more is asked of the client."""
        self.channel.close()

    def serves(self, method: str) -> bool:
        return method.lower() in self._methods


class BuildSessions:
    """Those that are open, by their ids."""

    def __init__(self) -> None:
        self._open: dict[str, BuildSession] = {}
        self._changed = asyncio.Event()

    def check(self, ident: str) -> None:
        """Whether there can be one of that id. Raises Refusal, Exhausted."""
        if ident in self._open:
            raise Refusal(409, f"session {ident} already exists")
        if len(self._open) >= MOST:
            raise Exhausted(f"there are {MOST} sessions of builds already")

    @contextmanager
    def known(self, ident: str, session: BuildSession) -> Iterator[None]:
        """Of an id that was checked."""
        self._open[ident] = session
        self._changed.set()
        self._changed = asyncio.Event()
        try:
            yield
        finally:
            del self._open[ident]

    async def get(self, ident: str, within: float = WAIT) -> BuildSession:
        """Raises InvalidInput, Unavailable."""
        if not ident:
            raise InvalidInput("a build by BuildKit's protocol needs a session", hint="Send session=ID")
        try:
            async with asyncio.timeout(within):
                while ident not in self._open:
                    await self._changed.wait()
        except TimeoutError as error:
            raise Unavailable(f"no session {ident[:80]} within {within:g} s") from error
        return self._open[ident]
