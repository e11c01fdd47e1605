"""A token service that Docker's registry trusts, as a process of its own: one user, tokens for what is asked.

`python -m tests.support.tokenserver FOLDER PORT USER PASSWORD` serves GET and POST `/token` on loopback, with
the key and certificate that `make_key` has laid down. Source: distribution's "Token Authentication".
"""

from __future__ import annotations

import base64
import datetime
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

ISSUER, SERVICE = "flota-tests", "registry"
IDENTITY = "an-identity-token"


def make_key(folder: Path) -> None:
    """`key.pem`, and `cert.pem` for the registry to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(folder: Path, user: str, scopes: list[str]) -> str:
    """A JWT (ES256) that grants what is asked."""
    key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    der = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes()).public_bytes(
        serialization.Encoding.DER
    )
    access = []
    for scope in " ".join(scopes).split():
        kind, name, actions = scope.split(":", 2)
        access.append({"type": kind, "name": name, "actions": actions.split(",")})
    now = int(time.time())
    head = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
    claims: dict[str, Any] = {"iss": ISSUER, "sub": user, "aud": SERVICE, "access": access}
    claims |= {"nbf": now - 10, "iat": now, "exp": now + 300, "jti": str(time.time_ns())}
    signed = f"{_b64(json.dumps(head).encode())}.{_b64(json.dumps(claims).encode())}"
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def serve(folder: Path, port: int, user: str, password: str) -> None:
    basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            self._reply(self.headers.get("Authorization") == basic, query.get("scope", []))

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            good = form.get("grant_type") == ["refresh_token"] and form.get("refresh_token") == [IDENTITY]
            self._reply(good, form.get("scope", []))

        def _reply(self, good: bool, scopes: list[str]) -> None:
            body = json.dumps({"token": token(folder, user, scopes), "expires_in": 300}) if good else "{}"
            self.send_response(200 if good else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            return

    HTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
