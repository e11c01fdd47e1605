"""Builds in processes that are killed while they are at it.

`python -m tests.support.killedbuilds step FOLDER PARENT AT`: one RUN, while the so many-th piece of work in a
thread is done, or with `said` once the step's process says something. `… builds FOLDER PARENT` reads such
numbers and answers each with the wait status of the process that built: 9 for one that was killed, 0 for one
that came to its end.
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
from tests.support.wholebuilds import whole_builds

SECRET = b"canary-55d1"
TEXT = """\
FROM busybox:1 AS a
RUN --network=none --mount=type=cache,target=/cache --mount=type=tmpfs,target=/x/y \\
    echo a > /a; echo 1 >> /cache/n; touch /x/y/z
FROM busybox:1
RUN --network=none --mount=from=a,target=/in,rw cp /in/a /b && touch /in/z
COPY --from=a /a /c
RUN --network=none cat /b /c > /d
"""


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


async def whole(folder: Path, parent: str, at: int) -> None:
    async with whole_builds(folder, parent=parent) as builds:
        asyncio.get_running_loop().set_default_executor(CutsShort(at, die))
        await builds.build(TEXT, no_cache=True)


def serve(folder: Path, parent: str) -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            asyncio.run(whole(folder, parent, int(line)))
            os._exit(0)
        print(os.waitpid(pid, 0)[1], flush=True)


def main(verb: str, folder: str, parent: str, at: str = "") -> None:
    asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    if verb == "step":
        asyncio.run(build(Path(folder), parent, at))
    else:
        serve(Path(folder), parent)


if __name__ == "__main__":
    main(*sys.argv[1:])
