"""Storage drivers beside each other: what a container costs in time and on disk, on ext4 and on btrfs.

`deploy/bench drivers` prints the table of docs/drivers.md. All go through the image store, as an agent does,
one after the other, on a file system of their own over a file of this machine's disk; numbers are medians of
`RUNS`. Disk use is what the file system has less of afterwards, everything written out.
"""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from image.commit import Commit
from image.drivers.choice import DRIVERS
from image.registry.source import NoSource
from image.store import ImageStore
from model.image import ImageConfig
from model.quantity import format_size

CASES = (("overlay2", "ext4"), ("overlay2", "btrfs"), ("btrfs", "btrfs"), ("vfs", "ext4"), ("vfs", "btrfs"))
RUNS = 9
FILES, SMALL, BIG = 5000, 8 << 10, 128 << 20
"""The image: so many files of so many bytes, and one large one."""
DISK = 8 << 30
PIECE = 1 << 20
Numbers = dict[str, str]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="flota-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        tar = folder / "image.tar"
        _write_image(tar)
        rows: dict[str, Numbers] = {}
        for driver, kind in CASES:
            with _file_system(folder, kind) as place:
                rows[f"{driver} on {kind}"] = asyncio.run(_Case(place, driver).measured(tar))
    print(_table(rows))


class _Case:
    """One driver on one file system."""

    def __init__(self, place: Path, driver: str) -> None:
        self._place = place
        self._root = place / "images"
        self._store = ImageStore(self._root, driver_choice=(DRIVERS[driver](), "bench"), source=NoSource())

    async def measured(self, tar: Path) -> Numbers:
        await self._store.open()
        try:
            return await self._numbers(tar)
        finally:
            for root in self._store.roots():
                await self._store.remove_root(root.container)
            await self._rest()
            await self._store.close()

    async def _numbers(self, tar: Path) -> Numbers:
        image = await self._store.import_tar(_pieces(tar), ref="bench:1")

        async def create(name: str) -> None:
            await self._store.prepare_root(name, image.id)
            await self._store.mount_root(name)

        self._sync()
        free = self._free()
        first = await _timed(lambda: create("first"))
        self._sync()
        image_cost, free = free - self._free(), self._free()
        names = [f"c{number}" for number in range(RUNS)]
        created = [await _timed(lambda name=name: create(name)) for name in names]  # type: ignore[misc]
        self._sync()
        cost = (free - self._free()) / RUNS
        small = [_write(self._file(name, f"files/{number}")) for number, name in enumerate(names)]
        again = [_write(self._file(name, f"files/{number}")) for number, name in enumerate(names)]
        big = [_write(self._file(name, "big")) for name in names]
        self._sync()
        written = (free - self._free()) / RUNS - cost
        committed = [await _timed(lambda name=name: self._commit(name)) for name in names[:3]]  # type: ignore[misc]
        removed = []
        for name in names:
            begin = time.perf_counter()
            await self._store.remove_root(name)
            told = time.perf_counter() - begin
            await self._rest()
            removed.append((told, time.perf_counter() - begin))
        return {
            "first container of an image": _ms(first),
            "next container": _ms(median(created)),
            "first write to a file of 8 KiB": _ms(median(small)),
            "second write to it": _ms(median(again)),
            "first write to a file of 128 MiB": _ms(median(big)),
            "commit of both": _ms(median(committed)),
            "remove, until it returns": _ms(median(told for told, _ in removed)),
            "remove, until the files are gone": _ms(median(whole for _, whole in removed)),
            "disk: the image's first container": format_size(max(image_cost, 0)),
            "disk: each further container": format_size(max(int(cost), 0)),
            "disk: the two writes": format_size(max(int(written), 0)),
        }

    def _file(self, name: str, path: str) -> Path:
        return self._root / "roots" / name / "root" / path

    async def _commit(self, name: str) -> None:
        await self._store.commit(name, Commit(config=ImageConfig(), ref=f"{name}:1", at=1.0))

    async def _rest(self) -> None:
        """Until all that was thrown away is deleted."""
        while any((self._root / "trash").iterdir()):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)

    def _free(self) -> int:
        found = os.statvfs(self._place)
        return found.f_bfree * found.f_frsize

    def _sync(self) -> None:
        subprocess.run(["sync", "-f", self._place], check=True)


def _write(path: Path) -> float:
    """Seconds that one byte takes, opened and closed."""
    begin = time.perf_counter()
    with open(path, "r+b", buffering=0) as file:
        file.write(b"x")
    return time.perf_counter() - begin


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    begin = time.perf_counter()
    await work()
    return time.perf_counter() - begin


@contextmanager
def _file_system(folder: Path, kind: str) -> Iterator[Path]:
    disk, place = folder / "disk", folder / "place"
    with open(disk, "wb") as file:
        file.truncate(DISK)
    place.mkdir()
    quiet = {"ext4": ("-q", "-F"), "btrfs": ("-q",)}[kind]
    subprocess.run([f"mkfs.{kind}", *quiet, disk], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()
        disk.unlink()


def _write_image(path: Path) -> None:
    """Content that neither compresses nor repeats."""
    with tarfile.open(path, "w") as tar:
        for name, size in [(f"files/{number}", SMALL) for number in range(FILES)] + [("big", BIG)]:
            entry = tarfile.TarInfo(name)
            entry.size = size
            tar.addfile(entry, io.BytesIO(os.urandom(size)))


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _ms(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.0f} ms" if value >= 100 else f"{value:.2g} ms"


def _table(rows: Mapping[str, Numbers]) -> str:
    """Markdown: a column for each case."""
    head = ["", *rows]
    lines = [[what, *(numbers[what] for numbers in rows.values())] for what in next(iter(rows.values()))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines))


if __name__ == "__main__":
    main()
