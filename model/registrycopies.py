"""Copies of the fleet's registry on hosts: what a host says of its own, and what it is to do. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from model.spec import Struct

PATH = "/flota/copies"
"""At the registry's port, for hosts by their certificates: POST of a CopyReport is answered by CopyOrders;
below it `index` (GET, PUT: the sealed document of a state) and `blobs/<digest>` (GET, PUT: the bytes)."""
MOST = 500
"""Blobs in one order."""


class CopyReport(Struct):
    """Of a host: all that it has."""

    lineage: str = ""
    generation: int = 0
    """Of the state whose document it has; no lineage: it has none."""
    have: tuple[str, ...] = ()
    """Digests of blobs, verified when they came."""
    full: bool = False
    """It had no room for a blob lately."""


class CopyOrders(Struct):
    """The next things to do; nothing: ask again after `wait` seconds."""

    wait: float
    fetch: Mapping[str, int] = {}
    """Digest → size."""
    drop: tuple[str, ...] = ()
    send: tuple[str, ...] = ()
    """The registry has lost these."""
    fetch_index: bool = False
    send_index: bool = False


class CopyHost(Struct):
    """What is to be told of a host that has copies, or is to."""

    name: str
    chosen: bool
    blobs: int
    bytes: int
    complete: bool
    heard: float
    """Unix seconds, of its last report; 0: none since the controller's start."""
    full: bool = False
    """It had no room for a blob lately."""


class RepositoryInfo(Struct):
    name: str
    tags: int
    manifests: int
    bytes: int
    """Of its blobs; those that other repositories have, too, count for each."""
    copies: int
    """On how many hosts all of it is, besides the controller's."""
    lost: int = 0
    """Blobs that are to come back."""


class TagInfo(Struct):
    """Of a repository in the fleet's registry."""

    name: str
    digest: str
    media_type: str
    """Of the manifest or index that it names."""


class RegistryStatus(Struct):
    address: str
    """Empty: the fleet has no registry."""
    repositories: int = 0
    blobs: int = 0
    bytes: int = 0
    lost: int = 0
    wanted: int = 0
    """Hosts that are to have a copy."""
    whole: int = 0
    """Hosts that have one of all there is now."""
    hosts: tuple[CopyHost, ...] = ()
