"""A file to read: one that is here, standard input, or what a URL leads to.

Invariant: what a URL gives is bounded in time between its pieces, and nobody is led from HTTPS to plain HTTP.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, cast
from urllib.parse import urlsplit

from model.errors import InvalidInput, NotFound, Unavailable

SILENCE = 60.0
"""Seconds between two pieces."""


@contextmanager
def opened(source: str) -> Iterator[BinaryIO]:
    """`-` is standard input. Raises NotFound, InvalidInput, Unavailable."""
    if source == "-":
        yield sys.stdin.buffer
    elif source.startswith(("http://", "https://")):
        with _fetched(source) as file:
            yield file
    else:
        try:
            file = open(source, "rb")  # noqa: SIM115
        except FileNotFoundError as error:
            raise NotFound(f"{source}: no such file") from error
        except OSError as error:
            raise InvalidInput(f"{source} can't be read: {error.strerror}") from error
        with file:
            yield file


class _Whole:
    """A reply's body, which is all of what was announced or an error. Raises Unavailable."""

    def __init__(self, reply: Any, url: str) -> None:
        self._reply = reply
        self._url = url
        self._left = int(reply.headers.get("Content-Length") or -1)

    def read(self, size: int) -> bytes:
        data: bytes = self._reply.read(size)
        if self._left > 0:
            self._left -= len(data)
            if not data:
                raise Unavailable(f"{self._url}: the connection broke {self._left} bytes before its end")
        return data


@contextmanager
def _fetched(url: str) -> Iterator[BinaryIO]:
    import http.client
    from urllib.error import HTTPError, URLError
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    host = urlsplit(url).hostname or "it"

    class Careful(HTTPRedirectHandler):
        def redirect_request(
            self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
        ) -> Request | None:
            if req.full_url.startswith("https://") and not newurl.startswith("https://"):
                words = f"{host} redirects from HTTPS to {newurl[:100]}"
                raise Unavailable(words, hint="That is not followed")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    try:
        with build_opener(Careful).open(Request(url), timeout=SILENCE) as reply:  # noqa: S310
            yield cast("BinaryIO", _Whole(reply, url))
    except HTTPError as error:
        raise Unavailable(f"{url} answered {error.code} {error.reason}") from error
    except (URLError, OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{url} can't be fetched: {getattr(error, 'reason', error)}") from error
