"""What flota knows of an image: its parsed configuration and its record on a host. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from model.spec import HealthCheck, Struct
from model.status import Platform


class ImageConfig(Struct):
    """The run-time part of an OCI image configuration, checked and normalised (image-spec, config.md)."""

    env: tuple[str, ...] = ()
    """`KEY=value`, in order."""
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    user: str = ""
    workdir: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    """`80/tcp`"""
    labels: Mapping[str, str] = {}
    stop_signal: str = ""
    health: HealthCheck | None = None
    """Without a probe: times alone, of a check that is given elsewhere."""
    shell: tuple[str, ...] = ()
    """Of SHELL; empty: `/bin/sh -c`."""
    onbuild: tuple[str, ...] = ()
    """Instructions for builds that begin with this image."""


class HistoryEntry(Struct):
    created: str = ""
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False


class Origin(Struct):
    """Of what an image was committed, as its configuration says (Docker's image v1.2: parent, container,
    container_config). Told, never acted upon: any of these may be gone, or have been elsewhere."""

    parent: str = ""
    """`sha256:…` of the image that the container was made of."""
    container: str = ""
    image: str = ""
    """As the container named its image."""


class ImageRecord(Struct):
    """An image whose layers are all on this host."""

    id: str
    """`sha256:…` of the configuration blob."""
    names: tuple[str, ...] = ()
    """Full references, `docker.io/library/alpine:latest`."""
    digests: tuple[str, ...] = ()
    """`docker.io/library/alpine@sha256:…` of manifests it was pulled by."""
    layers: tuple[str, ...] = ()
    """Diff ids, bottom first."""
    size: int = 0
    """Unpacked bytes of all layers."""
    layer_sizes: tuple[int, ...] = ()
    """Of each, bottom first; empty on a host of an older release."""
    created: float = 0.0
    """Unix seconds as the configuration says; 0 if it does not."""
    platform: Platform = Platform()
    config: ImageConfig = ImageConfig()
    history: tuple[HistoryEntry, ...] = ()
    author: str = ""
    origin: Origin = Origin()


class ImageKeeping(Struct):
    """When hosts make room by themselves, and what they leave."""

    gc_high: int = 85
    """Percent of the disk's space in use at which images go; 100: never by themselves."""
    gc_low: int = 75
    """Percent at which that ends."""
    keep: int = 3
    """So many of the images that each service had last stay, the present one among them."""
    min_age: float = 120.0
    """Seconds that an image stays after its last use or its arrival."""


class KeptImages(Struct):
    """Of one service: references that every host keeps if it has them, the present one first."""

    service: str
    """Its name."""
    images: tuple[str, ...]


class Progress(Struct):
    """One line of progress of a pull, load, import or push. `id` is the layer's short digest, or empty."""

    status: str
    id: str = ""
    current: int = 0
    total: int = 0
    host: str = ""
    error: str = ""
    """Set on the last line of a failed transfer."""
    error_code: str = ""
    image: str = ""
    """On the last line of a good one: the image id or reference."""
