"""Whether the fleet's own authority signed something."""

from __future__ import annotations

from collections.abc import Callable

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from model.errors import Damaged

Verify = Callable[[bytes, bytes], bool]
"""(data, signature) → whether it is good."""


def verifier(ca: str) -> Verify:
    """By the certificate of the fleet's CA, PEM. Raises Damaged."""
    try:
        public = x509.load_pem_x509_certificate(ca.encode()).public_key()
    except ValueError as error:
        raise Damaged("the fleet's CA can't be read") from error
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise Damaged("the fleet's CA has no elliptic-curve key")
    key = public

    def verify(data: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True

    return verify
