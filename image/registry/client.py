"""Pulling from registries over the OCI distribution protocol 1.1 (Docker Hub's and any other).

Invariant: every byte is checked against the digest that named it before anyone else sees it; a document or a
blob is never longer than it was announced.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from aio.backoff import delay
from aio.supervisor import in_thread
from image import indexes
from image.digest import check, of
from image.manifest import (
    ACCEPTED,
    IMAGE_CONFIGS,
    MAX_DOCUMENT,
    Configuration,
    Descriptor,
    Manifest,
    choose,
    parse_configuration,
    parse_document,
)
from image.reference import Reference
from image.registry import lookups
from image.registry.access import Access
from image.registry.auth import scope_of
from image.registry.copying import Copying
from image.registry.endpoints import Endpoint, RegistrySettings, endpoints, own
from image.registry.push import Push
from image.registry.refusals import Hopeless
from image.registry.sink import FLOOR, WINDOW, Sink, receive
from image.registry.source import Document, IndexPush, Outgoing, Remote
from image.registry.transport import ATTEMPTS, Transport
from image.registry.trust import context_for
from model.api import FoundImage
from model.errors import Damaged, FlotaError, NotFound, Unavailable
from model.image import ImageConfig, Progress
from model.registries import NOBODY, Login, normal_host, split_host
from model.status import Platform

log = logging.getLogger("flota.image")
MAX_NESTING = 3


class RegistryClient:
    """A Source, as this host's `settings` say. `window`: seconds within which a floor of bytes must come."""

    def __init__(self, settings: RegistrySettings | None = None, *, window: float = WINDOW) -> None:
        self._settings = settings or RegistrySettings()
        self._window = window
        self._transport = Transport()

    def trust(self, settings: RegistrySettings) -> None:
        """From now on; what goes on goes on as it began."""
        self._settings = settings

    async def close(self) -> None:
        await self._transport.close()

    async def resolve(self, reference: Reference, platform: Platform, login: Login = NOBODY) -> Remote:
        """From the first mirror that has it, else from the registry itself."""
        *mirrors, registry = endpoints(reference.host, self._settings)
        for mirror in mirrors:
            try:
                found = await self._resolve(await self._access(reference, mirror, login), platform)
                return replace(found, login=login)
            except FlotaError as error:
                log.info("mirror %s: %s; trying the next", mirror.base, error)
        return await self._resolve(await self._access(reference, registry, login), platform)

    async def document(self, reference: Reference, login: Login = NOBODY, *, near: bool = False) -> Document:
        """Manifest or index, verified."""
        *mirrors, registry = endpoints(reference.host, self._settings)
        for mirror in mirrors if near else ():
            try:
                return await self._named(await self._access(reference, mirror, login))
            except FlotaError as error:
                log.info("mirror %s: %s; trying the next", mirror.base, error)
        return await self._named(await self._access(reference, registry, login))

    async def _named(self, access: Access) -> Document:
        reference = access.reference
        data, digest, said = await self._document(access, reference.digest or reference.tag, reference.digest)
        parsed = parse_document(data, said)
        return Document(data=data, digest=digest, media_type=said, parsed=parsed)

    async def artifact(self, reference: Reference, config: str, login: Login = NOBODY) -> Remote | None:
        access = await self._access(reference, own(reference.host, self._settings.insecure), login)
        data, digest, said = await self._document(access, reference.digest or reference.tag, reference.digest)
        parsed = parse_document(data, said, configs=(*IMAGE_CONFIGS, config))
        if not isinstance(parsed, Manifest) or parsed.config.media_type != config:
            return None
        return Remote(
            reference=reference,
            config=await self._config(access, parsed.config),
            parsed=Configuration(platform=Platform(), diff_ids=(), config=ImageConfig()),
            layers=parsed.layers,
            pinned=f"{reference.repository}@{digest}",
            manifest=data,
            login=login,
            access=access,
        )

    async def push(
        self, outgoing: Outgoing, login: Login = NOBODY, say: Callable[[Progress], None] = lambda _: None
    ) -> str:
        reference = outgoing.reference
        needed = [scope_of(reference.path, "pull", "push")]
        needed += [scope_of(path, "pull") for path in outgoing.mounts]
        access = await self._access(reference, own(reference.host, self._settings.insecure), login, *needed)
        return await Push(self._transport, access, outgoing, say, self._window).run()

    async def push_index(
        self, index: IndexPush, login: Login = NOBODY, say: Callable[[Progress], None] = lambda _: None
    ) -> str:
        indexes.media_type_of(index.data)
        target, origins = await self._ways(index.reference, index.origins, login)
        missing = []
        push = Copying(self._transport, target, target, say, self._window)
        for member in indexes.linked(index.data, index.media_type).manifests:
            if not await push.has_manifest(member.digest):
                missing.append(member.digest)
        ours = {one.digest: one for one in index.attached}
        for digest in missing:
            if digest in ours:
                await push.attached(ours[digest])
                continue
            for origin in origins:
                try:
                    await Copying(self._transport, origin, target, say, self._window).manifest(digest)
                    break
                except NotFound:
                    continue
            else:
                raise NotFound(
                    f"{index.reference.familiar}: its manifest {digest[7:19]} is nowhere to be had",
                    hint="Push the image of that platform into the repository first",
                )
        return await push.index(index.data, index.media_type, index.reference.tag)

    async def push_referrers(
        self,
        subject: str,
        origin: Reference,
        target: Reference,
        login: Login = NOBODY,
        say: Callable[[Progress], None] = lambda _: None,
    ) -> int:
        there, (source,) = await self._ways(target, (origin,), login)
        return await Copying(self._transport, source, there, say, self._window).referrers(subject)

    async def _ways(
        self, target: Reference, origins: Sequence[Reference], login: Login
    ) -> tuple[Access, list[Access]]:
        """To where something is pushed, and to where parts of it are; the login to its registry only."""
        near = [origin.path for origin in origins if origin.host == target.host]
        needed = [scope_of(target.path, "pull", "push"), *(scope_of(path, "pull") for path in near)]
        insecure = self._settings.insecure
        there = await self._access(target, own(target.host, insecure), login, *needed)
        found = []
        for origin in origins:
            who = login if origin.host == target.host else NOBODY
            found.append(await self._access(origin, own(origin.host, insecure), who))
        return there, found

    async def check_login(self, registry: str, login: Login) -> None:
        await lookups.check_login(self._transport, await self._whole(registry, login))

    async def tags(self, reference: Reference, login: Login = NOBODY) -> Sequence[str]:
        """As `resolve`: where an image of the repository would come from."""
        *mirrors, registry = endpoints(reference.host, self._settings)
        for mirror in mirrors:
            try:
                return await lookups.tags(self._transport, await self._access(reference, mirror, login))
            except FlotaError as error:
                log.info("mirror %s: %s; trying the next", mirror.base, error)
        return await lookups.tags(self._transport, await self._access(reference, registry, login))

    async def search(self, term: str, limit: int, login: Login = NOBODY) -> Sequence[FoundImage]:
        registry, word = split_host(term)
        access = await self._whole(registry, login, "registry:catalog:*")
        return await lookups.search(self._transport, access, word, limit)

    async def _whole(self, registry: str, login: Login, *scopes: str) -> Access:
        """To a registry, not to a repository of it."""
        host = normal_host(registry)
        endpoint, trusted = await self._trusted(own(host, self._settings.insecure))
        return Access(Reference(host=host, path=""), endpoint, login=login, scopes=scopes, ssl=trusted)

    async def _access(self, reference: Reference, endpoint: Endpoint, login: Login, *scopes: str) -> Access:
        endpoint, trusted = await self._trusted(endpoint)
        needed = scopes or (scope_of(reference.path, "pull"),)
        return Access(reference, endpoint, login=login, scopes=needed, ssl=trusted)

    async def _trusted(self, endpoint: Endpoint) -> tuple[Endpoint, ssl.SSLContext | bool]:
        """And whom it is trusted to be. A registry on loopback that certificates are laid down for (a single
        host's fleet has one) speaks TLS."""
        told, host = self._settings, endpoint.host
        trusted = await in_thread(context_for, host, told.certificates)
        plain = endpoint.mirror or endpoint.registry in told.insecure or host in told.insecure
        if trusted is not True and not plain:
            endpoint = replace(endpoint, base=f"https://{host}")
        return endpoint, trusted

    # -- documents ----------------------------------------------------------------------------------
    async def _resolve(self, access: Access, platform: Platform) -> Remote:
        reference = access.reference
        data, digest, said = await self._document(access, reference.digest or reference.tag, reference.digest)
        named, media_type = digest, said
        indexes: tuple[bytes, ...] = ()
        for _ in range(MAX_NESTING):
            parsed = parse_document(data, media_type)
            if isinstance(parsed, Manifest):
                return replace(await self._remote(access, parsed, named, data), indexes=indexes)
            indexes = (*indexes, data)
            entry = choose(parsed, platform)
            data, digest, said = await self._document(access, entry.digest, entry.digest)
            media_type = entry.media_type or said
        raise Damaged(f"{reference.familiar}: indexes nested deeper than {MAX_NESTING}")

    async def _remote(self, access: Access, manifest: Manifest, named: str, data: bytes) -> Remote:
        reference = access.reference
        config = await self._config(access, manifest.config)
        parsed = parse_configuration(config)
        if len(parsed.diff_ids) != len(manifest.layers):
            raise Damaged(
                f"{reference.familiar} has {len(manifest.layers)} layers,"
                f" its configuration {len(parsed.diff_ids)}"
            )
        return Remote(
            reference=reference,
            config=config,
            parsed=parsed,
            layers=manifest.layers,
            pinned=f"{reference.repository}@{named}",
            manifest=data,
            access=access,
        )

    async def _document(self, access: Access, name: str, digest: str) -> tuple[bytes, str, str]:
        """A manifest's bytes, digest and media type; `digest`, if given, is what it must have."""
        data, headers = await self._transport.document(
            access, f"manifests/{name}", accept=", ".join(ACCEPTED), limit=MAX_DOCUMENT
        )
        said = headers.get("Docker-Content-Digest", "")
        actual = of(data)
        wanted = digest or (said if said.startswith("sha256:") else "")
        if wanted and check(wanted) != actual:
            raise Damaged(f"registry {access.endpoint.host}: manifest {name[:71]} does not match its digest")
        media_type = headers.get("Content-Type", "").partition(";")[0].strip()
        return data, actual, media_type if media_type in ACCEPTED else ""

    async def _config(self, access: Access, descriptor: Descriptor) -> bytes:
        if descriptor.size > MAX_DOCUMENT:
            raise Damaged(f"{access.reference.familiar}: a configuration of {descriptor.size} bytes")
        data, _ = await self._transport.document(access, f"blobs/{descriptor.digest}", limit=MAX_DOCUMENT)
        if len(data) != descriptor.size or of(data) != descriptor.digest:
            raise Damaged(
                f"registry {access.endpoint.host}: the image's configuration does not match its digest"
            )
        return data

    # -- layers -------------------------------------------------------------------------------------
    async def download(
        self, remote: Remote, layer: Descriptor, path: Path, progress: Callable[[int], None]
    ) -> None:
        """A broken transfer goes on where it broke; it fails after some tries in a row that brought next to
        nothing. What a mirror fails to give, the registry is asked for."""
        access = remote.access
        assert isinstance(access, Access)
        if access.endpoint.mirror:
            try:
                await self._download(access, layer, path, progress)
                return
            except FlotaError as error:
                log.warning("mirror %s: %s; asking the registry itself", access.endpoint.base, error)
            registry = own(remote.reference.host, self._settings.insecure)
            access = await self._access(remote.reference, registry, remote.login)
        await self._download(access, layer, path, progress)

    async def _download(
        self, access: Access, layer: Descriptor, path: Path, progress: Callable[[int], None]
    ) -> None:
        progress(0)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            sink = Sink(fd, layer, progress)
            failures = 0
            while not sink.complete:
                before = sink.size
                try:
                    await self._piece(access, sink)
                except Hopeless:
                    raise
                except Unavailable:
                    failures = 1 if sink.size - before >= FLOOR else failures + 1
                    if failures >= ATTEMPTS:
                        raise
                    await asyncio.sleep(delay(failures, first=0.2, limit=10.0))
            sink.verify(access.endpoint.host)
        finally:
            os.close(fd)

    async def _piece(self, access: Access, sink: Sink) -> None:
        headers = {"Range": f"bytes={sink.size}-"} if sink.size else {}
        host = access.endpoint.host
        async with self._transport.get(access, f"blobs/{sink.layer.digest}", headers) as response:
            if response.status == 206:
                if not response.headers.get("Content-Range", "").startswith(f"bytes {sink.size}-"):
                    raise Damaged(f"registry {host} answers another range than was asked for")
            elif sink.size:
                sink.progress(0)
                await in_thread(sink.restart)
            await receive(response.content.iter_any(), sink, window=self._window)
        if not sink.complete:
            raise Unavailable(f"registry {host}: a layer ended after {sink.size} bytes")
