"""This host's certificate is renewed before it expires, by the certificate itself.

The controller makes the next one and accepts both; it is written down with its key; connections show it; the
session that it opens ends the one before. Invariant: whatever ends this agent in between, what is on disk is
accepted.
"""

from __future__ import annotations

import hashlib
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from agent import fleetregistry, join
from agent.join import Enrollment
from aio.backoff import delay, jittered
from aio.clock import Clock
from aio.supervisor import in_thread
from model.errors import Damaged, FlotaError, NotFound
from model.renewal import RenewReply, RenewRequest

log = logging.getLogger("flota.agent")
AT = 2 / 3
"""Of a certificate's life."""
SPREAD = 1 / 12
"""Of its life, by which some are earlier: hosts that joined together do not renew together."""
WEEK = 7 * 86400.0
FIRST, LONGEST = 60.0, 3600.0
"""Seconds between attempts; at the longest also between looks at the clock, which somebody may set."""


class Life(NamedTuple):
    """Unix seconds."""

    start: float
    end: float


def life_of(certificate: str) -> Life:
    """Of the first in a PEM. Raises ValueError."""
    found = x509.load_pem_x509_certificate(certificate.encode())
    return Life(found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp())


def due(life: Life, host: str) -> float:
    """Unix seconds. Pure: always the same for one host."""
    share = int.from_bytes(hashlib.sha256(host.encode()).digest()[:4]) / (1 << 32)
    return life.start + (life.end - life.start) * (AT - SPREAD * share)


class Renewal:
    """`contexts` are all TLS contexts that show who this host is; `shown` is told once they show another."""

    def __init__(
        self,
        enrollment: Enrollment,
        state: Path,
        run: Path,
        clock: Clock,
        contexts: Collection[ssl.SSLContext],
        shown: Callable[[Enrollment], Awaitable[None]],
    ) -> None:
        self._enrollment = enrollment
        self._state = state
        self._run = run
        self._clock = clock
        self._contexts = contexts
        self._told_shown = shown
        self._is_shown = True
        self._failures = 0
        self._said = False
        """That the controller knows of no renewal, as long as it does not."""

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._clock.sleep(await self.turn())

    async def turn(self) -> float:
        """Renew it, if it is time; the seconds until the next turn."""
        left = due(life_of(self._enrollment.certificate), self._enrollment.host_id) - self._clock.now()
        if self._is_shown and left > 0:
            return min(left, LONGEST)
        try:
            if self._is_shown:
                await self._renew()
            await self._show()
        except (FlotaError, OSError) as error:
            self._failures += 1
            self._tell(error)
            return jittered(delay(self._failures, first=FIRST, limit=LONGEST), random.random())
        self._failures, self._said = 0, False
        log.info("this host has a new certificate")
        return FIRST

    async def _renew(self) -> None:
        before = self._enrollment
        key = join.new_key()
        request = RenewRequest(csr=join.signing_request(key, before.name))
        reply = await join.ask_renewed(before, self._run, request)
        after = renewed(before, key, reply)
        await in_thread(join.keep_renewed, self._state, before, after)
        self._enrollment, self._is_shown = after, False

    async def _show(self) -> None:
        for context in self._contexts:
            join.show(context, self._enrollment, self._run)
        if registry := await in_thread(fleetregistry.named, self._state):
            await in_thread(fleetregistry.trust, self._state, registry)
        await self._told_shown(self._enrollment)
        self._is_shown = True

    def _tell(self, error: Exception) -> None:
        left = life_of(self._enrollment.certificate).end - self._clock.now()
        why = str(error) or type(error).__name__
        if left <= 0:
            log.warning(
                "this host's certificate has expired: its way back to its place in the fleet is "
                "`flota join TOKEN ADDRESS`, with a token of `flota token create` (%s)",
                why,
            )
            return
        days = left / 86400
        if left <= WEEK:
            log.warning("this host's certificate, good for %.1f more days, is not renewed: %s", days, why)
        elif isinstance(error, NotFound):
            if not self._said:
                log.info("the controller knows of no renewal of certificates, or not of this host: %s", why)
        else:
            log.info("this host's certificate, good for %.0f more days, is not renewed yet: %s", days, why)
        self._said = self._said or isinstance(error, NotFound)


def renewed(before: Enrollment, key: ec.EllipticCurvePrivateKey, reply: RenewReply) -> Enrollment:
    """Raises Damaged for a certificate that is not the fleet's, for this key."""
    try:
        found = x509.load_pem_x509_certificate(reply.certificate.encode())
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(before.ca.encode()))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise Damaged("the controller's answer is no certificate of this fleet") from error
    if found.public_key() != key.public_key():
        raise Damaged("the controller's answer is a certificate for another key")
    return replace(before, certificate=reply.certificate, key=join.pem_of(key))
