"""A CA and a server's certificate for 127.0.0.1, made on the spot."""

from __future__ import annotations

import ssl
from pathlib import Path

from controller.pki import Authority


def authority_and_server(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """The CA's file, and a server's context; `server.pem`, `server.key`, `client.pem` and `client.key` are
    beside it."""
    authority = Authority.new("tests")
    ca = folder / "ca.pem"
    ca.write_bytes(authority.pem)
    pair = authority.controller(("127.0.0.1", "localhost"))
    (folder / "server.pem").write_bytes(pair.certificate)
    (folder / "server.key").write_bytes(pair.key)
    person = authority.admin("host")
    (folder / "client.pem").write_bytes(person.certificate)
    (folder / "client.key").write_bytes(person.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return ca, context
