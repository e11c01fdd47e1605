"""Works of an image store in processes that are killed before a certain change of theirs to the disk.

`python -m tests.support.killedcalls ROOT` reads lines `VERB NUMBER kill|power [REFERENCE]` and answers each
with the wait status of the process that did it: 9 for one that was killed, 0 for one that came to its end.
What changes a disk is told by the interpreter's own audit events (PEP 578), so that no step is missed or
named here.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from image.commit import Commit
from image.store import ImageStore
from model.image import ImageConfig
from tests.support.buildstore import StoreLab
from tests.support.images import chunks
from tests.support.imagestores import ARCHIVE, OTHER, made
from tests.support.waiting import until

CHANGES = frozenset({"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"})
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


DOCKERFILE = "FROM scratch AS a\nRUN one\nFROM a\nRUN two\nCOPY --from=a /one /three\nVOLUME /v\nRUN gone\n"
COMMANDS: Mapping[str, Callable[[str], None]] = {
    "one": lambda root: _put(f"{root}/one"),
    "two": lambda root: _put(f"{root}/two"),
    "gone": lambda root: os.remove(f"{root}/one"),
}
BUILT_FILES = {"two", "three"}


def _put(path: str) -> None:
    Path(path).write_bytes(b"x")


SHUTDOWN, WITHOUT_LOG = 0x8004587D, 2
"""EXT4_IOC_SHUTDOWN and EXT4_GOING_FLAGS_NOLOGFLUSH (linux/ext4.h): what xfstests' godown does."""


def power_off(place: Path) -> None:
    """What its file system has not written by now is lost, its journal's open part too."""
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, SHUTDOWN, WITHOUT_LOG.to_bytes(4, sys.byteorder))
    finally:
        os.close(fd)


class DiesBefore:
    """An audit hook: the so many-th change never happens. With `power` the disk's power goes first."""

    def __init__(self, at: int, power: Path | None) -> None:
        self.left = at
        self.power = power

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & WRITES
        if event not in CHANGES and not writes:
            return
        if self.left == 0:
            if self.power is not None:
                self.left = -1  # the hook hears of its own acts too
                power_off(self.power)
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


async def load(store: ImageStore) -> None:
    await store.load(chunks(ARCHIVE))


async def imported(store: ImageStore) -> None:
    await store.import_tar(chunks(OTHER), ref="other")


async def commit(store: ImageStore) -> None:
    await store.commit("c", Commit(config=ImageConfig(), ref="made:1", at=1.0))


async def prune(store: ImageStore) -> None:
    await store.prune(all_unused=True)


async def free(store: ImageStore) -> None:
    await store.free(1 << 40, spare={}, unused_for=0)


async def remove(store: ImageStore) -> None:
    await store.remove("other")


async def build(store: ImageStore) -> None:
    await StoreLab(store, **COMMANDS).build(DOCKERFILE, names=("built",))
    await until(lambda: not store.build_cache.settling, deadline=20)
    await store.build_cache.written()


WORKS: Mapping[str, Callable[[ImageStore], Awaitable[None]]] = {
    "load": load,
    "import": imported,
    "commit": commit,
    "prune": prune,
    "free": free,
    "remove": remove,
    "build": build,
}


async def pull(store: ImageStore, ref: str) -> None:
    await store.pull(ref)


async def pull_all(store: ImageStore, ref: str) -> None:
    await store.pull_all(ref)


TRANSFERS: Mapping[str, Callable[[ImageStore, str], Awaitable[None]]] = {"pull": pull, "pull-all": pull_all}


async def work(root: Path, verb: str, at: int, power: Path | None, ref: str) -> None:
    store = made(root)
    await store.open()
    sys.addaudithook(DiesBefore(at, power))
    await (TRANSFERS[verb](store, ref) if verb in TRANSFERS else WORKS[verb](store))
    if power is not None:
        power_off(power)


def main(root: Path) -> None:
    for line in sys.stdin:
        verb, at, how, *ref = line.split()
        pid = os.fork()
        if pid == 0:
            asyncio.run(work(root, verb, int(at), root if how == "power" else None, "".join(ref)))
            os._exit(0)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
