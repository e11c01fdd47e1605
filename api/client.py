"""The synchronous client of flota's API, for the command line: unix socket or mutual TLS, nothing imported
that a short command does not need.

Errors of the server come back as the exceptions that it raised (`model.errors`); a server that can't be
reached is Unavailable with its address. Values are plain dicts and lists.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from api.http1 import Connection, ProtocolError, Reply

DEFAULT_ENDPOINTS = ("unix:///run/flota/flota.sock", "unix:///run/flota/agent.sock")
CONNECT_TIMEOUT = 10.0


class Client:
    """`endpoint`: `unix:///path` or `https://host:port`; `credentials`: a folder or file with
    `admin.json`."""

    def __init__(self, endpoint: str = "", credentials: str = "") -> None:
        self.endpoint = endpoint or default_endpoint() or DEFAULT_ENDPOINTS[0]
        self._credentials = credentials
        self._connection: Connection | None = None
        self.warning = ""
        """What the last reply lacks, and why: hosts that did not answer."""

    # -- calls --------------------------------------------------------------------------------------
    def call(self, method: str, path: str, /, *, body: Any = None, login: str = "", **query: Any) -> Any:
        """The decoded JSON reply; None for an empty one. `login` says who we are at a registry, as
        `model.registries` encodes it."""
        reply = self._send(method, path, query, body, login=login)
        data = self._next(reply.read)
        return json.loads(data) if data else None

    def lines(
        self, method: str, path: str, /, *, body: Any = None, login: str = "", **query: Any
    ) -> Iterator[dict[str, Any]]:
        """A newline-delimited reply, one value at a time; a line with `error` raises it."""
        yield from self._values(self._send(method, path, query, body, login=login))

    def upload(self, path: str, chunks: Iterable[bytes], /, **query: Any) -> Iterator[dict[str, Any]]:
        """POST a stream of bytes; the reply's lines, or its one value."""
        yield from self._values(self._send("POST", path, query, chunks, kind="application/x-tar"))

    def raw(self, method: str, path: str, /, **query: Any) -> Iterator[bytes]:
        """The reply's bytes as they come, for streams of frames."""
        reply = self._send(method, path, query, None)
        while data := self._next(reply.read1):
            yield data

    def hijack(
        self, path: str, /, *, body: Any = None, protocol: str = "flota-stream", **query: Any
    ) -> Upgraded:
        """POST with an upgrade to a stream of frames; the connection's socket, and what came with the 101."""
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"Connection": "Upgrade", "Upgrade": protocol, "Content-Type": "application/json"}
        connection = self._connect()
        reply = self._exchange(connection, "POST", _target(path, query), headers, data)
        if reply.status != 101:
            self._check(reply)
            raise self._unreachable(ProtocolError(f"it answered {reply.status} instead of a stream"))
        self._connection = None
        return Upgraded(connection.sock, connection.early())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def abort(self) -> None:
        """Of another thread's call: it ends as one whose connection broke."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._connection.sock, socket.SHUT_RDWR)

    # -- parts --------------------------------------------------------------------------------------
    def _values(self, reply: Reply) -> Iterator[Any]:
        while line := self._next(reply.readline):
            value = json.loads(line)
            if isinstance(value, dict) and isinstance(value.get("error"), dict):
                raise _error(value["error"])
            yield value

    def _next(self, read: Callable[[], bytes]) -> bytes:
        """The next part of a reply's body. Raises Unavailable when it breaks off."""
        try:
            return read()
        except (OSError, ProtocolError) as error:
            from model.errors import Unavailable

            raise Unavailable(
                f"the connection to flota at {self.endpoint} broke: {_reason(error)}",
                hint="The host behind it may be lost; see `flota node ls`",
            ) from error

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Any,
        *,
        kind: str = "application/json",
        login: str = "",
    ) -> Reply:
        headers = {"Content-Type": kind} if body is not None else {}
        if login:
            headers["X-Registry-Auth"] = login
        data: Any = body
        if body is not None and kind == "application/json":
            data = json.dumps(body).encode()
        reply = self._exchange(self._connect(), method, _target(path, query), headers, data)
        self._check(reply)
        self.warning = reply.headers.get("flota-warning", "")
        return reply

    def _exchange(
        self, connection: Connection, method: str, target: str, headers: Mapping[str, str], body: Any
    ) -> Reply:
        """Also for a server that refuses an upload before it has read it all. Raises Unavailable."""
        try:
            try:
                connection.request(method, target, headers, body)
            except (BrokenPipeError, ConnectionResetError):
                if body is None or isinstance(body, bytes):
                    raise
            return connection.reply()
        except (OSError, ProtocolError) as error:
            connection.close()
            raise self._unreachable(error) from error

    def _connect(self) -> Connection:
        if self._connection is not None and not self._connection.closed and self._connection.ended():
            self._connection.close()
        if self._connection is None or self._connection.closed:
            try:
                self._connection = Connection(self._new_socket())
            except OSError as error:
                raise self._unreachable(error) from error
        return self._connection

    def _new_socket(self) -> socket.socket:
        from model.errors import InvalidInput

        url = urlsplit(self.endpoint)
        if url.scheme == "unix":
            return _unix_socket(url.path)
        if url.scheme == "https" and url.hostname:
            return _tls_socket(url.hostname, url.port or 7420, self._credentials)
        raise InvalidInput(
            f"{self.endpoint[:120]!r} is no endpoint", hint="Write unix:///path or https://address:port"
        )

    def _unreachable(self, error: Exception) -> Exception:
        from model.errors import Unavailable

        return Unavailable(
            f"cannot reach flota at {self.endpoint}: {_reason(error)}",
            hint="Is it running (`flota up`)? Is FLOTA_HOST right?",
        )

    def _check(self, reply: Reply) -> None:
        if reply.status < 400:
            return
        data = self._next(reply.read)
        try:
            body = json.loads(data)
        except ValueError:
            body = {"message": f"the server answered {reply.status} {reply.reason}"}
        raise _error(body)


class Upgraded:
    """A socket, and bytes that came before anybody asked it."""

    def __init__(self, sock: socket.socket, early: bytes) -> None:
        self._sock = sock
        self._early = early

    def recv(self, size: int) -> bytes:
        if self._early:
            data, self._early = self._early[:size], self._early[size:]
            return data
        return self._sock.recv(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def _reason(error: Exception) -> str:
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return words or type(error).__name__


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


def default_endpoint() -> str:
    """As FLOTA_HOST says, or a socket of this host's; empty: there is neither."""
    chosen = os.environ.get("FLOTA_HOST")
    if chosen:
        return chosen
    there = (one for one in DEFAULT_ENDPOINTS if os.path.exists(one.removeprefix("unix://")))
    return next(there, "")


def _unix_socket(path: str) -> socket.socket:
    """Also for paths that are longer than the 107 bytes of a socket address."""
    folder = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(CONNECT_TIMEOUT)
        sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        sock.settimeout(None)
    except OSError:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock


def _tls_socket(host: str, port: int, credentials: str) -> socket.socket:
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
    plain = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        secured = context.wrap_socket(plain, server_hostname=host)
        secured.settimeout(None)
    except OSError:
        plain.close()
        raise
    return secured
