"""The proxy at work: the state file is read when it changes, ports are served as it says."""

from __future__ import annotations

import logging
from collections.abc import Callable

from aio.inotify import DirectoryBells
from aio.mailbox import Bell
from net.proxy.listen import Listeners
from net.proxy.state import Places, decode, places
from net.supervise.place import Place

log = logging.getLogger("flota.proxy")

RETRY, LOOK = 2.0, 30.0
"""Seconds until an address that could not be bound is tried again, and between looks without a bell."""


class Proxy:
    def __init__(self, place: Place, listeners: Listeners, *, retry: float = RETRY) -> None:
        self._place, self._listeners, self._retry = place, listeners, retry
        self._places: Places = {}
        self._deny: tuple[str, ...] = ()

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Until cancelled; then connections are reset. `ready` is called once the folder is watched, before
        anything is served."""
        bell, bells = Bell(), DirectoryBells()
        bells.add(self._place.path, bell.ring)
        ready()
        log.info("serving the ports in %s", self._place.path)
        try:
            while True:
                self._place.look(self._take)
                self._listeners.apply(self._places, self._deny)
                self._place.tell(*self._listeners.troubles)
                await bell.wait(self._retry if self._listeners.troubles else LOOK)
        finally:
            self._listeners.close()
            bells.close()

    def _take(self, data: bytes) -> None:
        state = decode(data)
        self._places, self._deny = places(state), state.deny
