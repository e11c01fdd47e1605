"""Who uses what of the store: collection asks here before it takes anything away.

A lease names digests: chain ids of layers, digests of documents. It lives in memory alone. What a crash of
the agent cuts short is begun anew and reads nothing of before, and the one user that outlives the agent, a
container's root, has its own record on disk; so there is nothing that a lease would have to survive for.
Invariant: what a lease names is neither deleted nor moved while it lasts, whether or not an image has it;
what collection had to leave for a lease's sake goes when the last of them ends.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator


class Leases:
    """`ended` is called when something that was left is nobody's any more."""

    def __init__(self, ended: Callable[[], object] = lambda: None) -> None:
        self._held: Counter[str] = Counter()
        self._left: set[str] = set()
        self._ended = ended

    @contextlib.contextmanager
    def hold(self, digests: Iterable[str]) -> Iterator[None]:
        """A lease on them, also of what is yet to come, until the block ends."""
        held = tuple(digests)
        self._held.update(held)
        try:
            yield
        finally:
            self._held.subtract(held)
            freed = {digest for digest in held if self._held[digest] <= 0}
            for digest in freed:
                del self._held[digest]
            if freed & self._left:
                self._left -= freed
                self._ended()

    def __contains__(self, digest: str) -> bool:
        return digest in self._held

    def keeps(self, digest: str) -> bool:
        """As `in`, for whoever would take it away: `ended` tells him when to try again."""
        if digest in self._held:
            self._left.add(digest)
            return True
        return False
