"""A build's step in a process that is killed while it is at it.

`python -m tests.support.killedbuilds FOLDER PARENT AT`: while the so many-th piece of work in a thread is
done, or with `said` once the step's process says something.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from image.dockerfile.instruction import Mount
from tests.support.buildlab import SaidSession, build_lab, run_step
from tests.support.killedsteps import CutsShort

SECRET = b"canary-55d1"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def build(folder: Path, parent: str, at: str) -> None:
    async with build_lab(folder, parent=parent) as lab:
        if at != "said":
            asyncio.get_running_loop().set_default_executor(CutsShort(int(at), die))
        session = SaidSession({"key": SECRET})
        session.heard = lambda data: die()
        mounts = [
            Mount(kind="secret", ident="key"),
            Mount(kind="cache", target="/cache"),
            Mount(kind="tmpfs", target="/a/b"),
        ]
        step = run_step("trap '' TERM HUP; (sleep 1000) & echo up; sleep 1000", mounts=mounts)
        with lab.files() as files:
            async with lab.runner() as runner:
                await runner.run(files.root, step, [None] * 3, session, 1)


if __name__ == "__main__":
    asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    asyncio.run(build(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
