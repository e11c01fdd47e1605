"""Who is who: the fleet's own certificate authority, host, controller and admin certificates, join tokens.

Invariants: the CA's key leaves its folder (0600) in a backup alone; an identity is a URI in the certificate
(`spiffe://<fleet>/host/<id>`, SPIFFE-ID) and never its common name; a token's secret is stored as a hash and
compared in constant time; a token carries the digest of the CA so that a joining host knows whom it talks to.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aio.durable import write_file
from controller import pkiseal
from model.errors import Damaged, InvalidInput, Unauthenticated

DAY = datetime.timedelta(days=1)
SKEW = datetime.timedelta(minutes=10)
"""Certificates are valid from a little before now, for hosts whose clock is behind."""
TOKEN = "flota-1-"  # noqa: S105 (the fixed start of every token)


class Pair(NamedTuple):
    """PEM: certificate (leaf first, then the CA) and private key."""

    certificate: bytes
    key: bytes


class Authority:
    """The fleet's CA. `Authority.open(folder, fleet_id)` finds or makes it."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, fleet: str) -> None:
        self._certificate = certificate
        self._key = key
        self._fleet = fleet
        self._sealing = pkiseal.derived(_scalar(key), "flota secrets at rest")
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def open(cls, folder: Path, fleet_id: str) -> Authority:
        """Raises Damaged when what is there is no CA of this fleet."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        certificate_file, key_file = folder / "ca.pem", folder / "ca.key"
        if not certificate_file.exists() and not key_file.exists():
            made = cls.new(fleet_id)
            write_file(key_file, _pem_key(made._key))
            write_file(certificate_file, made.pem, mode=0o644)
            return made
        try:
            return cls.load(certificate_file.read_bytes(), key_file.read_bytes(), fleet_id)
        except OSError as error:
            raise Damaged(f"the fleet's CA in {folder} can't be read: {error}") from error
        except Damaged as error:
            raise Damaged(f"{folder}: {error.message}", hint="Restore both from one backup") from error

    @classmethod
    def load(cls, certificate_pem: bytes, key_pem: bytes, fleet_id: str) -> Authority:
        """Raises Damaged when these are not the CA of that fleet and its key."""
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            key = serialization.load_pem_private_key(key_pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Damaged(f"the fleet's CA can't be read: {error}") from error
        name = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not name or name[0].value != _ca_name(fleet_id):
            raise Damaged("the CA belongs to another fleet")
        if key.public_key() != certificate.public_key():
            raise Damaged("the CA's key is not that of its certificate")
        return cls(certificate, key, fleet_id)

    @classmethod
    def new(cls, fleet_id: str) -> Authority:
        """A fresh one, in memory."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _ca_name(fleet_id))])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + 3650 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(builder.sign(key, hashes.SHA256()), key, fleet_id)

    def key_pem(self) -> bytes:
        """For a backup: whoever has it can make himself anybody of the fleet."""
        return _pem_key(self._key)

    def seal(self, text: bytes, about: str) -> bytes:
        """A secret as it may rest in the store."""
        return pkiseal.seal(self._sealing, text, about)

    def unseal(self, sealed: bytes, about: str) -> bytes:
        """Raises Damaged for what was not sealed by this fleet's CA about the same."""
        return pkiseal.unseal(self._sealing, sealed, about)

    def sign(self, data: bytes) -> bytes:
        """What hosts are to believe: ECDSA over SHA-256, DER. `data` begins so that it is no certificate."""
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))

    @property
    def digest(self) -> str:
        """Base32 of the SHA-256 of the CA's DER, lower case, as in join tokens."""
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        return base64.b32encode(hashlib.sha256(der).digest()).decode().rstrip("=").lower()

    def host(self, csr_pem: str, host_id: str, *, days: int = 90) -> Pair:
        """Sign a host's request: only its key is taken from it. The pair has no key: that is the host's.
        Raises InvalidInput."""
        try:
            csr = x509.load_pem_x509_csr(csr_pem.encode())
            public, signed = csr.public_key(), csr.is_signature_valid
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            raise InvalidInput("the certificate request can't be read") from error
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
            raise InvalidInput("the certificate request is for no P-256 key")
        if not signed:
            raise InvalidInput("the certificate request is not signed by its own key")
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        return Pair(self._leaf(public, f"host/{host_id}", usages, days=days), b"")

    def controller(self, names: Iterable[str], *, days: int = 365) -> Pair:
        """A server certificate for the given host names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH]
        pem = self._leaf(key.public_key(), "controller", usages, days=days, names=names)
        return Pair(pem, _pem_key(key))

    def admin(self, user: str, *, days: int = 365) -> Pair:
        """A client certificate for a person."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        return Pair(self._leaf(key.public_key(), f"user/{user}", usages, days=days), _pem_key(key))

    def _leaf(
        self,
        public: ec.EllipticCurvePublicKey,
        role: str,
        usages: list[x509.ObjectIdentifier],
        *,
        days: int,
        names: Iterable[str] = (),
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        uri = x509.UniformResourceIdentifier(f"spiffe://{self._fleet}/{role}")
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role[:64])]))
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + days * DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([uri, *(_general_name(n) for n in names)]), critical=False
            )
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM) + self.pem


def new_token(authority: Authority) -> tuple[str, str]:
    """(token to show once, hash of its secret to keep)."""
    secret = secrets.token_hex(16)
    return f"{TOKEN}{authority.digest}-{secret}", secret_hash(secret)


def secret_hash(secret: str) -> str:
    """The secret has 128 random bits, so one round of SHA-256 is enough."""
    return hashlib.sha256(f"flota-join/{secret}".encode()).hexdigest()


def secret_of(token: str, authority: Authority) -> str:
    """The secret within a token, or the bare secret. Raises Unauthenticated for another fleet's token."""
    if not token.startswith(TOKEN):
        return token
    digest, _, secret = token.removeprefix(TOKEN).partition("-")
    if not hmac.compare_digest(digest.encode(), authority.digest.encode()):
        raise Unauthenticated("the join token is of another fleet")
    return secret


def fingerprint(certificate_pem: bytes) -> str:
    """SHA-256 of the leaf's DER, hex."""
    return x509.load_pem_x509_certificate(certificate_pem).fingerprint(hashes.SHA256()).hex()


def due(certificate_pem: bytes) -> float:
    """Unix seconds at which two thirds of its life are over. Raises ValueError."""
    found = x509.load_pem_x509_certificate(certificate_pem)
    start, end = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    return start + (end - start) * 2 / 3


def identity_of(certificate_pem: str, signed: str, proof: str) -> str:
    """Fingerprint of a host's certificate, whose key has signed that text (`proof`: ECDSA with SHA-256, in
    base64). Also of one that has expired. Raises Unauthenticated."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        public = certificate.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise ValueError("another kind of key")
        public.verify(base64.b64decode(proof, validate=True), signed.encode(), ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise Unauthenticated("this host does not prove that it has the key of its certificate") from error
    return certificate.fingerprint(hashes.SHA256()).hex()


def _ca_name(fleet_id: str) -> str:
    return f"flota fleet {fleet_id[:32]}"


def _scalar(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The private number itself: the same whatever a library writes around it."""
    return key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
