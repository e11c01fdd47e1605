"""Foreign answers, kept as raw bytes as long as they say. No IO; time is an argument.

Invariants: nothing outlives the least TTL in it (RFC 1035), of a negative answer that of its SOA (RFC 2308),
or `MOST_TTL`; an answer given again tells what is left; count and bytes are bounded, the longest unused go
first. Answers that are cut off, failed, or say no TTL are not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

from net.resolver import codec
from net.resolver.codec import Walk

MOST_ENTRIES, MOST_BYTES, MOST_TTL = 8192, 8 << 20, 3600
_SOA = 6


class _Entry(NamedTuple):
    reply: bytes
    ttls: tuple[tuple[int, int], ...]
    """Where each TTL stands, and what it was."""
    since: float
    until: float


class Cache:
    def __init__(self, *, entries: int = MOST_ENTRIES, size: int = MOST_BYTES) -> None:
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._most_entries, self._most_size = entries, size
        self._size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, now: float) -> bytes | None:
        """The reply with its TTLs as old as they are; its id is whatever it was."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry.until:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        age = max(0, int(now - entry.since))
        if not age:
            return entry.reply
        aged = bytearray(entry.reply)
        for at, ttl in entry.ttls:
            aged[at : at + 4] = max(0, ttl - age).to_bytes(4, "big")
        return bytes(aged)

    def put(self, key: Hashable, reply: bytes, seen: Walk, now: float) -> None:
        life = lifetime(reply, seen)
        if life <= 0 or len(reply) > self._most_size:
            return
        if key in self._entries:
            self._drop(key)
        ttls = tuple((r.ttl_at, r.ttl) for r in seen.records if r.type != codec.OPT)
        self._entries[key] = _Entry(reply, ttls, now, now + life)
        self._size += len(reply)
        while len(self._entries) > self._most_entries or self._size > self._most_size:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Hashable) -> None:
        self._size -= len(self._entries.pop(key).reply)


def lifetime(reply: bytes, seen: Walk) -> int:
    """Seconds for which an answer may be given again. A TTL with its highest bit set is 0 (RFC 2181)."""
    if seen.flags & codec.TC or seen.rcode not in (codec.NOERROR, codec.NXDOMAIN):
        return 0
    found = [0 if r.ttl >> 31 else r.ttl for r in seen.records if r.type != codec.OPT]
    if seen.rcode == codec.NXDOMAIN or not any(r.section == 1 for r in seen.records):
        soa = next((r for r in seen.records if r.type == _SOA and r.section == 2), None)
        if soa is None or soa.end - soa.data_at < 22:
            return 0
        found.append(int.from_bytes(reply[soa.end - 4 : soa.end], "big"))
    return min(MOST_TTL, *found) if found else 0
