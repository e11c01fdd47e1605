"""Room for images on this host: when its disk fills, what nothing needs goes, the longest unused first.

Invariant: what a container of the last View is made of, what one here stands on, and what the fleet keeps for
its services is never taken by itself, whoever asks for room; without a View nothing is. Decisions are
`image.collection`'s and the image store's; here is only when, and for whom.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable

from agent.record import Local
from aio.backoff import jittered
from aio.mailbox import Bell
from image.base import Choice, Images
from image.collection import needed
from image.reference import familiar
from model.api import ImageRemoved
from model.buildcache import CacheKeeping
from model.disk import DiskUse
from model.errors import FlotaError
from model.ids import short
from model.image import ImageRecord
from model.quantity import format_size
from model.view import View

log = logging.getLogger("flota.agent")
PERIOD = 60.0
"""Seconds, jittered, between looks at the disk; what brings images rings besides."""
Told = Callable[[str, ImageRecord, str], None]


def spared(view: View, records: Iterable[Local]) -> dict[str, str]:
    """References of images that stay, each with the reason in words. Pure."""
    why: dict[str, str] = {}
    for wish in view.instances.values():
        why.setdefault(wish.spec.image, f"container {wish.name} is made of it")
    for record in records:
        if record.image_id:
            why.setdefault(record.image_id, f"container {short(record.instance)} is made of it")
    for kept in view.kept_images.values():
        for number, image in enumerate(kept.images):
            use = "is made of it" if number == 0 else "may go back to it"
            why.setdefault(image, f"service {kept.service} {use}")
    return why


class ImageRoom:
    """`view` is the last one, None before the first; `records` are those of this host's instances."""

    def __init__(
        self, images: Images, view: Callable[[], View | None], records: Callable[[], Iterable[Local]]
    ) -> None:
        self._images = images
        self._view = view
        self._records = records
        self._tidying = asyncio.Lock()
        self.bell = Bell()
        """To be rung when images came or the policy may be another."""
        self.told: Told = lambda action, image, reason: None
        """Hears of each image that went, and why."""
        self.keep_cache: Callable[[CacheKeeping], object] = lambda keeping: None
        """Hears at each look what the fleet's policy is for results of build steps."""
        self.changed: Callable[[], None] = lambda: None
        """Called when `troubles` are others."""
        self.troubles: tuple[str, ...] = ()

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                if (view := self._view()) is not None:
                    self.keep_cache(view.build_cache)
                await self.tidy()
            except (FlotaError, OSError) as error:
                self._trouble(f"images: no room could be made: {error}")
            await self.bell.wait(jittered(PERIOD, random.random()))

    async def tidy(self, to: int | None = None) -> ImageRemoved:
        """Make room as the fleet's policy says, or until `to` percent of the disk are used at most."""
        async with self._tidying:
            view = self._view()
            return ImageRemoved() if view is None else await self._tidy(view, to)

    async def _tidy(self, view: View, to: int | None) -> ImageRemoved:
        keeping = view.keeping
        high, low = (keeping.gc_high, keeping.gc_low) if to is None else (0, to)
        if needed(self._images.disk(), high, low):
            await self._images.deleted()
        disk = self._images.disk()
        need = needed(disk, high, low)
        if not need:
            self._trouble("")
            return ImageRemoved()
        names = {image.id: image for image in self._images.list()}
        removed = await self._images.free(
            need, spare=spared(view, self._records()), unused_for=keeping.min_age
        )
        reason = f"its disk was {disk.used_percent:.0f} % full"
        for ident in removed.deleted:
            image = names.get(ident, ImageRecord(id=ident))
            log.info("image %s went: %s", familiar(image.names[0]) if image.names else ident[7:19], reason)
            self.told("delete", image, reason)
        disk = self._images.disk()
        over = to is None and needed(disk, keeping.gc_high, keeping.gc_low)
        self._trouble(
            f"images: the disk is {disk.used_percent:.0f} % full and no image may go; "
            f"{format_size(over)} more should be free"
            if over
            else ""
        )
        return removed

    async def prune(self, *, all_unused: bool, chosen: Choice) -> ImageRemoved:
        """By hand: whatever the disk. Raises as `Images.prune`."""
        view = self._view()
        spare = {} if view is None else spared(view, self._records())
        names = {image.id: image for image in self._images.list()}
        removed = await self._images.prune(all_unused=all_unused, chosen=chosen, spare=spare)
        for ident in removed.deleted:
            self.told("delete", names.get(ident, ImageRecord(id=ident)), "pruned by hand")
        return removed

    def usage(self) -> DiskUse:
        view = self._view()
        return self._images.usage({} if view is None else spared(view, self._records()))

    def _trouble(self, words: str) -> None:
        troubles = (words,) if words else ()
        if troubles != self.troubles:
            self.troubles = troubles
            if words:
                log.warning("%s", words)
            self.changed()
