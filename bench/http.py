"""The least HTTP over a unix socket, the same for every peer, so that the client's cost cancels out."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(120)
        self.sock.connect(self._path)


class Api:
    """One kept-alive connection; a reply with an error status raises RuntimeError with its body."""

    def __init__(self, path: str) -> None:
        self._connection = UnixConnection(path)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if data else {}
        self._connection.request(method, path, data, headers)
        reply = self._connection.getresponse()
        text = reply.read()
        if reply.status >= 400:
            raise RuntimeError(f"{method} {path}: {reply.status} {text[:300].decode(errors='replace')}")
        return json.loads(text) if text.strip().startswith((b"{", b"[")) else None

    def close(self) -> None:
        self._connection.close()
