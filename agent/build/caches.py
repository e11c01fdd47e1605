"""Folders that RUN steps of any build on this host share: `--mount=type=cache`.

    <folder>/<key>/meta.json, <number>/data

`shared` users and a `locked` one have copy 0; each `private` one has a copy that nobody has now. Invariants:
a key is a digest, so no id leads anywhere; a folder without meta.json was half-made and is removed at start;
what somebody uses is not pruned.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import msgspec

from agent.trees import remove_tree
from aio.sharing import SharedLocks
from aio.supervisor import in_thread
from model.buildcache import CacheEntry, CacheFreed
from model.codec import UNREADABLE
from model.ids import is_id
from model.spec import Struct

Fill = Callable[[str], None]
"""Makes what a new cache begins with, in the folder given."""


class _Meta(Struct):
    ident: str
    created_at: float = 0.0
    used_at: float = 0.0


class CacheWish(Struct):
    """How a cache is wanted, and how it begins: `owner` is (uid, gid). None: as what it is filled with, or
    root's and 0755."""

    key: str
    ident: str
    sharing: str = "shared"
    owner: tuple[int, int] | None = None
    mode: int | None = None


class Caches:
    """`now` gives unix seconds. `open` must be called before all else."""

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        self._folder = folder
        self._now = now
        self._locks = SharedLocks()
        self._used: Counter[tuple[str, int]] = Counter()
        self._making = SharedLocks()

    def open(self) -> None:
        """Blocks. What is half-made goes."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in self._folder.iterdir():
            if self._meta(entry.name) is None:
                remove_tree(entry)
                continue
            for copy in entry.iterdir():
                if copy.is_dir() and not (copy / "data").is_dir():
                    remove_tree(copy)

    @contextlib.asynccontextmanager
    async def hold(
        self, wish: CacheWish, fill: Fill | None = None, waiting: Callable[[], object] = lambda: None
    ) -> AsyncIterator[str]:
        """Its folder, until the block ends. `waiting` is told when somebody else has it alone."""
        async with contextlib.AsyncExitStack() as stack:
            number = 0
            if wish.sharing == "private":
                while self._used[wish.key, number]:
                    number += 1
                self._take(stack, wish.key, number)
            lock = self._locks.of(f"{wish.key}/{number}")
            if self._used[wish.key, number] > (wish.sharing == "private"):
                waiting()
            await stack.enter_async_context(lock.shared() if wish.sharing == "shared" else lock.alone())
            if wish.sharing != "private":
                self._take(stack, wish.key, number)
            yield await self._ready(wish, number, fill)

    def _take(self, stack: contextlib.AsyncExitStack, key: str, number: int) -> None:
        """Nobody prunes it, and no private user gets it, until the stack unwinds."""
        self._used[key, number] += 1
        stack.callback(self._leave, key, number)

    def _leave(self, key: str, number: int) -> None:
        self._used[key, number] -= 1
        self._used += Counter()  # drops what nobody has

    async def _ready(self, wish: CacheWish, number: int, fill: Fill | None) -> str:
        async with self._making.of(f"{wish.key}/{number}").alone():
            return str(await in_thread(self._made, wish, number, fill))

    def _made(self, wish: CacheWish, number: int, fill: Fill | None) -> str:
        place = self._folder / wish.key
        place.mkdir(mode=0o700, exist_ok=True)
        known, now = self._meta(wish.key), self._now()
        meta = _Meta(ident=wish.ident, created_at=known.created_at if known else now, used_at=now)
        data = place / str(number) / "data"
        if not data.is_dir():
            new = place / str(number) / "new"
            if new.parent.exists():
                remove_tree(new.parent)
            new.mkdir(mode=0o700, parents=True)
            os.chmod(new, 0o755)  # noqa: S103 - its folder is ours alone
            if fill is not None:
                fill(str(new))
            if wish.owner is not None:
                os.chown(new, *wish.owner)
            if wish.mode is not None:
                os.chmod(new, wish.mode)
            os.rename(new, data)
        fresh = place / "meta.new"
        fresh.write_bytes(msgspec.json.encode(meta))
        os.rename(fresh, place / "meta.json")
        return str(data)

    def _meta(self, key: str) -> _Meta | None:
        """None of what is no cache, or half of one."""
        if not is_id(key):
            return None
        try:
            return msgspec.json.decode((self._folder / key / "meta.json").read_bytes(), type=_Meta)
        except (OSError, *UNREADABLE):
            return None

    # -- how much there is --------------------------------------------------------------------------
    async def entries(self) -> tuple[CacheEntry, ...]:
        """All of them, those used longest ago first."""
        found: tuple[CacheEntry, ...] = await in_thread(self._entries)
        return found

    def _entries(self) -> tuple[CacheEntry, ...]:
        found = []
        for key in os.listdir(self._folder):
            if (meta := self._meta(key)) is not None:
                entry = CacheEntry(
                    id=key,
                    kind="mount",
                    source=meta.ident,
                    size=_size(self._folder / key),
                    created=meta.created_at,
                    used=meta.used_at,
                    in_use=self._in_use(key),
                )
                found.append(entry)
        return tuple(sorted(found, key=lambda entry: (entry.used, entry.id)))

    async def remove(self, ids: Iterable[str]) -> CacheFreed:
        """Those of them that nobody uses."""
        gone: list[str] = []
        freed = 0
        for key in ids:
            if self._meta(key) is not None and not self._in_use(key):
                grave = self._folder / f"{key}.gone"
                os.rename(self._folder / key, grave)  # from now on a new user makes a new one
                freed += await in_thread(_size, grave)
                await in_thread(remove_tree, grave)
                gone.append(key)
        return CacheFreed(entries=tuple(gone), freed=freed)

    def _in_use(self, key: str) -> bool:
        used = tuple(self._used.items())  # at once: a thread asks too
        return any(name == key and count for (name, _), count in used)


def _size(folder: Path) -> int:
    total = 0
    for base, names, files in os.walk(folder):
        for name in (*names, *files):
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(base, name)).st_blocks * 512
    return total
