"""Enrollment: a host becomes a member of a fleet by a token, and keeps the proof in its state folder.

The token carries the digest of the fleet's CA, so the first connection, whose certificate nothing vouches for
yet, is trusted only for handing out a CA that fits; the secret goes over a connection verified by it. The key
is made here and never leaves.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from aio.durable import write_file
from model.api import JoinReply, JoinRequest
from model.codec import decode_json, encode_json
from model.errors import (
    AlreadyExists,
    Damaged,
    ErrorBody,
    FlotaError,
    InvalidInput,
    NotFound,
    Unauthenticated,
    Unavailable,
    WrongState,
)
from model.renewal import RenewReply, RenewRequest
from model.spec import Struct

PREFIX = "flota-1-"
DEADLINE = 30.0
MAX_BODY = 1 << 20


class Enrollment(Struct):
    """`<state>/enrollment.json`, mode 0600; certificate and key as PEM."""

    host_id: str
    fleet_id: str
    controllers: tuple[str, ...]
    """`https://address:port`"""
    certificate: str
    key: str
    ca: str
    name: str = ""


def load(state: Path) -> Enrollment:
    """Raises NotFound when this host has not joined a fleet."""
    try:
        data = (state / "enrollment.json").read_bytes()
    except FileNotFoundError as error:
        raise NotFound(
            "this host has not joined a fleet",
            hint="Start one with `flota up`, or use `flota join TOKEN ADDRESS`",
        ) from error
    return decode_json(data, Enrollment, "enrollment.json")


def parse_token(token: str) -> tuple[str, str]:
    """(CA digest in base32, secret). Raises InvalidInput."""
    digest, dash, secret = token.strip().removeprefix(PREFIX).partition("-")
    if not token.strip().startswith(PREFIX) or not dash or not secret or len(digest) != 52:
        raise InvalidInput(
            "this is no join token", hint="Get one with `flota token create` on the first host"
        )
    return digest, secret


async def join(
    token: str, controller: str, *, state: Path, name: str, address: str, labels: Mapping[str, str]
) -> Enrollment:
    """Enroll with the controller at `host:port`. A member of that fleet proves by its key who it is, and
    keeps its record. Raises Unauthenticated for a wrong token or CA, AlreadyExists for a member of another
    fleet or by another name."""
    digest, secret = parse_token(token)
    url = f"https://{controller}"
    key = new_key()
    csr = signing_request(key, name)
    request = JoinRequest(secret=secret, csr=csr, name=name, address=address, labels=dict(labels))
    before = known(state, token)
    if before is not None:
        if before.name and before.name != name:
            raise AlreadyExists(
                f"this host is {before.name} in that fleet, not {name}",
                hint="Leave out --name; or leave the fleet with `flota down --purge`",
            )
        request = replace(request, certificate=before.certificate, proof=_proof(before.key, csr))
    try:
        async with asyncio.timeout(DEADLINE):
            ca = await _fetch_ca(url, digest)
            reply = await _enroll(url, ca, request)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        words = str(error) or type(error).__name__
        raise Unavailable(f"cannot reach a controller at {controller}: {words}") from error
    enrollment = Enrollment(
        host_id=reply.host_id,
        fleet_id=reply.fleet_id,
        controllers=(url,),
        certificate=reply.certificate,
        key=pem_of(key),
        ca=reply.ca,
        name=name,
    )
    state.mkdir(mode=0o711, parents=True, exist_ok=True)
    with _alone(state):
        _store(state, enrollment)
    return enrollment


def known(state: Path, token: str) -> Enrollment | None:
    """What this host has of the fleet that the token is of; None of one that is no member. Raises
    AlreadyExists for a member of another fleet."""
    try:
        before = load(state)
    except NotFound:
        return None
    try:
        own = _digest(before.ca.encode())
    except ValueError as error:
        raise Damaged(
            f"{state}/enrollment.json: {error}", hint="flota down --purge, and join anew"
        ) from error
    if own != parse_token(token)[0].lower():
        raise AlreadyExists(
            "this host is a member of another fleet already", hint="Leave it with `flota down --purge`"
        )
    return before


def _proof(key_pem: str, text: str) -> str:
    try:
        key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise Damaged(f"the key in enrollment.json can't be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Damaged("the key in enrollment.json is no elliptic curve's")
    return base64.b64encode(key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))).decode()


def _digest(pem: bytes) -> str:
    """Base32 of the SHA-256 of the DER, as tokens have it. Raises ValueError."""
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    return base64.b32encode(hashlib.sha256(der).digest()).decode().rstrip("=").lower()


async def follow(state: Path, run: Path, controller: str) -> None:
    """Keep `host:port` as where the controller is, once a controller with the fleet's own CA answers there.
    Raises NotFound, Unavailable; then all is as it was."""
    enrollment = load(state)
    url = f"https://{controller}"
    context = client_context(enrollment, run)
    try:
        async with (
            asyncio.timeout(DEADLINE),
            aiohttp.ClientSession() as client,
            client.get(f"{url}/v1/ca", ssl=context) as reply,
        ):
            await _body(reply)
    except ssl.SSLError as error:
        raise _not_ours(controller, error) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        if isinstance(error, aiohttp.ClientSSLError):
            raise _not_ours(controller, error) from error
        words = str(error) or type(error).__name__
        raise Unavailable(f"cannot reach a controller at {controller}: {words}") from error
    with _alone(state):  # its certificate may have been renewed meanwhile
        _store(state, replace(load(state), controllers=(url,)))


async def ask_renewed(enrollment: Enrollment, run: Path, request: RenewRequest) -> RenewReply:
    """Of the first controller that can be reached. Raises Unavailable, and what a controller answers:
    NotFound of one of before."""
    problem = Unavailable("this host knows of no controller")
    context = client_context(enrollment, run)
    headers = {"Content-Type": "application/json"}
    for url in enrollment.controllers:
        try:
            async with (
                asyncio.timeout(DEADLINE),
                aiohttp.ClientSession() as client,
                client.post(
                    f"{url}/v1/agents/renew", data=encode_json(request), headers=headers, ssl=context
                ) as reply,
            ):
                return decode_json(await _body(reply), RenewReply, "the controller's answer")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            problem = Unavailable(f"cannot reach a controller at {url}: {str(error) or type(error).__name__}")
    raise problem


def keep_renewed(state: Path, before: Enrollment, after: Enrollment) -> None:
    """The certificate and key of `after` in the place of those of `before`; all else stays. Blocking. Raises
    WrongState where others are there: the host joined again."""
    with _alone(state):
        found = load(state)
        if found.certificate != before.certificate:
            raise WrongState("this host joined again; its agent is to be started anew")
        _store(state, replace(found, certificate=after.certificate, key=after.key))


def _not_ours(controller: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"who answers at {controller} is not this fleet's controller: {error}",
        hint="Start it with --address as hosts are to write it, for its certificate names that",
    )


def client_context(enrollment: Enrollment, folder: Path) -> ssl.SSLContext:
    """For connections to the controller. The ssl module reads keys from files only, so one is written to the
    run folder, 0600, and removed."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=enrollment.ca)
    return show(context, enrollment, folder)


