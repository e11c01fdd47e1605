"""A controller as it is started for real, with its registry, on ports of loopback: certificates, tokens."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controller.config import ControllerConfig
from controller.main import run
from tests.support.fleetregistry import Client
from tests.support.ports import free_port


@dataclass
class Controlled:
    """`folder` holds ca.crt, and client.cert and client.key of an admin, as container tools look for them."""

    settings: ControllerConfig
    folder: Path
    host: str

    async def api(self, method: str, path: str, body: object = None) -> Any:
        connector = aiohttp.UnixConnector(self.settings.socket)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://flota{path}", json=body) as reply,
        ):
            text = await reply.text()
            return reply.status, json.loads(text) if text else None

    async def token(self, name: str, **more: object) -> str:
        """The secret of a new token."""
        status, made = await self.api("POST", "/v1/registry/tokens", {"name": name, **more})
        assert status == 200, made
        return str(made["secret"])

    async def joined(self, name: str, *, again: bool = False) -> tuple[Path, Path]:
        """(certificate, key) of a host that has joined; `again`: in its own place."""
        _, made = await self.api("POST", "/v1/tokens", {"replaces": name} if again else None)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        request = {
            "secret": made["token"],
            "name": name,
            "csr": csr.public_bytes(serialization.Encoding.PEM).decode(),
        }
        status, reply = await self.api("POST", "/v1/join", request)
        assert status == 200, reply
        certificate, private = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_text(reply["certificate"])
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, private

    def context(self, *pair: Path) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        if pair:
            context.load_cert_chain(*map(str, pair))
        return context

    @contextlib.asynccontextmanager
    async def client(self, *pair: Path, secret: str = "", bearer: str = "") -> AsyncIterator[Client]:
        """With a certificate and key, or a token's secret."""
        connector = aiohttp.TCPConnector(ssl=self.context(*pair))
        headers = {}
        if secret:
            headers["Authorization"] = "Basic " + base64.b64encode(f"any:{secret}".encode()).decode()
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            yield Client(f"https://{self.host}", session)

    @property
    def admin(self) -> tuple[Path, Path]:
        return self.folder / "client.cert", self.folder / "client.key"


@contextlib.asynccontextmanager
async def controlled(folder: Path, *, anonymous_pull: bool = False) -> AsyncIterator[Controlled]:
    port = free_port()
    settings = ControllerConfig(
        state_dir=str(folder / "state"),
        socket=str(folder / "flota.sock"),
        listen="127.0.0.1",
        port=0,
        advertise="127.0.0.1",
        registry=f"127.0.0.1:{port}",
        registry_anonymous_pull=anonymous_pull,
    )
    ready = asyncio.Event()
    task = asyncio.create_task(run(settings, ready))
    started = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait({task, started}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        certificates = folder / "certificates"
        certificates.mkdir(exist_ok=True)
        admin = json.loads((folder / "state" / "admin.json").read_text())
        for name, key in (("ca.crt", "ca"), ("client.cert", "certificate"), ("client.key", "key")):
            (certificates / name).write_text(admin[key])
        yield Controlled(settings, certificates, f"127.0.0.1:{port}")
    finally:
        started.cancel()
        task.cancel()
        await asyncio.wait({task, started})
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()  # type: ignore[misc]
