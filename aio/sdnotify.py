"""Telling the service manager how we are (sd_notify(3), sd_watchdog_enabled(3)).

Invariant: without a manager that asked to be told, nothing is sent and nothing fails; what it gave us in the
environment is ours alone and gone from it, so that no child speaks in our name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping

_GIVEN = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class Notifier:
    """`address` is a path, or with a leading @ an abstract one; empty: nobody asked. `watchdog` is the number
    of seconds after which we are taken for dead, 0: never."""

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog = watchdog

    @classmethod
    def taken(cls, env: MutableMapping[str, str] = os.environ, *, pid: int = 0) -> Notifier:
        """Of what the manager gave to this process, which is taken out of `env`."""
        given = {name: env.pop(name, "") for name in _GIVEN}
        usec, meant = given["WATCHDOG_USEC"], given["WATCHDOG_PID"]
        ours = usec.isdecimal() and meant in ("", str(pid or os.getpid()))
        return cls(given["NOTIFY_SOCKET"], int(usec) / 1e6 if ours else 0.0)

    def ready(self, status: str) -> None:
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=ends")

    async def feed(self, heart: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled: say that we live each time the heart has beaten. One that hangs, or an event loop
        that does, says nothing."""
        while self._address and self.watchdog:
            await heart()
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog / 3)

    def _tell(self, *lines: str) -> None:
        """A manager that has gone away, or is too busy to listen, holds up nothing."""
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
                to.setblocking(False)
                to.sendto("\n".join(lines).encode(), self._address)
