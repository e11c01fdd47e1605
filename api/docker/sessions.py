"""Who is attached to what: the open streams of containers and execs, for requests that are about them.

A terminal's size comes in a request of its own, and goes to the host in the stream of one who is attached.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from model.streams import pack_resize


class Sessions:
    """Writers of streams in `model.streams`' frames, by id."""

    def __init__(self) -> None:
        self._writers: defaultdict[str, list[asyncio.StreamWriter]] = defaultdict(list)

    @contextmanager
    def attached(self, ident: str, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers[ident].append(writer)
        try:
            yield
        finally:
            self._writers[ident].remove(writer)
            if not self._writers[ident]:
                del self._writers[ident]

    def resize(self, ident: str, rows: int, cols: int) -> bool:
        """False when nobody is attached."""
        for writer in reversed(self._writers.get(ident, [])):
            if not writer.is_closing():
                writer.write(pack_resize(rows, cols))
                return True
        return False
