"""Local volumes of one host: directories with a record, named by people or, anonymous, by 64 digits.

Invariants: a volume's directory is `<folder>/<name>/_data`, and from its making to its removal the same one:
containers hold it by their mounts, so nothing moves or replaces it. A volume that an instance uses is not
removed; one at a time makes, fills or removes a volume.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from agent.journal import Journal
from agent.trees import remove_tree
from aio.diskusage import disk_usage
from aio.subprocess import run
from aio.supervisor import in_thread
from model.disk import DiskUse
from model.errors import InUse, NotFound, Unsupported, WrongState
from model.ids import check_name
from model.spec import VolumeSpec
from model.status import VolumeReport

COPY_DEADLINE = 3600.0
OWNER = "flota.container"
"""Label of an anonymous volume: the id of the container that it was made for."""
_REMOVED, _COPY, _READY = ".removed-", "_copy", "_ready"
"""`_copy` is being copied, or was when an agent died; `_ready` is whole and on its way into `_data`."""


class Volumes:
    """`users` gives, per volume, the instances that use it: id → name."""

    def __init__(
        self, folder: Path, journal: Journal, users: Callable[[], Mapping[str, Mapping[str, str]]]
    ) -> None:
        self._folder = folder
        self._journal = journal
        self.users = users
        self._known: dict[str, VolumeReport] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Of those that somebody works at or waits for."""
        self.changed: Callable[[], None] = lambda: None
        """Called when a volume came or went."""

    def open(self) -> None:
        """What the journal knows; a removal that was cut short is finished. Folders of no record stay: they
        may be all that is left of someone's data."""
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        for leftover in self._folder.glob(f"{_REMOVED}*"):
            remove_tree(leftover)
        self._known = self._journal.read("volume", VolumeReport)

    def all(self) -> Sequence[VolumeReport]:
        return [self._known[name] for name in sorted(self._known)]

    def get(self, name: str) -> VolumeReport:
        if name not in self._known:
            raise NotFound(f"no such volume: {name[:128]}")
        return self._known[name]

    def path(self, name: str) -> str:
        """Its directory. Raises WrongState when something else stands there, e.g. a link put in its place."""
        self.get(name)
        path = self._folder / name / "_data"
        try:
            real = stat.S_ISDIR(os.lstat(path).st_mode) and stat.S_ISDIR(os.lstat(path.parent).st_mode)
        except FileNotFoundError:
            real = False
        if not real:
            raise WrongState(f"volume {name}: {path} is no directory", hint="Put its data back, or remove it")
        return str(path)

    def used_by(self, name: str, *, but: str = "") -> Sequence[str]:
        """Names of the instances that use it, apart from the one with the id `but`."""
        return [user for ident, user in self.users().get(name, {}).items() if ident != but]

    async def create(self, spec: VolumeSpec, now: float) -> VolumeReport:
        """Idempotent for a name that exists. Raises InvalidInput, Unsupported."""
        name = check_name("volume", spec.name) if spec.name else secrets.token_hex(32)
        if spec.options:
            raise Unsupported(f"volume {name}: driver options are not supported", hint="Use a bind mount")
        return await self._add(
            VolumeReport(name=name, created_at=now, labels=spec.labels, anonymous=not spec.name)
        )

    async def anonymous(
        self, owner: str, target: str, now: float, labels: Mapping[str, str] | None = None
    ) -> VolumeReport:
        """The volume that this container has at `target`, made at the first call. Its name follows from both,
        so that one which was made just before a crash is found again."""
        name = hashlib.sha256(f"{owner}\0{target}".encode()).hexdigest()
        marked = {**(labels or {}), OWNER: owner}
        return await self._add(VolumeReport(name=name, created_at=now, labels=marked, anonymous=True))

    async def remove_anonymous(self, owner: str) -> None:
        """Those that were made for this container, but for what others use by now."""
        for volume in self.all():
            if volume.labels.get(OWNER) == owner and not self.used_by(volume.name, but=owner):
                await self._remove(volume.name)

    async def _add(self, made: VolumeReport) -> VolumeReport:
        name = made.name
        async with self._turn(name):
            if name in self._known:
                return self._known[name]
            await in_thread(self._make, name)
            await self._journal.put("volume", name, made)
            self._known[name] = made
        self.changed()
        return made

    def _turn(self, name: str) -> asyncio.Lock:
        """Ends with the last who holds it."""
        return self._turns.setdefault(name, asyncio.Lock())

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Raises NotFound (unless `force`), InUse."""
        if name not in self._known and force:
            return
        self.get(name)
        users = self.used_by(name)
        if users:
            raise InUse(
                f"volume {name} is used by {', '.join(users[:3])}", hint="Remove those containers first"
            )
        await self._remove(name)

    async def _remove(self, name: str) -> None:
        """Out of sight by one rename, then forgotten, then deleted: a crash leaves nothing half there."""
        aside = self._folder / f"{_REMOVED}{name}"
        async with self._turn(name):
            if self._known.pop(name, None) is None:
                return
            await in_thread(_set_aside, self._folder / name, aside)
            await self._journal.delete("volume", name)
            await in_thread(remove_tree, aside)
        self.changed()

    async def prune(self, *, all_unused: bool) -> Mapping[str, int]:
        """Anonymous volumes, or all, that nobody uses; bytes freed of each."""
        freed: dict[str, int] = {}
        for volume in self.all():
            if (volume.anonymous or all_unused) and not self.used_by(volume.name):
                freed[volume.name] = await in_thread(disk_usage, self._folder / volume.name)
                await self.remove(volume.name)
        return freed

    async def disk_use(self) -> DiskUse:
        """Of all."""
        sizes = {v.name: await in_thread(disk_usage, self._folder / v.name) for v in self.all()}
        loose = [name for name in sizes if not self.used_by(name)]
        return DiskUse(
            kind="volumes",
            total=len(sizes),
            active=len(sizes) - len(loose),
            size=sum(sizes.values()),
            reclaimable=sum(sizes[name] for name in loose),
        )

    async def fill(self, name: str, source: str) -> None:
        """Copy what an image has at the mount point into a volume that is still empty, owners and modes kept
        (`source` is inside a root that no process runs in yet, its links resolved). Others may have the
        volume mounted meanwhile, and what they wrote stays. All of it or nothing: what a crash cut short is
        gone on with."""
        async with self._turn(name):
            target = Path(self.path(name))
            copy, ready = target.with_name(_COPY), target.with_name(_READY)
            if not ready.exists():
                if not os.path.isdir(source) or os.listdir(target):
                    return
                if not os.listdir(source):
                    await in_thread(_copy_owner, source, target)
                    return
                await in_thread(remove_tree, copy)
                words = ["cp", "-a", "--no-target-directory", "--", source, str(copy)]
                (await run(words, deadline=COPY_DEADLINE)).check()
                await in_thread(os.rename, copy, ready)
            await in_thread(_pour, ready, target)

    def _make(self, name: str) -> None:
        path = self._folder / name / "_data"
        path.parent.mkdir(mode=0o711, exist_ok=True)
        path.mkdir(mode=0o755, exist_ok=True)


def _set_aside(path: Path, aside: Path) -> None:
    if path.exists():
        path.rename(aside)


def _pour(ready: Path, target: Path) -> None:
    """Each entry by a rename, so that none is ever half there; then the directory itself. Idempotent."""
    for name in os.listdir(ready):
        if not os.path.lexists(target / name):
            os.rename(ready / name, target / name)
    _copy_owner(ready, target)
    remove_tree(ready)


def _copy_owner(source: str | Path, target: Path) -> None:
    """Owner, mode, times and extended attributes."""
    info = os.stat(source)
    os.chown(target, info.st_uid, info.st_gid)
    shutil.copystat(source, target)
