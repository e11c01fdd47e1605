"""What goes wrong with a registry, as our errors: in words for people, with its own where it has some.

Invariant: nothing of what a registry says is shown unless it is short and printable.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import time
from collections.abc import Iterator

import aiohttp
import msgspec

from image.reference import Reference
from model.codec import UNREADABLE
from model.errors import Damaged, FlotaError, NotFound, Unauthenticated, Unavailable

MAX_REPLY = 1 << 16
MAX_WAIT = 300.0
"""Seconds that a registry may make us wait before the next try."""
DOCUMENT_DEADLINE = 120.0
"""Seconds for the whole of a document, however it drips."""


class Hopeless(Unavailable):
    """Another try would end the same."""


class Lost(NotFound):
    """An upload that the registry has forgotten."""


async def bounded(
    response: aiohttp.ClientResponse, limit: int, *, within: float = DOCUMENT_DEADLINE
) -> bytes:
    """The whole body. Raises Damaged when it has more than `limit` bytes, TimeoutError when it is not here
    `within` seconds."""
    body = bytearray()
    async with asyncio.timeout(within):
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > limit:
                raise Damaged(f"{response.url.host} answers with more than {limit} bytes")
    return bytes(body)


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
            f"registry {host}: TLS failed: {error}",
            hint=f"A CA of its own goes into /etc/flota/certs.d/{host}/ca.crt on each host;"
            " a registry in plain HTTP is named by --insecure-registry",
        ) from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlRedirectClientError) as error:
        raise Hopeless(
            f"registry {host} sends us to a place that is no URL", hint="Tell its owner"
        ) from error
    except aiohttp.ClientConnectorError as error:
        raise Unavailable(f"registry {host} can't be reached: {error.strerror or error}") from error
    except TimeoutError as error:
        raise Unavailable(f"registry {host} is silent, or too slow") from error
    except (aiohttp.ClientError, OSError) as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise Unavailable(f"registry {host}: the connection broke: {words}") from error


def retry_after(response: aiohttp.ClientResponse) -> float:
    """Seconds, of both forms of the header (RFC 9110, 10.2.3). Raises Hopeless when it is longer than we
    wait."""
    seconds = seconds_of(response.headers.get("Retry-After", ""), time.time())
    if seconds > MAX_WAIT:
        raise Hopeless(
            f"registry {response.url.host} wants no request for {seconds:.0f} s", hint="Try again then"
        )
    return seconds


def seconds_of(header: str, now: float) -> float:
    """Of a Retry-After; 0 for what is none."""
    text = header[:100].strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - now, 0.0)
    except (ValueError, OverflowError):
        return 0.0


def denied(reference: Reference, words: str = "") -> Unauthenticated:
    return Unauthenticated(
        f"registry {reference.host} denies access to {reference.familiar}{words}",
        hint=f"Does it exist, and may you? `flota login {reference.host}` says who you are",
    )


async def refusal(response: aiohttp.ClientResponse, reference: Reference) -> FlotaError:
    """The registry's error as ours, with its own first words (distribution-spec, "Error Codes")."""
    status = response.status
    try:
        code, words = first_words(await bounded(response, MAX_REPLY))
    except (FlotaError, aiohttp.ClientError, TimeoutError):
        code, words = "", ""
    finally:
        response.release()
    if code == "BLOB_UPLOAD_UNKNOWN":
        return Lost(f"registry {reference.host} has forgotten an upload{words}")
    if status == 404:
        return NotFound(f"registry {reference.host} has no {reference.familiar}{words}")
    if status in (401, 403):
        return denied(reference, words)
    if status == 429:
        return Unavailable(f"registry {reference.host} wants fewer requests{words}")
    if 400 <= status < 500 and status not in (408, 425):
        return Hopeless(f"registry {reference.host} refuses it ({status}){words}")
    return Unavailable(f"registry {reference.host} answered {status}{words}")


class _Problem(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Problems(msgspec.Struct):
    errors: list[_Problem] = []


def first_words(body: bytes) -> tuple[str, str]:
    """Code and message of the first error that a registry tells, as they go on after ours."""
    try:
        problems = msgspec.json.decode(body, type=_Problems).errors
    except UNREADABLE:
        return "", ""
    if not problems:
        return "", ""
    text = "".join(c for c in (problems[0].message or problems[0].code)[:200] if c.isprintable())
    return problems[0].code, f": {text}" if text else ""
