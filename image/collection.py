"""Which images go so that a disk has room again: the longest unused first. Pure.

Invariant: what is spared, leased or used is never among them, nor one whose going would free nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from model.spec import Struct


class Stored(Struct):
    """An image as collection sees it."""

    id: str
    chains: tuple[str, ...]
    """Chain ids of its layers."""
    used_at: float
    """Unix seconds of its last use, its arrival at least."""


class Disk(Struct):
    """Of the file system that images lie on, in bytes."""

    capacity: int
    free: int
    """That we may have: without what is reserved for root."""

    @property
    def used_percent(self) -> float:
        return 100.0 * (self.capacity - self.free) / self.capacity if self.capacity else 0.0


def needed(disk: Disk, high: int, low: int) -> int:
    """Bytes to be freed: none below `high` percent, else what brings it down to `low`. kubelet's rule
    (image_gc_manager.go): `high` 100 means never."""
    if high >= 100 or disk.used_percent < high:
        return 0
    return max(disk.capacity * (100 - low) // 100 - disk.free, 0)


def victims(
    images: Sequence[Stored],
    sizes: Mapping[str, int],
    *,
    spared: Collection[str],
    need: int,
    unused_before: float,
) -> tuple[str, ...]:
    """Ids, the longest unused first, whose going frees `need` bytes or as much as can be. `sizes` are what
    layers take on disk, by chain id; what is in `spared` or was used later than `unused_before` stays."""
    users = Counter(chain for image in images for chain in image.chains)
    free, chosen = 0, list[Stored]()
    for image in sorted(images, key=lambda i: (i.used_at, i.id)):
        if free >= need:
            break
        if image.id in spared or image.used_at > unused_before:
            continue
        chosen.append(image)
        users.subtract(image.chains)
        free += sum(sizes.get(chain, 0) for chain in image.chains if not users[chain])
    return tuple(image.id for image in _worth(chosen, users, sizes))


def _worth(chosen: Sequence[Stored], users: Counter[str], sizes: Mapping[str, int]) -> list[Stored]:
    """Without those that free nothing: what they stand on is others' as well. The latest used comes back
    first, and with it a layer has a user again."""
    kept = []
    for image in reversed(chosen):
        if any(not users[chain] and sizes.get(chain, 0) for chain in image.chains):
            kept.append(image)
        else:
            users.update(image.chains)
    return kept[::-1]
