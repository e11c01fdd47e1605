"""Images that a build begins with or copies from.

Invariant: each is got once for a build, and stays until its end.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import ExitStack

from image.build.graph import shown
from image.build.parts import Parts
from image.build.telling import Teller, Telling
from image.reference import familiar, parse
from model.build import BuildRequest
from model.errors import InvalidInput
from model.image import ImageRecord
from model.registries import Login
from model.status import Platform


class Bases:
    """`held` is the build's."""

    def __init__(self, request: BuildRequest, parts: Parts, teller: Teller, held: ExitStack) -> None:
        self._request = request
        self._parts = parts
        self._teller = teller
        self._held = held
        self._images: dict[tuple[str, str], ImageRecord] = {}
        self._wanted: dict[tuple[str, str], Platform] = {}
        self._pulling: dict[tuple[str, str], asyncio.Lock] = {}

    @property
    def used(self) -> tuple[tuple[str, Platform, ImageRecord], ...]:
        """Each that was got, by the reference and platform as they were asked for."""
        return tuple((ref, self._wanted[ref, wanted], image) for (ref, wanted), image in self._images.items())

    async def image(self, ref: str, platform: Platform, name: str, line: int = 0) -> ImageRecord:
        """Told as a step of that name where it was not there yet. Raises what pulls do."""
        wanted = shown(platform)
        key = (ref, wanted)
        async with self._pulling.setdefault(key, asyncio.Lock()):
            found = self._images.get(key)
            if found is None:
                with self._teller.step(name, line) as telling:
                    found = await self._got(ref, platform, telling)
                self._images[key], self._wanted[key] = found, platform
            return found

    async def _got(self, ref: str, platform: Platform, telling: Telling) -> ImageRecord:
        parts = self._parts
        if parts.layouts is not None and ref in parts.layouts:
            found = await parts.layouts.image(ref, platform)
            self._held.enter_context(parts.snapshots.hold(parts.snapshots.of_image(found)))
            return found
        found = await parts.images.ensure(
            ref,
            policy="always" if self._request.pull else "missing",
            platform=shown(platform),
            login=self._login,
            progress=telling.progress,
        )
        self._held.enter_context(parts.images.lease(found.id))
        return found

    async def _login(self, ref: str) -> Login:
        host = parse(ref).host
        return self._request.logins.get(host) or await self._parts.login(ref)


def familiar_of(ref: str) -> str:
    """As people call it."""
    with contextlib.suppress(InvalidInput):
        return familiar(ref)
    return ref
