"""The synchronous client of flota's API, for the command line: unix socket or mutual TLS, nothing imported
that a short command does not need.

Errors of the server come back as the exceptions that it raised (`model.errors`); a server that can't be
reached is Unavailable with its address. Values are plain dicts and lists.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

DEFAULT_ENDPOINTS = ("unix:///run/flota/flota.sock", "unix:///run/flota/agent.sock")
CONNECT_TIMEOUT = 10.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("flota")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_TIMEOUT)
        self.sock.connect(self._path)
        self.sock.settimeout(None)


class Client:
    """`endpoint`: `unix:///path` or `https://host:port`; `credentials`: a folder or file with
    `admin.json`."""

    def __init__(self, endpoint: str = "", credentials: str = "") -> None:
        self.endpoint = endpoint or _first_endpoint()
        self._credentials = credentials
        self._connection: http.client.HTTPConnection | None = None

    # -- calls --------------------------------------------------------------------------------------
    def call(self, method: str, path: str, *, body: Any = None, **query: Any) -> Any:
        """The decoded JSON reply; None for an empty one."""
        reply = self._send(method, path, query, body)
        data = reply.read()
        return json.loads(data) if data else None

    def lines(self, method: str, path: str, *, body: Any = None, **query: Any) -> Iterator[dict[str, Any]]:
        """A newline-delimited reply, one value at a time; a line with `error` raises it."""
        reply = self._send(method, path, query, body)
        while line := reply.readline():
            value = json.loads(line)
            if isinstance(value, dict) and isinstance(value.get("error"), dict):
                raise _error(value["error"])
            yield value

    def upload(self, path: str, chunks: Iterable[bytes], **query: Any) -> Iterator[dict[str, Any]]:
        """POST a stream of bytes; the reply's lines, or its one value."""
        reply = self._send("POST", path, query, chunks, kind="application/x-tar")
        while line := reply.readline():
            value = json.loads(line)
            if isinstance(value, dict) and isinstance(value.get("error"), dict):
                raise _error(value["error"])
            yield value

    def raw(self, method: str, path: str, **query: Any) -> http.client.HTTPResponse:
        """The reply as it comes, for streams of frames."""
        return self._send(method, path, query, None)

    def hijack(self, path: str, *, body: Any = None, **query: Any) -> socket.socket:
        """POST with an upgrade to a stream of frames; the connection's socket, and what came with the 101."""
        connection = self._connect()
        data = b"" if body is None else json.dumps(body).encode()
        try:
            connection.putrequest("POST", _target(path, query))
            connection.putheader("Connection", "Upgrade")
            connection.putheader("Upgrade", "flota-stream")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(data)))
            connection.endheaders(data or None)
            reply = connection.getresponse()
        except OSError as error:
            raise self._unreachable(error) from error
        if reply.status != 101:
            self._check(reply)
        self._connection = None
        return cast(socket.socket, _Upgraded(connection.sock, reply))

    # -- parts --------------------------------------------------------------------------------------
    def _send(
        self, method: str, path: str, query: Mapping[str, Any], body: Any, *, kind: str = "application/json"
    ) -> http.client.HTTPResponse:
        connection = self._connect()
        headers = {"Content-Type": kind} if body is not None else {}
        data: Any = body
        if body is not None and kind == "application/json":
            data = json.dumps(body).encode()
        try:
            chunked = body is not None and kind != "application/json"
            connection.request(method, _target(path, query), data, headers, encode_chunked=chunked)
            reply = connection.getresponse()
        except (BrokenPipeError, ConnectionResetError) as error:
            reply = self._early_reply(connection, error)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        self._check(reply)
        return reply

    def _early_reply(
        self, connection: http.client.HTTPConnection, error: OSError
    ) -> http.client.HTTPResponse:
        """A server that refuses an upload answers before it has read it all."""
        try:
            return connection.getresponse()
        except (OSError, http.client.HTTPException):
            raise self._unreachable(error) from error

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            self._connection = self._new_connection()
        try:
            if self._connection.sock is None:
                self._connection.connect()
        except OSError as error:
            raise self._unreachable(error) from error
        return self._connection

    def _new_connection(self) -> http.client.HTTPConnection:
        from model.errors import InvalidInput

        url = urlsplit(self.endpoint)
        if url.scheme == "unix":
            return _UnixConnection(url.path)
        if url.scheme == "https" and url.hostname:
            return _tls_connection(url.hostname, url.port or 7420, self._credentials)
        raise InvalidInput(
            f"{self.endpoint[:120]!r} is no endpoint", hint="Write unix:///path or https://address:port"
        )

    def _unreachable(self, error: Exception) -> Exception:
        from model.errors import Unavailable

        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Unavailable(
            f"cannot reach flota at {self.endpoint}: {reason or type(error).__name__}",
            hint="Is it running (`flota up`)? Is FLOTA_HOST right?",
        )

    def _check(self, reply: http.client.HTTPResponse) -> None:
        if reply.status < 400:
            return
        data = reply.read()
        try:
            body = json.loads(data)
        except ValueError:
            body = {"message": f"the server answered {reply.status} {reply.reason}"}
        raise _error(body)


