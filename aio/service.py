"""A daemon as its service manager sees it: signals, readiness, reloads, signs of life, and its log.

SIGTERM and SIGINT end it, SIGHUP reloads it. Invariant: it is ready only once its work says so, and alive
only as long as its heart beats.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from aio.mailbox import Bell
from aio.sdnotify import Notifier
from aio.supervisor import Supervisor

log = logging.getLogger("flota.aio")
PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LEVELS = ("debug", "info", "warning", "error")


async def _turns() -> None:
    """The heart of who has none: that the event loop turns."""


@dataclass(slots=True)
class Hooks:
    """What a daemon's work tells whoever runs it."""

    ready: asyncio.Event = field(default_factory=asyncio.Event)
    heart: Callable[[], Awaitable[None]] = _turns
    """Returns when what matters has done something just now."""
    reload: Callable[[], Awaitable[str]] | None = None
    """Takes settings in that may change while it runs; what became of it, in words. Raises Exception for
    what can't be: then all is as before."""


async def until_signalled(
    work: Callable[[Hooks], Coroutine[Any, Any, None]], notifier: Notifier, name: str
) -> None:
    """Run `work` until it ends by itself or a signal ends it. Raises what it raises."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    hooks, again = Hooks(), Bell()

    def end() -> None:
        notifier.stopping()
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGHUP, again.ring)

    async def told() -> None:
        await hooks.ready.wait()
        notifier.ready(f"{name} works")
        async with Supervisor(name) as supervisor:
            supervisor.start("signs of life", lambda: notifier.feed(hooks.heart), restart=True)
            while True:
                await again.wait()
                await _reload(hooks, notifier, name)

    with contextlib.suppress(asyncio.CancelledError):
        async with Supervisor("service") as supervisor:
            supervisor.start("service manager", told)
            await work(hooks)


async def _reload(hooks: Hooks, notifier: Notifier, name: str) -> None:
    notifier.reloading()
    said = "nothing can be reloaded"
    try:
        if hooks.reload is not None:
            said = await hooks.reload()
        log.info("reloaded: %s", said)
    except Exception as error:  # a person's mistake in a file: all goes on as it was
        said = f"not reloaded: {error}"
        log.error("%s", said)
    notifier.ready(f"{name} works; {said}")


def start_log(level: str, env: Mapping[str, str] = os.environ) -> None:
    """To standard error: with the time for people, with syslog's priority for a journal that has the time
    itself (sd-daemon(3)). A process that is aborted says where it was."""
    handler = logging.StreamHandler()
    if _is_journal(env.get("JOURNAL_STREAM", "")):
        handler.setFormatter(_Journalled("%(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter(PLAIN))
    logging.basicConfig(handlers=[handler], force=True)
    set_level(level)
    with contextlib.suppress(ValueError, OSError):  # standard error is no file
        faulthandler.enable()


def set_level(level: str) -> None:
    """Of `LEVELS`; empty: info."""
    logging.getLogger().setLevel((level or "info").upper())


def _is_journal(stream: str) -> bool:
    """`stream` is DEVICE:INODE of what the manager gave us (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"


class _Journalled(logging.Formatter):
    """Every line bears its priority: a traceback has many."""

    def format(self, record: logging.LogRecord) -> str:
        steps = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
        priority = next((number for least, number in steps if record.levelno >= least), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())
