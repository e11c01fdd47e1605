"""Transfers of images in processes that are killed while a certain piece of their work is done.

`python -m tests.support.killedsteps ROOT` reads lines `VERB REFERENCE NUMBER` and answers each with the wait
status of the process that did it: 9 for one that was killed, 0 for one that came to its end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support.imagestores import made


class CutsShort(ThreadPoolExecutor):
    """Calls `cut` while its so many-th piece of work is done."""

    def __init__(self, at: int, cut: Callable[[], object]) -> None:
        super().__init__()
        self.left, self.cut = at, cut
        self.loop = asyncio.get_running_loop()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **words: Any) -> Future[Any]:
        if self.left == 0:
            self.loop.call_soon(self.cut)
        self.left -= 1
        return super().submit(fn, *args, **words)


async def transfer(root: Path, verb: str, ref: str, at: int) -> None:
    store = made(root)
    await store.open()
    executor = CutsShort(at, lambda: os.kill(os.getpid(), signal.SIGKILL))
    asyncio.get_running_loop().set_default_executor(executor)
    await (store.pull(ref) if verb == "pull" else store.push(ref))


def main(root: Path) -> None:
    for line in sys.stdin:
        verb, ref, at = line.split()
        pid = os.fork()
        if pid == 0:
            asyncio.run(transfer(root, verb, ref, int(at)))
            os._exit(0)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
