"""Requests to registries: authentication, redirects, retries.

Invariants: no proxy from the environment, no cookie; a credential never follows a redirect to another origin;
nobody is led from HTTPS to plain HTTP, nor from elsewhere to this host's own loopback. Source: OCI
distribution-spec 1.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from aio.backoff import delay
from image.registry.access import Access
from image.registry.auth import challenges, preferred
from image.registry.endpoints import is_loopback_name
from image.registry.refusals import Hopeless, bounded, refusal, retry_after, translated
from model.codec import NO_URL
from model.errors import Unavailable

log = logging.getLogger("flota.image")
ATTEMPTS = 5
MAX_REDIRECTS = 5
CONNECT_DEADLINE, SILENCE_DEADLINE, ANSWER_DEADLINE = 10.0, 30.0, 120.0
"""Seconds to connect, between two pieces of an answer, and until it begins, redirects and tokens included."""
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
Body = Callable[[], AsyncIterator[bytes]] | bytes | None
"""What is sent; of a stream, each try makes its own."""


class Transport:
    def __init__(self, *, deadline: float = ANSWER_DEADLINE) -> None:
        """`deadline`: seconds until an answer begins."""
        self._deadline = deadline
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @contextlib.asynccontextmanager
    async def get(
        self, access: Access, path: str, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A 200 or 206 answer whose body is still to be read. Raises NotFound, Unauthenticated, Unavailable;
        transient failures before the answer are tried again."""
        response = await self.patiently(access, "GET", access.url(path), headers=headers, good=(200, 206))
        try:
            with translated(access.endpoint.host):
                yield response
        finally:
            response.release()

    async def document(
        self, access: Access, path: str, *, accept: str = "*/*", limit: int
    ) -> tuple[bytes, CIMultiDictProxy[str]]:
        """A whole body of at most `limit` bytes, and the answer's headers. Raises as `get`, and Damaged."""
        attempt = 0
        while True:
            attempt += 1
            async with self.get(access, path, {"Accept": accept}) as response:
                try:
                    with translated(access.endpoint.host):
                        return await bounded(response, limit), response.headers
                except Unavailable as error:
                    if attempt >= ATTEMPTS:
                        raise
                    log.info("%s; trying again", error)
            await asyncio.sleep(delay(attempt, first=0.2, limit=10.0))

    async def patiently(
        self,
        access: Access,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] = {},
        data: Body = None,
        good: Collection[int],
    ) -> aiohttp.ClientResponse:
        """An answer with a `good` status, after as many tries as it takes within reason; for requests that
        may be made twice. Raises what the registry says."""
        attempt = 0
        while True:
            attempt += 1
            pause = delay(attempt, first=0.2, limit=10.0)
            try:
                response = await self.once(access, method, url, headers=headers, data=data)
                if response.status in good:
                    return response
                if response.status in RETRIED:
                    pause = max(pause, retry_after(response))
                raise await refusal(response, access.reference)
            except Hopeless:
                raise
            except Unavailable:
                if attempt >= ATTEMPTS:
                    raise
                await asyncio.sleep(pause)

    async def once(
        self,
        access: Access,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] = {},
        data: Body = None,
        silence: float = SILENCE_DEADLINE,
    ) -> aiohttp.ClientResponse:
        """Any answer but a redirect, and but a 401 that there is an answer to; `silence` in seconds is for
        servers that have work to do before they answer. Whoever sends a stream sees to its pace."""
        patience = None if callable(data) else self._deadline + silence - SILENCE_DEADLINE
        with translated(access.endpoint.host):
            async with asyncio.timeout(patience):
                return await self._answered(access, method, url, headers, data, silence)

    async def _answered(
        self,
        access: Access,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        data: Body,
        silence: float,
    ) -> aiohttp.ClientResponse:
        response, sent = await self._followed(access, method, url, headers, data, silence)
        if response.status == 401 and response.url.origin() == access.origin:
            offered = preferred(challenges(response.headers.getall("WWW-Authenticate", [])))
            response.release()
            await access.answer(self._client(), offered, sent)
            response, _ = await self._followed(access, method, url, headers, data, silence)
        return response

    async def _followed(
        self,
        access: Access,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        data: Body,
        silence: float,
    ) -> tuple[aiohttp.ClientResponse, str]:
        """The answer, and the Authorization that it was asked with."""
        for _ in range(MAX_REDIRECTS + 1):
            sent = dict(headers)
            if who := access.authorization(url):
                sent["Authorization"] = who
            response = await self._client().request(
                method,
                url,
                headers=sent,
                data=data() if callable(data) else data,
                allow_redirects=False,
                timeout=_timeout(silence),
                ssl=access.ssl if url.origin() == access.origin else True,
            )
            if response.status not in _REDIRECTS:
                return response, who
            target = response.headers.get("Location", "")
            response.release()
            url = redirected(url, target)
        raise Hopeless(f"registry {access.endpoint.host} redirects without end")

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=_timeout(SILENCE_DEADLINE),
                trust_env=False,
                headers={"User-Agent": "flota", "Accept-Encoding": "identity"},
                read_bufsize=1 << 20,
            )
        return self._session


def _timeout(silence: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_DEADLINE, sock_read=silence)


def redirected(url: URL, target: str) -> URL:
    """Where a Location leads. Raises Hopeless where that is not gone."""
    try:
        new = url.join(URL(target, encoded=True))
        host = new.host
    except NO_URL:
        new, host = URL(), None
    if not target or new.scheme not in ("http", "https") or not host:
        raise Hopeless(f"{url.host} redirects to {target[:100]!r}")
    if url.scheme == "https" and new.scheme == "http":
        raise Hopeless(f"{url.host} redirects from HTTPS to plain HTTP", hint="That is not followed")
    if is_loopback_name(host) and not is_loopback_name(url.host or ""):
        raise Hopeless(f"{url.host} redirects to this host's own {host}", hint="That is not followed")
    return new
