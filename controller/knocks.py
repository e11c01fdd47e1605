"""Hosts that a restored fleet does not know, though their certificates are its own: they joined after the
backup.

Invariant: a person alone lets them in, since one that was removed after the backup looks the same. They are
told to come back, so that their agents don't end; what runs there goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Container
from typing import NamedTuple

from model.api import Knock
from model.errors import FlotaError, Unavailable
from model.ids import HostId, resolve
from model.status import HostFacts

log = logging.getLogger("flota.controller")
MOST = 1024
HINT = "Admit it with `flota fleet admit`"


class Found(NamedTuple):
    knock: Knock
    facts: HostFacts
    certificate: str


class Knocks:
    """In memory: they knock again."""

    def __init__(self) -> None:
        self._by_host: dict[HostId, Found] = {}
        self._certificates: dict[HostId, str] = {}

    def shown(self, host: HostId, certificate: str) -> None:
        """The certificate of one that is about to say Hello."""
        if len(self._certificates) < MOST:
            self._certificates[host] = certificate

    def heard(self, host: HostId, facts: HostFacts, now: float) -> FlotaError:
        """What to answer."""
        name, address = facts.hostname[:63], facts.address[:45]
        if host not in self._by_host:
            log.warning("host %s (%s) knocks: it is not in the backup. %s", host[:12], name, HINT)
        if host in self._by_host or len(self._by_host) < MOST:
            knock = Knock(id=host, name=name, address=address, seen_at=now)
            self._by_host[host] = Found(knock, facts, self._certificates.pop(host, ""))
        return Unavailable("this host joined after the backup that the fleet was restored from", hint=HINT)

    def all(self, known: Container[HostId]) -> list[Knock]:
        """Those that are not `known`, and so still knock."""
        return [found.knock for host, found in self._by_host.items() if host not in known]

    def find(self, ref: str, known: Container[HostId]) -> Found:
        """Raises NotFound, Ambiguous."""
        names = [(knock.id, knock.name) for knock in self.all(known)]
        return self._by_host[HostId(resolve("knocking host", ref, names))]
