"""One source of a COPY, written to where it goes.

Invariants: a directory's own time, mode and owner are set once its content is there; one that only leads to
what is meant (`--parents`, a `!` of `--exclude`) is made when that comes, and not at all if nothing does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from image.build import copyplan
from image.build.contentkey import left_out
from image.build.places import NO_TIME, Folder, Item, descend, shown
from image.build.select import Picked
from image.build.target import Here, Spot, Target, standing, told
from image.build.walking import Step, walk
from image.dockerfile.patterns import Patterns

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Writer:
    """`path`: where it goes; `several`: so do others."""

    def __init__(self, target: Target, path: str, without: Patterns | None, *, several: bool = False) -> None:
        self._target = target
        self._path = path
        self._without = without
        self._several = several

    def picked(self, top: Folder, one: Picked, source: str) -> int:
        """How many entries were meant. Raises InvalidInput, Exhausted, Unsupported."""
        self._target.new_source()
        if one.item.kind == "dir":
            return self._folder(top, one, source)
        if left_out(one.name, self._without):
            return 0
        folder = descend(top, one.parts[:-1])
        try:
            with self._target.spot(self._path, folder=copyplan.wants_folder(self._path)) as spot:
                here, label = self._place(spot, one.name, source)
                self._target.entry(folder, one.parts[-1], one.item, here, label)
        finally:
            if folder is not top:
                folder.close()
        return 1

    def inline(self, name: bytes, content: bytes, item: Item) -> None:
        with self._target.spot(self._path, folder=copyplan.wants_folder(self._path)) as spot:
            self._target.inline(content, item, *self._place(spot, name, shown(name)))

    def file(self, name: bytes, fd: int, item: Item) -> None:
        """An open file."""
        with self._target.spot(self._path, folder=copyplan.wants_folder(self._path)) as spot:
            self._target.opened(fd, item, *self._place(spot, name, shown(name)))

    def _place(self, spot: Spot, name: bytes, source: str) -> tuple[Here, bytes]:
        there = standing(spot.here, spot.name)
        placement = copyplan.place(
            source, folder=False, target=self._path, standing=there, several=self._several
        )
        if placement == "as":
            return spot.here, spot.name
        if not spot.name:
            return spot.here, name
        # Its name had no slash at the end, and yet a directory is there.
        with self._target.spot(self._path, folder=True) as inner:
            return Here(os.dup(inner.here.fd), inner.here.path), name

    # -- directories --------------------------------------------------------------------------------
    def _folder(self, top: Folder, one: Picked, source: str) -> int:
        folder = descend(top, one.parts)
        try:
            with self._target.spot(self._path, folder=False) as spot:
                there = standing(spot.here, spot.name)
                copyplan.place(source, folder=True, target=self._path, standing=there)
            with self._target.spot(self._path, folder=True) as spot:
                count = self._merge(folder, spot.here, one)
                if one.item.mtime_ns != NO_TIME:
                    self._target.set_time(spot.here.fd, one.item.mtime_ns)
                return count
        finally:
            if folder is not top:
                folder.close()

    def _merge(self, folder: Folder, here: Here, one: Picked) -> int:
        levels: list[_Level] = [_Level(here, None, made=True)]
        count = 0
        try:
            for step in walk(folder, one.only, self._without):
                if not step.name:
                    self._end(levels.pop())
                    continue
                count += step.meant
                if step.inner is None:
                    self._target.entry(step.folder, step.name, step.item, self._ready(levels), step.name)
                    continue
                levels.append(_Level(None, step))
                if step.meant:
                    self._ready(levels)
            return count
        finally:
            for level in levels[1:]:
                if level.here is not None:
                    os.close(level.here.fd)

    def _ready(self, levels: Sequence[_Level]) -> Here:
        """The innermost directory, made with those above it."""
        above = levels[0].here
        assert above is not None
        for level in levels[1:]:
            if level.here is None:
                self._begin(level, above)
            assert level.here is not None
            above = level.here
        return above

    def _begin(self, level: _Level, above: Here) -> None:
        step = level.step
        assert step is not None
        name = step.name
        self._target.count(name)
        with told(above, name):
            try:
                os.mkdir(name, 0o700, dir_fd=above.fd)
                level.made = True
            except FileExistsError:
                where = "/" + shown(above.path + name)
                copyplan.replace(where, folder=True, standing=standing(above, name))
            level.here = above.below(os.open(name, _FOLDER, dir_fd=above.fd), name)

    def _end(self, level: _Level) -> None:
        if level.here is None:
            return
        step = level.step
        assert step is not None and step.inner is not None
        try:
            if step.meant or level.made:
                xattrs = step.folder.xattrs(step.name or level.name, step.inner.fd)
                with told(level.here, b""):
                    self._target.finish(level.here.fd, step.item, xattrs)
            else:
                with told(level.here, b""):
                    os.fchmod(level.here.fd, step.item.mode)
        finally:
            os.close(level.here.fd)


class _Level:
    """A directory that the walk is in. `here`: None until it is made; `step`: None for the target itself."""

    def __init__(self, here: Here | None, step: Step | None, *, made: bool = False) -> None:
        self.here = here
        self.step = step
        self.name = step.name if step is not None else b""
        self.made = made
