"""Who is calling: the URI in a TLS client's certificate, or the unix socket's file mode (0660).

Invariant: an identity comes from the connection alone, never from anything in the request.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from typing import Any

from aiohttp import web
from msgspec.structs import replace

from api.ports import Identity
from model.errors import Forbidden, Unauthenticated
from model.ids import NAME, is_id

SCHEME = "spiffe://"
ADMIN = Identity(role="admin")
ANONYMOUS = Identity(role="anonymous")


def of_certificate(certificate: dict[str, Any], fleet_id: str) -> Identity:
    """From `ssl.SSLSocket.getpeercert()` of a verified certificate; its URI SAN is
    `spiffe://FLEET/host/ID`, `…/user/NAME` or `…/controller` (SPIFFE ID, section 2). Raises Forbidden."""
    names = certificate.get("subjectAltName", ())
    uris = [value for kind, value in names if kind == "URI" and value.startswith(SCHEME)]
    if len(uris) != 1:
        raise Forbidden("the client certificate does not name a member of a fleet")
    fleet, _, path = uris[0].removeprefix(SCHEME).partition("/")
    if fleet != fleet_id:
        raise Forbidden("the client certificate is of another fleet")
    kind, _, name = path.partition("/")
    if kind == "host" and is_id(name):
        return Identity(role="host", id=name)
    if kind == "user" and NAME.match(name):
        return Identity(role="admin", id=name)
    raise Forbidden(f"the client certificate is for {path[:80]!r}, who may not call this API")


def of_connection(request: web.Request, fleet_id: str) -> Identity:
    """The caller. Raises Forbidden, or Unauthenticated for plain TCP."""
    transport = request.transport
    if transport is None:
        raise Unauthenticated("the connection is gone")
    if transport.get_extra_info("sslcontext") is not None:
        certificate = transport.get_extra_info("peercert")
        if not certificate:
            return ANONYMOUS
        identity = of_certificate(certificate, fleet_id)
        if identity.role != "host":
            return identity
        der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        valid_from = float(ssl.cert_time_to_seconds(certificate["notBefore"]))
        return replace(identity, certificate=hashlib.sha256(der).hexdigest(), valid_from=valid_from)
    peer = transport.get_extra_info("socket")
    if peer is not None and peer.family == socket.AF_UNIX:
        return ADMIN
    raise Unauthenticated("this API is not served without TLS")
