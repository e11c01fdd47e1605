"""Images that builds give to their clients and that nobody keeps.

Two builds of the same come to one image. Invariants: it is there until the last of them has given it away,
and gone then, however that ended; an image that has a name by then, or a container, is no longer theirs.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection

from aio.together import to_its_end
from image.base import Images


class Passing:
    """Of one host."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self._users: Counter[str] = Counter()

    def hold(self, stack: contextlib.AsyncExitStack, idents: Collection[str], *, stay: bool) -> None:
        """Until the stack unwinds; then they go, unless they are to stay."""
        self._users.update(idents)
        stack.push_async_callback(self._leave, frozenset(idents), stay)

    async def _leave(self, idents: frozenset[str], stay: bool) -> None:
        self._users.subtract(idents)
        self._users += Counter()  # drops those that nobody has
        if not stay:
            await to_its_end(self._drop(idents))

    async def _drop(self, idents: frozenset[str]) -> None:
        await self._images.prune(chosen=lambda image: image.id in idents and not self._users[image.id])
