"""When each image of a host was used last.

    <root>/used.json    {image id: unix seconds}

A start of a container must not wait for a disk: the times are in memory and written now and then. What a
crash loses makes an image look longer unused than it is, never younger; its arrival is in the catalog.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec

from aio.durable import write_file
from model.codec import UNREADABLE

log = logging.getLogger("flota.image")


class Uses:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._at: dict[str, float] = {}
        self._written: dict[str, float] = {}

    def open(self) -> None:
        """What can't be read is told and begun anew: nothing but an order rests on it."""
        try:
            self._at = msgspec.json.decode(self._path.read_bytes(), type=dict[str, float])
        except FileNotFoundError:
            return
        except UNREADABLE as error:
            log.warning("%s can't be read; images count as unused since they came: %s", self._path, error)
        self._written = dict(self._at)

    def used(self, image: str, now: float) -> None:
        self._at[image] = now

    def seen(self, images: Iterable[str], now: float) -> None:
        """Whose arrival nobody noted: they came now at the latest, unless they were used before."""
        for image in images:
            self._at.setdefault(image, now)

    def last(self, image: str, arrived: float, now: float) -> float:
        """Never in the future: after a clock that went back, an image ages all the same."""
        return min(max(self._at.get(image, 0.0), arrived), now)

    def noted(self, images: Collection[str], now: float) -> dict[str, float]:
        """For `write`; what is not in `images` is forgotten. From the event loop's thread, as `used` is."""
        self._at = {image: min(at, now) for image, at in self._at.items() if image in images}
        return dict(self._at)

    def write(self, noted: dict[str, float]) -> None:
        """Blocks for a write if anything changed; images may be used meanwhile."""
        if noted != self._written:
            write_file(self._path, msgspec.json.encode(noted))
            self._written = noted
