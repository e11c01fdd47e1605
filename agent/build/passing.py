"""Images that builds give to their clients and that nobody keeps.

Two builds of the same come to one image. Invariants: it is there until the last of them has given it away,
and gone then, however that ended; an image that was here before them, that another build was asked for
meanwhile, or that has a name by then, or a container, is not theirs to take away.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection

from aio.together import to_its_end
from image.base import Images

Made = Callable[[Collection[str]], None]


class Passing:
    """Of one host."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self._users: Counter[str] = Counter()
        self._ours: set[str] = set()
        """Ids of those that go with their last user."""
        self._asked: set[str] = set()
        """Ids of those that others were to keep, while builds are under way that would not know it."""
        self._running = 0

    @contextlib.asynccontextmanager
    async def build(self, *, stay: bool) -> AsyncIterator[Made]:
        """Entered before the build, and told what it made; left once that was given away. `stay`: it is to
        be in the store from then on."""
        before = {image.id for image in self._images.list()} - self._ours
        held: list[str] = []

        def made(idents: Collection[str]) -> None:
            held.extend(set(idents))
            self._users.update(held)
            if stay:
                self._ours.difference_update(held)
                self._asked.update(held if self._running else ())
            else:
                self._ours.update(set(held) - before - self._asked)

        self._running += not stay
        try:
            yield made
        finally:
            self._running -= not stay
            if not self._running:
                self._asked.clear()
            self._users.subtract(held)
            self._users += Counter()  # drops those that nobody has
            await to_its_end(self._drop(frozenset(held) & self._ours))

    async def _drop(self, idents: Collection[str]) -> None:
        if idents:
            await self._images.prune(
                chosen=lambda image: (
                    image.id in idents and image.id in self._ours and not self._users[image.id]
                )
            )
            self._ours &= {image.id for image in self._images.list()}
