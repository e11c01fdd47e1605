"""The client's side of HTTP/1.1 (RFC 9112) on a blocking socket: what the command line needs and no more.

Python's http.client loads the e-mail parser and TLS, a fifth of a short command's time. Invariant: what the
server sends is bounded where it is kept; anything that is no HTTP raises ProtocolError. How long a body and a
chunk are is read here for both sides: `api.hostcall` asks too.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable, Mapping

MAX_HEAD = 1 << 16
MAX_LINE = 64 << 20
CHUNK = 1 << 16
SIZE_DIGITS = 16
"""More than any body has; `int` alone also takes signs, underscores and blanks."""


class ProtocolError(Exception):
    """The peer does not speak HTTP/1.1, or broke off."""


class Reply:
    """A reply whose head has been read; its body comes as it is asked for."""

    def __init__(self, connection: Connection, status: int, reason: str, headers: Mapping[str, str]) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self._connection = connection
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._left = _length(status, headers)
        """Bytes until the end of the body, or of the chunk; -1: until the connection's end."""
        self._rest = bytearray()
        self._over = False

    def read1(self, size: int = CHUNK) -> bytes:
        """What there is, at least one byte; nothing at the end."""
        if self._rest:
            data = bytes(self._rest[:size])
            del self._rest[:size]
            return data
        return self._more(size)

    def read(self) -> bytes:
        """All of it. Raises ProtocolError beyond 64 MiB."""
        data = bytearray()
        while part := self.read1():
            data += part
            if len(data) > MAX_LINE:
                raise ProtocolError("the reply is too large")
        return bytes(data)

    def readline(self) -> bytes:
        """One line with its end, or what is left."""
        start = 0
        while (end := self._rest.find(b"\n", start)) < 0:
            start = len(self._rest)
            part = self._more(CHUNK)
            if not part:
                break
            self._rest += part
            if len(self._rest) > MAX_LINE:
                raise ProtocolError("the reply has a line without end")
        size = end + 1 if end >= 0 else len(self._rest)
        line = bytes(self._rest[:size])
        del self._rest[:size]
        return line

    def _more(self, size: int) -> bytes:
        if self._over:
            return b""
        if self._left == 0 and not (self._chunked and self._next_chunk()):
            self._end()
            return b""
        data = self._connection.take(min(size, self._left) if self._left > 0 else size)
        if not data:
            if self._left > 0:
                raise ProtocolError("the reply broke off")
            self._end()
        elif self._left > 0:
            self._left -= len(data)
            if self._left == 0 and self._chunked:
                self._connection.line()
        return data

    def _next_chunk(self) -> bool:
        line = self._connection.line()
        if not line:
            raise ProtocolError("the reply broke off")
        self._left = chunk_size(line)
        if self._left == 0:
            while self._connection.line():
                pass
        return self._left > 0

    def _end(self) -> None:
        self._over = True
        if self._left < 0 or self.headers.get("connection", "").lower() == "close":
            self._connection.close()


class Connection:
    """One connection, kept for further requests. A reply must have been read before the next request."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.closed = False
        self._buffer = bytearray()

    def close(self) -> None:
        self.closed = True
        self.sock.close()

    def ended(self) -> bool:
        """Between requests: the server has said something, which can only be that it keeps us no longer."""
        idle = select.poll()
        idle.register(self.sock, select.POLLIN)
        return bool(idle.poll(0))

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
    ) -> None:
        """Send one; a body of pieces goes in chunks."""
        fields = {"Host": "flota", **headers}
        if isinstance(body, bytes):
            fields["Content-Length"] = str(len(body))
        elif body is not None:
            fields["Transfer-Encoding"] = "chunked"
        elif method != "GET":
            fields["Content-Length"] = "0"
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
        data = f"{head}\r\n".encode("latin-1")
        self.sock.sendall(data + body if isinstance(body, bytes) else data)
        if body is not None and not isinstance(body, bytes):
            for piece in body:
                if piece:
                    self.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.sock.sendall(b"0\r\n\r\n")

    def reply(self) -> Reply:
        """The next one. Raises ProtocolError; OSError."""
        while True:
            version, _, rest = self.line().decode("latin-1").partition(" ")
            code, _, reason = rest.partition(" ")
            if version not in ("HTTP/1.1", "HTTP/1.0") or not code.isdecimal():
                raise ProtocolError("it does not speak HTTP" if version else "it ended the connection")
            headers: dict[str, str] = {}
            size = 0
            while line := self.line():
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
                size += len(line)
                if size > MAX_HEAD:
                    raise ProtocolError("the reply's head is too large")
            if code != "100":
                return Reply(self, int(code), reason, headers)

    def take(self, size: int) -> bytes:
        """Up to `size` bytes; nothing at the connection's end."""
        if self._buffer:
            data = bytes(self._buffer[:size])
            del self._buffer[:size]
            return data
        return self.sock.recv(size)

    def early(self) -> bytes:
        """What has been received beyond the last reply's head."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def line(self) -> bytes:
        """One line without its end; empty also at the connection's end."""
        while (end := self._buffer.find(b"\n")) < 0:
            part = self.sock.recv(CHUNK)
            if not part:
                if self._buffer:
                    raise ProtocolError("the reply broke off")
                return b""
            self._buffer += part
            if len(self._buffer) > MAX_HEAD and b"\n" not in self._buffer[:MAX_HEAD]:
                raise ProtocolError("the reply has a line without end")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.rstrip(b"\r")


def body_size(text: str) -> int:
    """The value of Content-Length: digits (RFC 9110, 8.6). Raises ProtocolError."""
    if not text.isascii() or not text.isdigit() or len(text) > SIZE_DIGITS:
        raise ProtocolError("the reply has a malformed length")
    return int(text)


def chunk_size(line: bytes) -> int:
    """The size in a chunk's first line: hex digits, and perhaps extensions (RFC 9112, 7.1). Raises
    ProtocolError."""
    digits = line.partition(b";")[0].rstrip()
    if not digits or digits.strip(b"0123456789abcdefABCDEF") or len(digits) > SIZE_DIGITS:
        raise ProtocolError("the reply has a malformed chunk")
    return int(digits, 16)


def _length(status: int, headers: Mapping[str, str]) -> int:
    if status < 200 or status in (204, 304) or headers.get("transfer-encoding", "").lower() == "chunked":
        return 0
    text = headers.get("content-length")
    return -1 if text is None else body_size(text)
