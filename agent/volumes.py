"""Local volumes of one host: directories with a record, named by people or, anonymous, by 64 digits.

Invariants: a volume's directory is `<folder>/<name>/_data` and nothing that a container wrote can move it; a
volume that an instance uses is not removed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent.journal import Journal
from aio.subprocess import run
from aio.supervisor import in_thread
from model.errors import InUse, NotFound, Unsupported, WrongState
from model.ids import check_name
from model.spec import VolumeSpec
from model.status import VolumeReport

COPY_DEADLINE = 3600.0


class Volumes:
    """`users` gives, per volume, the names of instances that use it."""

    def __init__(
        self, folder: Path, journal: Journal, users: Callable[[], Mapping[str, Sequence[str]]]
    ) -> None:
        self._folder = folder
        self._journal = journal
        self.users = users
        self._known: dict[str, VolumeReport] = {}
        self.changed: Callable[[], None] = lambda: None
        """Called when a volume came or went."""

    def open(self) -> None:
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
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

    def used_by(self, name: str) -> Sequence[str]:
        return self.users().get(name, ())

    async def create(self, spec: VolumeSpec, now: float) -> VolumeReport:
        """Idempotent for a name that exists."""
        name = check_name("volume", spec.name) if spec.name else secrets.token_hex(32)
        if name in self._known:
            return self._known[name]
        if spec.options:
            raise Unsupported(f"volume {name}: driver options are not supported", hint="Use a bind mount")
        made = VolumeReport(name=name, created_at=now, labels=spec.labels, anonymous=not spec.name)
        await in_thread(self._make, name)
        await self._journal.put("volume", name, made)
        self._known[name] = made
        self.changed()
        return made

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
        await self.remove_unused(name)

    async def remove_unused(self, name: str) -> None:
        """For a caller who knows that nobody uses it. Idempotent."""
        if self._known.pop(name, None) is not None:
            await self._journal.delete("volume", name)
            await in_thread(shutil.rmtree, self._folder / name, True)
            self.changed()

    async def prune(self, *, all_unused: bool) -> Mapping[str, int]:
        """Anonymous volumes, or all, that nobody uses; bytes freed of each."""
        freed: dict[str, int] = {}
        for volume in self.all():
            if (volume.anonymous or all_unused) and not self.used_by(volume.name):
                freed[volume.name] = await in_thread(_usage, self._folder / volume.name)
                await self.remove(volume.name)
        return freed

    async def fill(self, name: str, source: str) -> None:
        """Copy what an image has at the mount point into a volume that is still empty, owners and modes kept
        (`source` is inside a root that no process runs in yet, its links resolved)."""
        target = self.path(name)
        if os.path.isdir(source) and not os.listdir(target):
            words = ["cp", "-a", "--no-target-directory", "--", source, target]
            (await run(words, deadline=COPY_DEADLINE)).check()

    def _make(self, name: str) -> None:
        path = self._folder / name / "_data"
        path.parent.mkdir(mode=0o711, exist_ok=True)
        path.mkdir(mode=0o755, exist_ok=True)


def _usage(folder: Path) -> int:
    total = 0
    for base, _, files in os.walk(folder):
        total += sum(os.lstat(os.path.join(base, name)).st_blocks * 512 for name in files)
    return total
