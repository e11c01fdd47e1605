"""The check-up of a fleet's networks: what a host finds of its own, and what all of it together means. Pure.

A host looks whether its kernel is as it should be and asks every peer for an answer, by the underlay and by
each network they share, with small packets and with the largest that the network carries; what its findings
mean, `model.diagnosis` says.
"""

from __future__ import annotations

from typing import Literal

from model.ids import HostId
from model.spec import Struct
from model.status import HostFacts

Severity = Literal["fault", "warning", "repaired"]
Kind = Literal[
    "", "not-examined", "repaired", "not-repaired", "trouble", "leaked", "mtu-differs", "not-sent",
    "checksums", "led-astray", "forwarding", "narrow", "blocked", "unreachable", "behind-nats",
]  # fmt: skip
"""For programs: it stays what it is when words change. More may come."""


class Repair(Struct):
    """Something of ours was not as it should be, and what was done."""

    object: str
    action: str
    failed: bool = False
    """It could not be set back; `action` says why."""


class PathCheck(Struct):
    """From one host to another. `network` empty: by the underlay itself."""

    host: HostId
    network: str
    target: str
    """The peer's address there."""
    size: int
    """Bytes of the largest packet that was sent: the network's MTU."""
    small: float | None = None
    """Seconds until a small packet was answered; None: never."""
    large: float | None = None
    note: str = ""
    """Why it could not even be sent."""
    way: str = ""
    """The link that the host's packets take there, if it is not the network's own; `none`: no link."""
    port: int = 0
    """UDP port of the peer that carries it, where it is not the fleet's VXLAN port."""
    tunnel: bool = True
    """Whether the network's packets are wrapped on that way; else they pass as they are."""


class Through(Struct):
    """Whether what containers send gets through their host to others, which its own packets do."""

    network: str
    version: int
    """4 or 6."""
    containers: int
    """That were tried."""
    answered: bool


class HostCheck(Struct):
    host: HostId
    facts: HostFacts
    repairs: tuple[Repair, ...] = ()
    paths: tuple[PathCheck, ...] = ()
    troubles: tuple[str, ...] = ()
    """What the host complains of by itself."""
    through: tuple[Through, ...] = ()
    """Of networks on which a container could be tried and other hosts answer."""
    leaked: tuple[str, ...] = ()
    """Addresses held for containers that it does not have."""


class Finding(Struct):
    severity: Severity
    where: str
    """Host, or pair of hosts, and network."""
    what: str
    hint: str = ""
    kind: Kind = ""
    host: str = ""
    """Name of the host that found it, or that it is about."""
    peer: str = ""
    """Name of the other end."""
    network: str = ""
    """Name; empty: the underlay, or none."""


class Way(Struct):
    """From a host to another by a network (empty: the underlay), by their names."""

    host: str
    peer: str
    network: str
    version: int
    size: int
    small: float | None = None
    large: float | None = None


class CheckUp(Struct):
    """`flota network doctor`."""

    hosts: int
    paths: int
    """That were tried, each way counts."""
    findings: tuple[Finding, ...] = ()
    ways: tuple[Way, ...] = ()
    """All that were tried, where they are asked for."""
