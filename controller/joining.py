"""The part of the controller by which hosts become members: join tokens, and joining by one.

Invariant: a token makes a new host. The record of a host that is known goes to nobody but who has that host's
own key, or a token that an administrator made for it.
"""

from __future__ import annotations

import logging

from controller.commands import hosts
from controller.commands.find import find_host
from controller.pki import fingerprint, identity_of, new_token, secret_hash, secret_of
from controller.plan import Plan, put
from controller.restoring import Restoring
from controller.snapshot import Cluster
from model.api import CreateToken, JoinReply, JoinRequest, TokenCreated
from model.errors import InvalidInput
from model.ids import HostId
from model.records import JoinToken
from model.renewal import RenewReply, RenewRequest

log = logging.getLogger("flota.controller")
MOST_TTL = 10 * 365 * 86400.0


class Joining(Restoring):
    """`controller.controller.Controller` is one."""

    async def create_token(self, request: CreateToken) -> TokenCreated:
        if not 0 <= request.ttl <= MOST_TTL:
            raise InvalidInput(f"invalid time to live {request.ttl:g} s", hint="0 means without end")
        replaces = find_host(self.snapshot(), request.replaces).id if request.replaces else HostId("")
        token, digest = new_token(self.authority)
        now = self.clock.now()
        expires = now + request.ttl if request.ttl else 0.0
        record = JoinToken(
            id=self.ids(),
            secret_hash=digest,
            created_at=now,
            expires_at=expires,
            once=request.once or bool(replaces),
            replaces=replaces,
        )
        await self._order(lambda _: Plan(items=(put(record, "a token was asked for"),)))
        command = f"flota join {token} {self.options.advertise}".rstrip()
        return TokenCreated(id=record.id, token=token, expires_at=expires, join_command=command)

    async def join(self, request: JoinRequest) -> JoinReply:
        now = self.clock.now()
        digest = secret_hash(secret_of(request.secret, self.authority))
        cluster = self.snapshot()
        hosts.token_for(cluster, digest, now)
        proven = identity_of(request.certificate, request.csr, request.proof) if request.certificate else ""
        known = hosts.host_named(cluster, request.name)
        ident = known.id if known is not None else HostId(self.ids())
        pair = self.authority.host(request.csr, ident)

        def decide(fresh: Cluster) -> Plan:
            token = hosts.token_for(fresh, digest, now)
            made = hosts.admit(
                fresh,
                request,
                now=now,
                ident=ident,
                fingerprint=fingerprint(pair.certificate),
                connected=self.sessions.connected(ident),
                replaces=token.replaces,
                proven=proven,
            )
            return hosts.used(made, token)

        await self._order(decide)
        return JoinReply(
            host_id=ident,
            fleet_id=cluster.settings.fleet_id,
            certificate=pair.certificate.decode(),
            ca=self.authority.pem.decode(),
        )

    async def renew(self, host: HostId, certificate: str, request: RenewRequest) -> RenewReply:
        hosts.member(self.snapshot(), host, certificate)
        pair = self.authority.host(request.csr, host)
        made = fingerprint(pair.certificate)
        await self._order(lambda fresh: hosts.renew(fresh, host, shown=certificate, fingerprint=made))
        log.info("a new certificate for host %s", self.snapshot().host_name(host))
        return RenewReply(certificate=pair.certificate.decode())
