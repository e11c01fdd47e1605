"""Builds that a client of `/grpc` began, by their refs: what each was asked for, and how far it is.

A client asks for a build, for its progress and (over LLBBridge) for its steps in calls of their own, in any
order. Invariant: there are no more than MOST jobs on a connection; progress that nobody reads is kept up to
MOST_EVENTS, the oldest go first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from api.docker.buildkit.control import Solve
from api.docker.buildkit.messages import StatusResponse
from model.build import Done
from model.errors import AlreadyExists, Exhausted, FlotaError, InvalidInput, Unavailable

MOST = 64
MOST_EVENTS = 10_000
WAIT = 15.0
"""Seconds in which a build that is asked about is to be begun."""
MAX_REF = 200


class Job:
    def __init__(self, wanted: Solve) -> None:
        self.wanted = wanted
        self.done: Done | None = None
        """Of the build that its bridge ran."""
        self.returned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """What the client's own part came to, where it has one."""
        self._events: deque[StatusResponse] = deque(maxlen=MOST_EVENTS)
        self._ended = False
        self._changed = asyncio.Event()

    def tell(self, status: StatusResponse | None) -> None:
        if status is not None:
            self._events.append(status)
            self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def events(self) -> AsyncIterator[StatusResponse]:
        """Until it has ended; each is given once."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self._ended:
                return
            self._changed.clear()
            await self._changed.wait()

    def give(self, error: FlotaError | None) -> None:
        if not self.returned.done():
            if error is None:
                self.returned.set_result(None)
            else:
                self.returned.set_exception(error)
                self.returned.exception()  # whoever waits for it may have gone


class Jobs:
    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._ended: deque[str] = deque(maxlen=MOST)
        """Refs of those that are over, for who asks late."""
        self._changed = asyncio.Event()

    @contextmanager
    def began(self, wanted: Solve) -> Iterator[Job]:
        """Raises InvalidInput, AlreadyExists, Exhausted."""
        if not 0 < len(wanted.ref) <= MAX_REF:
            raise InvalidInput("a build without a ref")
        if wanted.ref in self._jobs:
            raise AlreadyExists(f"there is a build {wanted.ref} already")
        if len(self._jobs) >= MOST:
            raise Exhausted(f"{MOST} builds run on this connection already")
        job = self._jobs[wanted.ref] = Job(wanted)
        self._changed.set()
        self._changed = asyncio.Event()
        try:
            yield job
        finally:
            job.end()
            del self._jobs[wanted.ref]
            self._ended.append(wanted.ref)

    async def get(self, ref: str, within: float = WAIT) -> Job:
        """Raises Unavailable."""
        try:
            async with asyncio.timeout(within):
                while ref not in self._jobs:
                    if ref in self._ended:
                        raise Unavailable(f"the build {ref[:80]} is over")
                    await self._changed.wait()
        except TimeoutError as error:
            raise Unavailable(f"no build {ref[:80]} within {within:g} s") from error
        return self._jobs[ref]
