"""A Runtime whose promises are tested, and what its containers run; what the one in memory makes of that."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.runtime.base import Bundle, Created, ExecHandle, Exit, Runtime
from agent.runtime.fake import Program
from model.spec import ContainerSpec
from model.streams import ExecSpec

SLEEP = ("sleep", "1000")
QUICK = ("sh", "-c", "echo out; echo err >&2; exit 3")
STUBBORN = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
CAT = ("cat",)
MISSING = ("nothere",)
LEAVING = ("sh", "-c", "sleep 60 & echo said; exit 4")
PROGRAMS = {
    QUICK: Program(code=3, stdout=b"out\n", stderr=b"err\n"),
    # busybox's sleep as pid 1 of a namespace ignores a TERM that it has no handler for
    SLEEP: Program(ignores=frozenset({signal.SIGTERM})),
    STUBBORN: Program(stdout=b"ready\n", ignores=frozenset({signal.SIGTERM})),
    CAT: Program(echo=True),
    MISSING: Program(missing=True),
    LEAVING: Program(code=4, stdout=b"said\n"),
}
SERIAL = itertools.count(1)


@dataclass
class Subject:
    runtime: Runtime
    config: Callable[[ContainerSpec, str], dict[str, Any]]
    exec_process: Callable[[ExecSpec, dict[str, Any]], dict[str, Any]]
    directory: Path

    async def create(self, args: tuple[str, ...], **words: Any) -> tuple[Bundle, Created]:
        serial = next(SERIAL)
        ident = f"{serial:x}".rjust(16, "c") + os.urandom(24).hex()
        directory = self.directory / f"bundle-{serial}"
        directory.mkdir()
        spec = ContainerSpec(image="x", args=args, **words)
        bundle = Bundle(
            id=ident,
            directory=str(directory),
            config=self.config(spec, ident),
            log_path=str(directory / "container.log"),
            tty=spec.tty,
            stdin=spec.stdin,
            stdin_once=spec.stdin_once,
        )
        return bundle, await self.runtime.create(bundle)

    async def run(self, args: tuple[str, ...], **words: Any) -> tuple[Bundle, Created]:
        bundle, created = await self.create(args, **words)
        await self.runtime.start(bundle.id)
        return bundle, created

    async def exit(self, bundle: Bundle, created: Created) -> Exit:
        ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        stop = self.runtime.watch_exit(bundle.directory, created, ended.set_result)
        try:
            async with asyncio.timeout(30):
                return await ended
        finally:
            stop()

    async def exec(self, bundle: Bundle, *args: str, deadline: float = 0.0, **words: Any) -> ExecHandle:
        spec = ExecSpec(args=args, **words)
        process = self.exec_process(spec, bundle.config)
        return await self.runtime.exec(bundle.id, bundle.directory, spec, process, deadline=deadline)