class _Upgraded:
    """A socket whose first bytes http.client has read already."""

    def __init__(self, sock: socket.socket, reply: http.client.HTTPResponse) -> None:
        self._sock = sock
        self._early = reply.fp.peek() if hasattr(reply.fp, "peek") and _pending(reply) else b""

    def recv(self, size: int) -> bytes:
        if self._early:
            data, self._early = self._early[:size], self._early[size:]
            return data
        return self._sock.recv(size)

    @property
    def early(self) -> bool:
        """True while bytes are here that `fileno` does not announce."""
        return bool(self._early)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def _pending(reply: http.client.HTTPResponse) -> bool:
    """Whether http.client's buffer holds bytes beyond the head, without reading from the socket."""
    raw = getattr(reply.fp, "raw", None)
    sock = getattr(raw, "_sock", None)
    if sock is None:
        return False
    timeout = sock.gettimeout()
    sock.settimeout(0.0)
    try:
        return bool(reply.fp.peek(1))
    except (BlockingIOError, OSError):
        return False
    finally:
        sock.settimeout(timeout)


def _error(body: Mapping[str, Any]) -> Exception:
    from model.codec import decode_json
    from model.errors import ErrorBody

    return decode_json(json.dumps(body), ErrorBody).to_error()


def _target(path: str, query: Mapping[str, Any]) -> str:
    pairs: list[tuple[str, str]] = []
    for key, value in query.items():
        if value is None or value is False or value == "":
            continue
        for item in value if isinstance(value, list | tuple) else [value]:
            pairs.append((key, "true" if item is True else str(item)))
    return quote(path, safe="/:@%") + (f"?{urlencode(pairs)}" if pairs else "")


def _first_endpoint() -> str:
    chosen = os.environ.get("FLOTA_HOST")
    if chosen:
        return chosen
    for endpoint in DEFAULT_ENDPOINTS:
        if os.path.exists(endpoint.removeprefix("unix://")):
            return endpoint
    return DEFAULT_ENDPOINTS[0]


def _tls_connection(host: str, port: int, credentials: str) -> http.client.HTTPSConnection:
    import ssl
    import tempfile

    from model.errors import Unauthenticated

    path = credentials or os.environ.get("FLOTA_CREDENTIALS", "")
    file = os.path.join(path, "admin.json") if os.path.isdir(path) else path
    try:
        with open(file) as source:
            admin = json.load(source)
    except (OSError, ValueError) as error:
        raise Unauthenticated(
            f"no credentials for {host}: {file or 'FLOTA_CREDENTIALS is not set'}",
            hint="Copy admin.json from the controller's state folder and set FLOTA_CREDENTIALS",
        ) from error
    context = ssl.create_default_context(cadata=admin["ca"])
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as pair:  # mode 0600
        pair.write(admin["certificate"] + admin["key"])
        pair.flush()
        context.load_cert_chain(pair.name)
    return http.client.HTTPSConnection(host, port, context=context)
