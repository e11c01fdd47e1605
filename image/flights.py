"""Work that several callers want at once is done once.

Invariant: a flight goes on while anyone waits for it, and is cancelled when the last one has gone; every
caller gets its outcome and hears its progress from when it came on board. Nobody boards a flight that is
ended or being cancelled: the next one starts after its end, so two of one key never overlap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from aio.supervisor import Supervisor
from model.errors import FlotaError
from model.image import Progress

T = TypeVar("T")
Say = Callable[[Progress], None]


class _Flight(Generic[T]):
    def __init__(self, landed: asyncio.Future[T]) -> None:
        self.landed = landed
        self.listeners: list[Say] = []

    def say(self, progress: Progress) -> None:
        for listener in self.listeners:
            listener(progress)


class Flights(Generic[T]):
    """`supervisor` holds the work; it must outlive this."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._flights: dict[str, _Flight[T]] = {}

    async def join(self, key: str, work: Callable[[Say], Awaitable[T]], listener: Say) -> T:
        """The outcome of the flight `key`; `work` starts it if none is under way."""
        while key not in self._flights and key in self._supervisor:
            await self._supervisor.join(key)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.get_running_loop().create_future())
            taken = flight
            self._supervisor.start(key, lambda: self._fly(key, taken, work))
        flight.listeners.append(listener)
        try:
            await self._supervisor.join(key)
            if not flight.landed.done():
                raise asyncio.CancelledError(f"{key} was cancelled")
            return flight.landed.result()
        finally:
            flight.listeners.remove(listener)
            if not flight.listeners and self._closed_to_newcomers(key, flight):
                await self._supervisor.stop(key)

    async def _fly(self, key: str, flight: _Flight[T], work: Callable[[Say], Awaitable[T]]) -> None:
        try:
            flight.landed.set_result(await work(flight.say))
        except FlotaError as error:  # else it would hold all frames on its way, and they the flight
            flight.landed.set_exception(error.with_traceback(None))
            flight.landed.exception()
        except Exception as error:
            flight.landed.set_exception(error)
            flight.landed.exception()  # marks it as seen: the last waiter may have gone
        finally:
            self._closed_to_newcomers(key, flight)

    def _closed_to_newcomers(self, key: str, flight: _Flight[T]) -> bool:
        """Whether this call closed it."""
        if self._flights.get(key) is not flight:
            return False
        del self._flights[key]
        return True
