"""Independent children under one parent: a failing child is logged, counted and restarted; siblings live on.

A TaskGroup is for tasks that must die together (one session's reader and writer); a Supervisor is for those
that must not (one worker per container). Closing it cancels and awaits every child.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from aio.backoff import delay

log = logging.getLogger("flota.aio")


class Supervisor:
    def __init__(self, name: str) -> None:
        self._name = name
        self._children: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    async def __aenter__(self) -> Supervisor:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def start(
        self, name: str, run: Callable[[], Coroutine[Any, Any, None]], *, restart: bool = False
    ) -> None:
        """Run a named child. With `restart` it runs again after a failure, with back-off; a return is final.

        Raises RuntimeError when a child of that name lives, or the supervisor is closing.
        """
        if self._closing:
            raise RuntimeError(f"supervisor {self._name} is closing")
        if name in self._children:
            raise RuntimeError(f"{self._name}: {name} runs already")
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(name, run, restart), name=f"{self._name}/{name}")
        self._children[name] = task
        task.add_done_callback(lambda _: self._children.pop(name, None))

    async def _run(self, name: str, run: Callable[[], Awaitable[None]], restart: bool) -> None:
        failures = 0
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await run()
                return
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("%s: %s failed", self._name, name)
                if not restart:
                    return
            failures = 1 if asyncio.get_running_loop().time() - began > 60 else failures + 1
            await asyncio.sleep(delay(failures, first=0.1, limit=10.0))

    def __contains__(self, name: str) -> bool:
        return name in self._children

    def names(self) -> list[str]:
        return sorted(self._children)

    def cancel(self, name: str) -> None:
        """Cancel one child, if it lives, without waiting for its end."""
        task = self._children.get(name)
        if task is not None:
            task.cancel()

    async def stop(self, name: str) -> None:
        """Cancel one child and wait for it."""
        task = self._children.get(name)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def join(self, name: str) -> None:
        """Wait for one child's end, if it lives."""
        task = self._children.get(name)
        if task is not None:
            await asyncio.wait([task])

    async def close(self) -> None:
        self._closing = True
        tasks = list(self._children.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def in_thread(call: Callable[..., Any], *args: Any, pool: ThreadPoolExecutor | None = None) -> Any:
    """Run a short blocking call in a thread, of everybody's pool without one. Cancelling waits for it: a
    thread can't be abandoned safely."""
    future = asyncio.get_running_loop().run_in_executor(pool, call, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not future.cancelled():
            await asyncio.wait([future])
        raise
    finally:
        del (
            future
        )  # its error's traceback has this frame: they would hold each other, and all that the call had
