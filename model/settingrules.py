"""What a fleet's settings may be. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from model.api import UpdateSettings
from model.buildcache import CacheKeeping
from model.errors import Problem
from model.image import ImageKeeping
from model.records import FleetSettings

LAST_VNI, LAST_PORT, FIRST_FREE = (1 << 24) - 1, 65535, 1024
MOST_KEPT = 20
"""Images of a service: more of them are not remembered."""
LONGEST = 366 * 86400.0


def changed(settings: FleetSettings, request: UpdateSettings) -> FleetSettings:
    """With what is given in place of what was; unchecked."""
    now, cache = settings.images, settings.build_cache
    first, last = request.vni_range or (settings.vni_first, settings.vni_last)
    return replace(
        settings,
        vxlan_port=settings.vxlan_port if request.vxlan_port is None else request.vxlan_port,
        source_ports=settings.source_ports if request.source_ports is None else request.source_ports,
        vni_first=first,
        vni_last=last,
        images=ImageKeeping(
            gc_high=now.gc_high if request.image_gc_high is None else request.image_gc_high,
            gc_low=now.gc_low if request.image_gc_low is None else request.image_gc_low,
            keep=now.keep if request.image_keep is None else request.image_keep,
            min_age=now.min_age if request.image_min_age is None else request.image_min_age,
        ),
        build_cache=CacheKeeping(
            max_size=cache.max_size if request.build_cache_size is None else request.build_cache_size,
            max_age=cache.max_age if request.build_cache_age is None else request.build_cache_age,
            min_free=cache.min_free if request.build_cache_free is None else request.build_cache_free,
        ),
    )


def settings_problems(settings: FleetSettings) -> Iterator[Problem]:
    """Everything wrong with them."""
    if not 0 < settings.vxlan_port <= LAST_PORT:
        yield Problem(path="vxlan_port", message=f"{settings.vxlan_port} is no port (1 to {LAST_PORT})")
    if not 0 < settings.vni_first <= settings.vni_last <= LAST_VNI:
        words = f"{settings.vni_first}-{settings.vni_last} is no range of VNIs (1 to {LAST_VNI}, RFC 7348)"
        yield Problem(path="vni_range", message=words)
    first, last = settings.source_ports
    if (first, last) != (0, 0) and not FIRST_FREE <= first <= last <= LAST_PORT:
        words = f"{first}-{last} is no range of source ports ({FIRST_FREE} to {LAST_PORT})"
        yield Problem(path="source_ports", message=words)
    yield from _image_problems(settings.images)
    yield from _cache_problems(settings.build_cache)


def _image_problems(images: ImageKeeping) -> Iterator[Problem]:
    if not 1 <= images.gc_high <= 100:
        yield Problem(path="image_gc_high", message=f"{images.gc_high} is no percentage (1 to 100)")
    elif not 0 <= images.gc_low <= images.gc_high:
        words = f"{images.gc_low} % is not below the {images.gc_high} % at which images begin to go"
        yield Problem(path="image_gc_low", message=words)
    if not 1 <= images.keep <= MOST_KEPT:
        yield Problem(path="image_keep", message=f"{images.keep} is not from 1 to {MOST_KEPT}")
    if not 0 <= images.min_age <= LONGEST:
        yield Problem(path="image_min_age", message=f"{images.min_age:g} is not from 0 seconds to a year")


def _cache_problems(cache: CacheKeeping) -> Iterator[Problem]:
    if cache.max_size < 0:
        yield Problem(path="build_cache_size", message=f"{cache.max_size} bytes are no size; 0: no limit")
    if not 0 <= cache.max_age < float("inf"):
        yield Problem(path="build_cache_age", message=f"{cache.max_age:g} seconds are no time; 0: no limit")
    if not 0 <= cache.min_free <= 99:
        yield Problem(path="build_cache_free", message=f"{cache.min_free} is no percentage (0 to 99)")
