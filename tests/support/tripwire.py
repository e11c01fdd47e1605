"""Crash at every step: seams wrapped so that the n-th step of a run is its agent's last.

`Tripwire(None)` only lists the steps. At the chosen one everything stops: the step is done (`after`) or not
(`before`), no later one is, and no journal write that had not been handed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

Side = Literal["before", "after"]
STEPS = {
    "runtime": ("create", "start", "signal", "pause", "resume", "delete"),
    "images": ("ensure", "prepare_root", "mount_root", "unmount_root", "remove_root"),
    "network": ("open_namespace", "drop_namespace", "attach", "detach", "publish", "unpublish", "apply"),
}


@dataclass
class Tripwire:
    at: int | None = None
    side: Side = "before"
    steps: list[str] = field(default_factory=list)
    crashed: asyncio.Event = field(default_factory=asyncio.Event)

    def wrap(self, seam: str, real: Any) -> Any:
        return _Wrapped(self, seam, real)

    def journal_write(self, real: Callable[..., asyncio.Future[None]]) -> Callable[..., asyncio.Future[None]]:
        def write(items: Any, *, durable: bool = True) -> asyncio.Future[None]:
            never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self.crashed.is_set():
                return never
            number = self._next(f"journal.{'+'.join(sorted({kind for kind, _, _ in items}))}")
            if number == self.at and self.side == "before":
                self.crashed.set()
                return never
            future = real(items, durable=durable)
            if number == self.at:
                self.crashed.set()
                return never
            return future

        return write

    async def step(
        self, name: str, call: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **words: Any
    ) -> Any:
        if self.crashed.is_set():
            raise asyncio.CancelledError
        number = self._next(name)
        if number == self.at and self.side == "before":
            await self._crash()
        result = await call(*args, **words)
        if number == self.at:
            await self._crash()
        if self.crashed.is_set():
            raise asyncio.CancelledError
        return result

    def _next(self, name: str) -> int:
        self.steps.append(name)
        return len(self.steps) - 1

    async def _crash(self) -> None:
        self.crashed.set()
        await asyncio.Event().wait()


class _Wrapped:
    def __init__(self, wire: Tripwire, seam: str, real: Any) -> None:
        self._wire, self._seam, self._real = wire, seam, real

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name not in STEPS[self._seam]:
            return found

        async def stepped(*args: Any, **words: Any) -> Any:
            return await self._wire.step(f"{self._seam}.{name}", found, *args, **words)

        return stepped


async def until_crash(wire: Tripwire, scenario: Coroutine[Any, Any, None], deadline: float) -> bool:
    """Play it up to the crash, or to its end. True when it crashed."""
    task = asyncio.get_running_loop().create_task(scenario)
    crash = asyncio.get_running_loop().create_task(wire.crashed.wait())
    try:
        async with asyncio.timeout(deadline):
            await asyncio.wait({task, crash}, return_when=asyncio.FIRST_COMPLETED)
        if not wire.crashed.is_set():
            await task
        return wire.crashed.is_set()
    finally:
        for one in (task, crash):
            one.cancel()
        await asyncio.wait({task, crash})