def peer_contexts(enrollment: Enrollment, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For connections to other hosts of the fleet, and from them: both ends show certificates. A host's names
    its id and no address: whoever calls compares that."""
    calling = client_context(enrollment, folder)
    calling.check_hostname = False
    called = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    called.load_verify_locations(cadata=enrollment.ca)
    called.verify_mode = ssl.CERT_REQUIRED
    called.verify_flags |= ssl.VERIFY_X509_STRICT
    return calling, show(called, enrollment, folder)


def show(context: ssl.SSLContext, enrollment: Enrollment, folder: Path) -> ssl.SSLContext:
    """Connections that are made of it from now on show this certificate; those that stand keep theirs."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)  # DHCP clients find their script below
    path = folder / "client.pem"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, (enrollment.certificate + enrollment.key).encode())
        os.close(fd)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)
    return context


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem_of(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def signing_request(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64] or "host")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM).decode()


async def _fetch_ca(url: str, digest: str) -> str:
    """The CA, if it is the one that the token means."""
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    async with aiohttp.ClientSession() as client, client.get(f"{url}/v1/ca", ssl=unverified) as reply:
        pem = await _body(reply)
    try:
        found = _digest(pem)
    except ValueError as error:
        raise Unavailable(f"{url} is no flota controller") from error
    if found != digest.lower():
        raise Unauthenticated(
            f"the controller at {url} has another CA than the token says",
            hint="Check the address; make a new token with `flota token create`",
        )
    return pem.decode()


async def _enroll(url: str, ca: str, request: JoinRequest) -> JoinReply:
    context = ssl.create_default_context(cadata=ca)
    headers = {"Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{url}/v1/join", data=encode_json(request), headers=headers, ssl=context) as reply,
    ):
        return decode_json(await _body(reply), JoinReply, "the controller's answer")


async def _body(reply: aiohttp.ClientResponse) -> bytes:
    """All of it: a read gives what has come so far. Raises Unavailable beyond 1 MiB."""
    data = bytearray()
    async for part in reply.content.iter_any():
        data += part
        if len(data) > MAX_BODY:
            raise Unavailable(f"{reply.url} answers with more than {MAX_BODY} bytes")
    if reply.status >= 400:
        try:
            error = decode_json(bytes(data), ErrorBody).to_error()
        except FlotaError:
            error = Unavailable(f"{reply.url} answered {reply.status}")
        raise error
    return bytes(data)


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Of those who write the enrollment: the agent, and commands beside it."""
    fd = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _store(state: Path, enrollment: Enrollment) -> None:
    write_file(state / "enrollment.json", encode_json(enrollment))
