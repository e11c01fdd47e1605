"""Which images hosts keep for services: none is gone when a service needs it, or goes back to it. Pure.

Invariant: what a service's spec and the one before it name is always among them, whatever the setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model.ids import ServiceId
from model.image import KeptImages
from model.records import FleetSettings, Record, Service
from model.settingrules import MOST_KEPT

Kept = Mapping[ServiceId, KeptImages]


def formerly(service: Service, image: str) -> tuple[str, ...]:
    """What it was made of before, once it is made of `image`; the last one first."""
    before = (service.spec.container.image, *service.former_images)
    return tuple(dict.fromkeys(one for one in before if one != image))[:MOST_KEPT]


def kept(service: Service, keep: int) -> KeptImages | None:
    """`keep` images, the present one among them. None: it is being removed."""
    if service.removed:
        return None
    image, previous = service.spec.container.image, service.previous
    last = dict.fromkeys((image, *service.former_images))
    needed = () if previous is None else (previous.container.image,)
    images = dict.fromkeys((*list(last)[:keep], *needed))
    return KeptImages(service=service.spec.name, images=tuple(images))


def following(
    before: Kept,
    changed: Iterable[tuple[Record | None, Record | None]],
    services: Iterable[Service],
    keep: int,
) -> Kept:
    """What hosts keep after these records changed (old, new); the very same value if that is the same.
    `services` are all there are now."""
    pairs = list(changed)
    if any(isinstance(new, FleetSettings) for _, new in pairs):
        found = {s.id: images for s in services if (images := kept(s, keep)) is not None}
        return before if found == before else found
    now: dict[ServiceId, KeptImages | None] = {}
    for old, new in pairs:
        if isinstance(new, Service):
            now[new.id] = kept(new, keep)
        elif isinstance(old, Service):
            now[old.id] = None
    if all(before.get(ident) == images for ident, images in now.items()):
        return before
    after = {**before, **now}
    return {ident: images for ident, images in after.items() if images is not None}
