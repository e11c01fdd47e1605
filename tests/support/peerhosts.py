"""Hosts that give layers to each other, in one process: real TLS on loopback, and a controller's answers."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec.json import encode

from agent.join import Enrollment, peer_contexts, show
from agent.keys import verifier
from agent.servepeers import caller, names
from aio.clock import SystemClock
from api.listen import serve_tls
from api.server import runner
from controller.pki import Authority, fingerprint
from controller.swarms import Place, Swarms
from image.blobs import BlobStore
from image.catalog import Catalog
from image.layers import LayerStore
from image.peers.client import PeerClient
from image.peers.partial import Partials
from image.peers.server import PeerServer
from image.peers.shelf import Shelf
from image.peers.source import PeerSource
from image.registry.source import Source
from image.trash import Trash
from model.blobs import BlobPeers, BlobWord, Ticket, to_sign, write_ticket
from model.ids import HostId

FLEET = "f" * 32


class Fleet:
    """Its authority, and what its controller knows; `away`: it does not answer. `words` it heard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.new(FLEET)
        self.swarms = Swarms()
        self.places: dict[HostId, Place] = {}
        self.clock = SystemClock()
        self.away = False
        self.images: dict[HostId, tuple[str, ...]] = {}
        """Of each host what its tickets name."""
        self.words: list[tuple[HostId, BlobWord]] = []

    def enroll(self, number: int) -> Enrollment:
        ident = f"{number:08x}".ljust(64, "a")
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "host")])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        text = csr.public_bytes(serialization.Encoding.PEM).decode()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Enrollment(
            host_id=ident,
            fleet_id=FLEET,
            controllers=(),
            certificate=self.authority.host(text, ident).certificate.decode(),
            key=pem.decode(),
            ca=self.authority.pem.decode(),
        )

    def ticket(
        self, enrolled: Enrollment, *images: str, records: tuple[str, ...] = (), until: float = 0.0
    ) -> str:
        ticket = Ticket(
            host=HostId(enrolled.host_id),
            certificate=fingerprint(enrolled.certificate.encode()),
            until=until or self.clock.now() + 60,
            images=images,
            records=records,
        )
        return write_ticket(ticket, self.authority.sign(to_sign(encode(ticket))))


class _Swarm:
    def __init__(self, fleet: Fleet, enrolled: Enrollment) -> None:
        self._fleet, self.enrolled = fleet, enrolled
        self.own = HostId(enrolled.host_id)

    async def ask(self, word: BlobWord) -> BlobPeers | None:
        fleet = self._fleet
        if fleet.away:
            return None
        fleet.words.append((self.own, word))
        if word.record:
            reply = fleet.swarms.having(self.own, word, fleet.places)
            return BlobPeers(peers=reply.peers, ticket=fleet.ticket(self.enrolled, records=(word.digest,)))
        reply = fleet.swarms.answer(self.own, word, fleet.places, fleet.clock.monotonic())
        ticket = fleet.ticket(self.enrolled, *fleet.images.get(self.own, ()))
        return BlobPeers(peers=reply.peers, outside=reply.outside, ticket=ticket)


class PeerHost:
    """One host; its layers are only those that come through it. `bounds` are its server's."""

    def __init__(self, fleet: Fleet, number: int, registry: Source, *, rate: int = 0, **bounds: Any) -> None:
        self.fleet = fleet
        self.enrolled = fleet.enroll(number)
        self.own = HostId(self.enrolled.host_id)
        self.folder = fleet.folder / f"h{number}"
        self.folder.mkdir()
        self._number = number
        self._calling, self.called = peer_contexts(self.enrolled, self.folder)
        self.partials = Partials()
        self.client = PeerClient(self._calling, names(FLEET))
        self._swarm = _Swarm(fleet, self.enrolled)
        self.source = PeerSource(registry, self._swarm, self.client, self.partials)
        self.source.shelf = self.shelf()
        self.source.shelf.open()
        self.server = PeerServer(
            self.source.shelf,
            self.partials,
            caller(FLEET),
            verifier(self.enrolled.ca),
            fleet.clock,
            rate=rate,
            **bounds,
        )

    def shelf(self) -> Shelf:
        self.layers = LayerStore(self.folder / "layers", Trash(self.folder / "trash"))
        catalog = Catalog(self.folder / "images.json")
        configs, indexes = BlobStore(self.folder / "configs"), BlobStore(self.folder / "indexes")
        configs.open(())
        return Shelf(catalog, configs, self.layers, indexes)

    async def renew(self) -> None:
        """It has another certificate from now on, which its tickets are for."""
        self.enrolled = self._swarm.enrolled = self.fleet.enroll(self._number)
        for context in (self._calling, self.called):
            show(context, self.enrolled, self.folder)
        await self.client.renew()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[PeerHost]:
        async with listening(self.fleet, self.own, self.server.app(), self.called):
            try:
                yield self
            finally:
                await self.source.close()


@contextlib.asynccontextmanager
async def listening(
    fleet: Fleet, host: HostId, app: web.Application, context: ssl.SSLContext
) -> AsyncIterator[web.AppRunner]:
    """At a port of loopback, which the fleet's controller knows as that host's."""
    served = runner(app)
    await served.setup()
    port = await serve_tls(served, "127.0.0.1", 0, context)
    fleet.places[host] = Place(address="127.0.0.1", port=port)
    try:
        yield served
    finally:
        await served.cleanup()
