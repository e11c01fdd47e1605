"""Who we are at one server for one transfer: its login, and the tokens that this bought.

Sources: distribution's token and OAuth 2 specifications; RFC 6749; RFC 6750. Invariant: a login goes to the
registry that it is for, or to the token service which that registry names over a connection at least as
safe; never elsewhere, never to a mirror. Tokens die with the transfer, so nobody uses another's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence

import aiohttp
import msgspec
from yarl import URL

from image.reference import Reference
from image.registry.auth import Challenge, Token, TokenReply, scopes
from image.registry.endpoints import Endpoint, is_loopback_name
from image.registry.refusals import MAX_REPLY, Hopeless, bounded, denied, refusal
from model.codec import NO_URL, UNREADABLE
from model.errors import Unauthenticated, Unavailable
from model.registries import NOBODY, Login

CLIENT_ID = "flota"
_REFUSED = (400, 401, 403, 404)


class Access:
    """`scopes` are what the transfer needs; `ssl` is what its connections trust."""

    def __init__(
        self,
        reference: Reference,
        endpoint: Endpoint,
        *,
        login: Login = NOBODY,
        scopes: Sequence[str] = (),
        ssl: ssl.SSLContext | bool = True,
    ) -> None:
        self.reference = reference
        self.endpoint = endpoint
        self.ssl = ssl
        self.origin = URL(endpoint.base, encoded=True).origin()
        self._login = NOBODY if endpoint.mirror else login
        self._scopes = tuple(scopes)
        self._token = Token(value=self._login.token, expires=float("inf")) if self._login.token else None
        self._basic = False
        self._asking = asyncio.Lock()

    def url(self, path: str) -> URL:
        """Of `path` below the reference's repository."""
        return URL(f"{self.endpoint.base}/v2/{self.reference.path}/{path}", encoded=True)

    def authorization(self, url: URL) -> str:
        """The header for a request to `url`; empty where it is not the registry's own."""
        if url.origin() != self.origin:
            return ""
        if self._token is not None and self._token.expires > asyncio.get_running_loop().time():
            return f"Bearer {self._token.value}"
        return self._login.basic if self._basic else ""

    def volunteer(self, url: URL) -> bool:
        """From now on the password is sent unasked; False where it was sent already, or there is none."""
        if self.authorization(url) or not self._login.basic:
            return False
        self._basic = True
        return True

    async def answer(self, session: aiohttp.ClientSession, offered: Challenge | None, sent: str) -> None:
        """After a 401 to a request that carried `sent`: find out what to send instead. Raises
        Unauthenticated when there is nothing better."""
        async with self._asking:
            now = self.authorization(self.origin)
            if now and now != sent:
                return  # somebody else's request has found it out
            if offered is not None and offered.scheme == "bearer" and not self._login.token:
                reply = await self._buy(session, offered)
                expires = asyncio.get_running_loop().time() + reply.life
                self._token = Token(value=reply.value, expires=expires)
            elif offered is not None and offered.scheme == "basic" and self._login.basic and not self._basic:
                self._basic = True
            else:
                raise denied(self.reference)

    # -- tokens -------------------------------------------------------------------------------------
    async def _buy(self, session: aiohttp.ClientSession, challenge: Challenge) -> TokenReply:
        url = self._realm(challenge)
        wanted = scopes(challenge.scope, self._scopes)
        if self._login.identity:
            form = {"grant_type": "refresh_token", "refresh_token": self._login.identity}
            return await self._post(session, url, challenge, wanted, form)
        header = {"Authorization": self._login.basic} if self._login.basic else {}
        query = [*url.query.items(), *(("scope", scope) for scope in wanted)]
        if challenge.service:
            query.append(("service", challenge.service))
        response = await session.get(
            url.with_query(query), headers=header, ssl=self.ssl, allow_redirects=False
        )
        if response.status in (404, 405) and self._login.basic:
            response.release()
            form = {"grant_type": "password", "username": self._login.user, "password": self._login.password}
            return await self._post(session, url, challenge, wanted, form)
        return await self._read(response)

    async def _post(
        self,
        session: aiohttp.ClientSession,
        url: URL,
        challenge: Challenge,
        wanted: Sequence[str],
        form: Mapping[str, str],
    ) -> TokenReply:
        """OAuth 2's way, which services with identity tokens have."""
        data = {**form, "service": challenge.service, "scope": " ".join(wanted), "client_id": CLIENT_ID}
        response = await session.post(url, data=data, ssl=self.ssl, allow_redirects=False)
        return await self._read(response)

    def _realm(self, challenge: Challenge) -> URL:
        try:
            url = URL(challenge.realm)
        except NO_URL:
            url = URL()
        near = url.host == self.origin.host or is_loopback_name(url.host or "")
        plain = self.origin.scheme == "http" and near
        safe = url.scheme == "https" or (url.scheme == "http" and plain)
        if not safe or not url.host or url.user is not None:
            raise Hopeless(
                f"registry {self.endpoint.host} names an unusable token service {challenge.realm[:100]!r}"
            )
        return url

    async def _read(self, response: aiohttp.ClientResponse) -> TokenReply:
        service = response.url.host
        try:
            if response.status in _REFUSED:
                why = await refusal(response, self.reference)
                words = why.message.rpartition(": ")[2] if isinstance(why, Unauthenticated) else ""
                raise denied(self.reference, f": {words}" if ": " in why.message and words else "")
            if response.status != 200:
                raise Unavailable(f"token service {service} answered {response.status}")
            data = await bounded(response, MAX_REPLY)
        finally:
            response.release()
        try:
            reply = msgspec.json.decode(data, type=TokenReply)
        except UNREADABLE as error:
            raise Unavailable(f"token service {service} answers nonsense: {error}") from error
        if not reply.value or not reply.value.isascii() or not reply.value.isprintable():
            raise Unavailable(f"token service {service} gave no token")
        return reply
