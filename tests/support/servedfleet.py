"""A fake fleet served on a unix socket by a thread, and the real `flota` command run against it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from api.listen import serve_unix
from api.server import controller_app, runner
from tests.support.fakeports import FakeFleet

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 30


class ServedFleet:
    """`do` runs a coroutine function of the fleet on its own loop."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.fleet = FakeFleet()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        async with self.fleet:
            app = runner(self.application())
            await app.setup()
            await serve_unix(app, self.socket)
            self._ready.set()
            await self._end.wait()
            await app.cleanup()

    def application(self) -> web.Application:
        return controller_app(self.fleet, fleet_id="fleet")

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(DEADLINE)

    def stop(self) -> None:
        """Also a second time."""
        assert self._end is not None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(DEADLINE)

    def do(self, call: Callable[..., Coroutine[Any, Any, T]], *args: Any, **named: Any) -> T:
        return asyncio.run_coroutine_threadsafe(call(*args, **named), self._loop).result(DEADLINE)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "cli.main", "--host", f"unix://{self.socket}", *words]

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FLOTA_")}
        return {**kept, "PYTHONPATH": str(ROOT), **more}

    def flota(
        self, *words: str, stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(*words), input=stdin, capture_output=True, timeout=DEADLINE, check=False,
            env=self.environment(**(env or {})),
        )  # fmt: skip

    def ok(self, *words: str, stdin: bytes = b"") -> str:
        done = self.flota(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def json(self, *words: str) -> list[Any]:
        return [json.loads(line) for line in self.ok(*words, "--format", "json").splitlines()]


@contextlib.contextmanager
def served(folder: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(str(folder / "api.sock"))
    made.start()
    try:
        yield made
    finally:
        made.stop()
