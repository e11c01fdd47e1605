"""The host's own name servers, read anew when resolv.conf changes."""

from __future__ import annotations

import os

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

    def servers(self) -> tuple[str, ...]:
        """A look costs one stat. What can't be read is as it was read last."""
        try:
            found = os.stat(self._path)
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._servers = parse(file.read(_MOST_BYTES))
                self._stamp = stamp
        except OSError:
            pass
        return self._servers


def parse(text: str) -> tuple[str, ...]:
    found = []
    for line in text.splitlines():
        words = line.partition("#")[0].partition(";")[0].split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            found.append(words[1])
    return tuple(found[:MOST_SERVERS]) or (LOCAL,)
