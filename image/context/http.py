"""Fetching over HTTP for a build: http and https alone, each hop judged, everything bounded.

Invariants: every connection goes to an address that the guard let pass; nothing of the environment (proxies,
netrc, cookies) is used; what a URL carries as password goes to its own host alone and into no message.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from aio.backoff import delay
from image.context.guard import Address, Guard
from model.codec import NO_URL
from model.errors import DeadlineExceeded, FlotaError, Forbidden, InvalidInput, NotFound, Unavailable

MAX_REDIRECTS = 10
ATTEMPTS = 4
CONNECT, SILENCE, WHOLE = 15.0, 60.0, 3600.0
"""Seconds to connect, between two pieces, for all of it."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_URL = 8192


def shown(url: URL | str) -> str:
    """Without what may be secret."""
    try:
        url = URL(url)
        return str(url.with_user(None).with_query(None).with_fragment(None))[:300]
    except NO_URL:
        return repr(str(url)[:100])


def checked(text: str) -> URL:
    """Raises InvalidInput for what is no URL of HTTP."""
    try:
        url = URL(text)
        port = url.port
    except NO_URL as error:
        why = f": {error}" if isinstance(error, ValueError) else ""
        raise InvalidInput(f"{text[:100]!r} is no URL{why}") from error
    if url.scheme not in ("http", "https"):
        raise InvalidInput(f"{text[:100]!r}: only http and https URLs are fetched")
    if not url.host or port is None or len(text) > MAX_URL:
        raise InvalidInput(f"{text[:100]!r} is no URL that can be fetched")
    return url


class _Pinned(AbstractResolver):
    """Names mean what they meant when they were judged."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, int], list[Address]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = []
        for address in self.known.get((host, port), ()):
            of = socket.AF_INET if address.version == 4 else socket.AF_INET6
            if family in (socket.AF_UNSPEC, of):
                found.append(
                    ResolveResult(
                        hostname=host,
                        host=str(address),
                        port=port,
                        family=of,
                        proto=0,
                        flags=socket.AI_NUMERICHOST,
                    )
                )
        if not found:
            raise OSError(f"{host} was not judged")
        return found

    async def close(self) -> None:
        pass


class Http:
    """`get` follows redirects. To be closed."""

    def __init__(self, guard: Guard, *, whole: float = WHOLE, silence: float = SILENCE) -> None:
        self._guard = guard
        self._whole = whole
        self._silence = silence

    @contextlib.asynccontextmanager
    async def get(
        self, url: str, *, headers: Mapping[str, str] = {}, private: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A 200 or 304, its body still to be read. Raises InvalidInput, NotFound, Forbidden, Unavailable,
        DeadlineExceeded."""
        resolver, start = _Pinned(), checked(url)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=self._silence)
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
        try:
            async with (
                asyncio.timeout(self._whole),
                aiohttp.ClientSession(
                    connector=connector,
                    timeout=timeout,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    headers={"User-Agent": "flota", "Accept-Encoding": "identity"},
                ) as session,
            ):
                response = await self._patiently(session, resolver, start, headers, private)
                try:
                    yield response
                finally:
                    response.close()
        except aiohttp.ClientError as error:
            raise _unavailable(start, error) from error
        except TimeoutError as error:
            raise DeadlineExceeded(f"{shown(start)} did not come within {self._whole:g} s") from error

    async def _patiently(
        self,
        session: aiohttp.ClientSession,
        resolver: _Pinned,
        url: URL,
        headers: Mapping[str, str],
        private: bool,
    ) -> aiohttp.ClientResponse:
        for attempt in range(1, ATTEMPTS + 1):
            last = attempt == ATTEMPTS
            try:
                response = await self._followed(session, resolver, url, headers, private)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                if last:
                    raise _unavailable(url, error) from error
            else:
                if response.status in (200, 304):
                    return response
                response.close()
                if last or response.status not in _RETRIED:
                    raise _refused(url, response)
            await asyncio.sleep(delay(attempt, first=0.2, limit=5.0))
        raise AssertionError("unreachable")

    async def _followed(
        self,
        session: aiohttp.ClientSession,
        resolver: _Pinned,
        url: URL,
        headers: Mapping[str, str],
        private: bool,
    ) -> aiohttp.ClientResponse:
        first = url
        for _ in range(MAX_REDIRECTS + 1):
            host, port = url.raw_host or "", url.port or 0
            resolver.known[host, port] = await self._guard.resolved(host, port, private=private)
            response = await session.get(url, headers=headers, allow_redirects=False)
            target = response.headers.get("Location", "")
            if response.status not in _REDIRECTS or not target:
                return response
            response.close()
            url = _next(url, target, first)
        raise Unavailable(f"{shown(first)} leads through more than {MAX_REDIRECTS} redirects")


def _next(url: URL, target: str, first: URL) -> URL:
    try:
        following = url.join(URL(target))
    except NO_URL as error:
        raise Unavailable(f"{shown(first)} redirects to what is no URL") from error
    try:
        return checked(str(following))
    except InvalidInput as error:
        raise Forbidden(f"{shown(first)} redirects to {shown(following)}, which is not fetched") from error


def _refused(url: URL, response: aiohttp.ClientResponse) -> FlotaError:
    said = f"{shown(url)}: {response.url.host} answers {response.status}"
    if response.status in (404, 410):
        return NotFound(said)
    if response.status in (401, 403):
        return Forbidden(said)
    return Unavailable(said)


def _unavailable(url: URL, error: Exception) -> FlotaError:
    why = "it is silent" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return Unavailable(f"{shown(url)} can't be fetched: {why}")
