"""Requests to registries: TLS, authentication, redirects, retries, and errors in words.

Invariants: no proxy from the environment, no cookie; a credential never follows a redirect to another origin;
plain HTTP only to loopback addresses and to registries named insecure. Source: OCI distribution-spec 1.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import AsyncIterator, Collection, Iterator, Mapping

import aiohttp
import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from aio.backoff import delay
from image.reference import DEFAULT_HOST, Reference
from image.registry.auth import Challenge, Logins, Token, TokenReply, challenges, preferred
from model.errors import Damaged, FlotaError, NotFound, Unauthenticated, Unavailable

log = logging.getLogger("flota.image")
ATTEMPTS = 5
MAX_REDIRECTS = 5
MAX_REPLY = 1 << 16
CONNECT_DEADLINE, SILENCE_DEADLINE = 10.0, 30.0
"""Seconds to connect, and between two pieces of an answer."""
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SERVED_BY = {DEFAULT_HOST: "registry-1.docker.io"}


class Hopeless(Unavailable):
    """Another try would end the same."""


class Transport:
    """`logins` answers who we are at a registry; `insecure` are hosts (with port) to be spoken to in plain
    HTTP."""

    def __init__(self, *, logins: Logins, insecure: Collection[str] = ()) -> None:
        self._logins = logins
        self.insecure = frozenset(insecure)
        self._session: aiohttp.ClientSession | None = None
        self._tokens: dict[tuple[str, str], Token] = {}
        self._basic: set[str] = set()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def url(self, reference: Reference, path: str) -> URL:
        """Of `path` below the reference's repository."""
        host = _SERVED_BY.get(reference.host, reference.host)
        return URL(f"{self._scheme(host)}://{host}/v2/{reference.path}/{path}", encoded=True)

    def _scheme(self, host: str) -> str:
        return "http" if host in self.insecure or is_loopback(host) else "https"

    @contextlib.asynccontextmanager
    async def get(
        self, reference: Reference, path: str, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A 200 or 206 answer whose body is still to be read. Raises NotFound, Unauthenticated, Unavailable;
        transient failures before the answer are tried again."""
        response = await self._patiently(reference, path, headers)
        try:
            with translated(reference.host):
                yield response
        finally:
            response.release()

    async def document(
        self, reference: Reference, path: str, *, accept: str = "*/*", limit: int
    ) -> tuple[bytes, CIMultiDictProxy[str]]:
        """A whole body of at most `limit` bytes, and the answer's headers. Raises as `get`, and Damaged."""
        for attempt in range(1, ATTEMPTS):
            async with self.get(reference, path, {"Accept": accept}) as response:
                try:
                    with translated(reference.host):
                        return await bounded(response, limit), response.headers
                except Unavailable as error:
                    log.info("%s; trying again", error)
            await asyncio.sleep(delay(attempt, first=0.2, limit=10.0))
        async with self.get(reference, path, {"Accept": accept}) as response:
            return await bounded(response, limit), response.headers

    async def _patiently(
        self, reference: Reference, path: str, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        failure: FlotaError = Unavailable(f"registry {reference.host} was not asked")
        for attempt in range(1, ATTEMPTS + 1):
            pause = delay(attempt, first=0.2, limit=10.0)
            try:
                with translated(reference.host):
                    response = await self._authenticated(reference, path, headers)
                if response.status not in _RETRIED:
                    return response
                pause = max(pause, _retry_after(response))
                failure = await _refusal(response, reference)
            except Hopeless:
                raise
            except Unavailable as error:
                failure = error
            if attempt < ATTEMPTS:
                await asyncio.sleep(pause)
        raise failure

    async def _authenticated(
        self, reference: Reference, path: str, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        response = await self._followed(reference, path, headers)
        if response.status == 401 and response.url.origin() == self.url(reference, path).origin():
            offered = preferred(challenges(response.headers.getall("WWW-Authenticate", [])))
            response.release()
            await self._answer(reference, offered)
            response = await self._followed(reference, path, headers)
        if response.status in (200, 206) or response.status in _RETRIED:
            return response
        raise await _refusal(response, reference)

    async def _followed(
        self, reference: Reference, path: str, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        url = origin = self.url(reference, path)
        for _ in range(MAX_REDIRECTS + 1):
            sent = dict(headers)
            if url.origin() == origin.origin() and (who := self._authorization(reference)):
                sent["Authorization"] = who
            response = await self._client().get(url, headers=sent, allow_redirects=False)
            if response.status not in _REDIRECTS:
                return response
            target = response.headers.get("Location", "")
            response.release()
            url = _redirected(url, target)
        raise Hopeless(f"registry {reference.host} redirects without end")

    # -- who we are ---------------------------------------------------------------------------------
    def _authorization(self, reference: Reference) -> str:
        token = self._tokens.get((reference.host, reference.path))
        if token is not None and token.expires > asyncio.get_running_loop().time():
            return f"Bearer {token.value}"
        login = self._logins(reference.host) if reference.host in self._basic else None
        return login.header if login is not None else ""

    async def _answer(self, reference: Reference, challenge: Challenge | None) -> None:
        login = self._logins(reference.host)
        self._tokens.pop((reference.host, reference.path), None)
        if challenge is not None and challenge.scheme == "bearer":
            scope = challenge.scope or f"repository:{reference.path}:pull"
            header = {"Authorization": login.header} if login is not None else {}
            url = self._realm(reference, challenge)
            reply = await self._token(
                url.update_query(scope=scope, service=challenge.service), header, reference
            )
            expires = asyncio.get_running_loop().time() + reply.life
            self._tokens[reference.host, reference.path] = Token(value=reply.value, expires=expires)
        elif challenge is not None and login is not None and reference.host not in self._basic:
            self._basic.add(reference.host)
        else:
            raise _denied(reference)

    def _realm(self, reference: Reference, challenge: Challenge) -> URL:
        try:
            url = URL(challenge.realm)
        except ValueError:
            url = URL()
        safe = {"https"} | {self.url(reference, "").scheme}
        if url.scheme not in safe or not url.host or url.user is not None:
            raise Hopeless(
                f"registry {reference.host} names an unusable token service {challenge.realm[:100]!r}"
            )
        return url

    async def _token(self, url: URL, headers: Mapping[str, str], reference: Reference) -> TokenReply:
        async with self._client().get(url, headers=headers, allow_redirects=False) as response:
            if response.status in (400, 401, 403, 404):
                raise _denied(reference)
            if response.status != 200:
                raise Unavailable(f"token service {url.host} answered {response.status}")
            data = await bounded(response, MAX_REPLY)
        try:
            reply = msgspec.json.decode(data, type=TokenReply)
        except msgspec.DecodeError as error:
            raise Unavailable(f"token service {url.host} answers nonsense: {error}") from error
        if not reply.value or not reply.value.isascii() or not reply.value.isprintable():
            raise Unavailable(f"token service {url.host} gave no token")
        return reply

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_DEADLINE, sock_read=SILENCE_DEADLINE
                ),
                trust_env=False,
                headers={"User-Agent": "flota", "Accept-Encoding": "identity"},
                read_bufsize=1 << 20,
            )
        return self._session


async def bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body. Raises Damaged when it has more than `limit` bytes."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > limit:
            raise Damaged(f"{response.url.host} answers with more than {limit} bytes")
    return bytes(body)


def is_loopback(host: str) -> bool:
    """Of `host` or `host:port`."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def translated(host: str) -> Iterator[None]:
    """Errors of the network as Unavailable."""
    try:
        yield
    except aiohttp.ClientConnectorDNSError as error:
        raise Hopeless(
            f"registry {host} is unknown to the name service", hint="Check its name and this host's DNS"
        ) from error
    except aiohttp.ClientSSLError as error:
        raise Hopeless(
            f"registry {host}: TLS failed: {error}", hint="For a registry in plain HTTP, name it insecure"
        ) from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlRedirectClientError) as error:
        raise Hopeless(
            f"registry {host} sends us to a place that is no URL", hint="Tell its owner"
        ) from error
    except aiohttp.ClientConnectorError as error:
        raise Unavailable(f"registry {host} can't be reached: {error.strerror or error}") from error
    except (aiohttp.ClientError, OSError) as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise Unavailable(f"registry {host}: the connection broke: {words}") from error


def _redirected(url: URL, target: str) -> URL:
    try:
        new = url.join(URL(target))
    except ValueError:
        new = URL()
    if not target or new.scheme not in ("http", "https") or not new.host:
        raise Hopeless(f"{url.host} redirects to {target[:100]!r}")
    if url.scheme == "https" and new.scheme == "http":
        raise Hopeless(f"{url.host} redirects from HTTPS to plain HTTP", hint="That is not followed")
    return new


def _retry_after(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), 30.0) if text.isascii() and text.isdigit() else 0.0


def _denied(reference: Reference) -> Unauthenticated:
    return Unauthenticated(
        f"registry {reference.host} denies access to {reference.familiar}",
        hint="Does it exist, and does it need a login?",
    )


async def _refusal(response: aiohttp.ClientResponse, reference: Reference) -> FlotaError:
    """The registry's error as ours, with its own first words (distribution-spec, "Error Codes")."""
    status = response.status
    try:
        words = _words(await bounded(response, MAX_REPLY))
    except (FlotaError, aiohttp.ClientError, TimeoutError):
        words = ""
    finally:
        response.release()
    if status == 404:
        return NotFound(f"registry {reference.host} has no {reference.familiar}{words}")
    if status in (401, 403):
        return _denied(reference)
    if status == 429:
        return Unavailable(f"registry {reference.host} wants fewer requests{words}")
    return Unavailable(f"registry {reference.host} answered {status}{words}")


class _Problem(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Problems(msgspec.Struct):
    errors: list[_Problem] = []


def _words(body: bytes) -> str:
    try:
        problems = msgspec.json.decode(body, type=_Problems).errors
    except msgspec.DecodeError:
        return ""
    text = (problems[0].message or problems[0].code) if problems else ""
    text = "".join(c for c in text[:200] if c.isprintable())
    return f": {text}" if text else ""
