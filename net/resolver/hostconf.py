"""The host's own name servers, read anew when resolv.conf changes."""

from __future__ import annotations

import logging
import os

log = logging.getLogger("flota.resolver")

MOST_SERVERS = 3
"""MAXNS of resolv.conf(5)."""
LOCAL = "127.0.0.1"
"""What resolv.conf(5) means by naming none."""
_MOST_BYTES = 64 << 10


class HostServers:
    def __init__(self, path: str = "/etc/resolv.conf") -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._servers: tuple[str, ...] = (LOCAL,)
        self._complained = False

    def servers(self) -> tuple[str, ...]:
        """A look costs one stat. What can't be read is as it was read last."""
        try:
            found = os.stat(self._path)
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._servers = parse(file.read(_MOST_BYTES))
                self._stamp = stamp
            self._complained = False
        except OSError as error:
            if not self._complained:
                log.warning("%s: %s; as it was read last: %s", self._path, error.strerror, self._servers)
            self._complained = True
        return self._servers


def parse(text: str) -> tuple[str, ...]:
    found = []
    for line in text.splitlines():
        words = line.partition("#")[0].partition(";")[0].split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            found.append(words[1])
    return tuple(found[:MOST_SERVERS]) or (LOCAL,)
