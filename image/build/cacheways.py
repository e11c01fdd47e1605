"""The caches of one build: `--cache-from` opened before it, `--cache-to` written behind it.

registry: a cache, or an image with one in it; local: an OCI layout in a folder of the client; inline: in the
image itself; fleet: other hosts', which are asked anyway. Options are BuildKit's: `ref`, `mode=min|max`,
`tag`, `ignore-error`. Invariant: what can't be imported is told, and the build goes on without; what can't be
exported fails it, unless its option says otherwise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

from image.base import FindLogin
from image.build.base import Session
from image.build.cache import Cache, CacheRemote
from image.build.cacheformat import CONFIG, decode
from image.build.caching import NOTHING, Exports, Imported, Remembering, chains_of, of_registry
from image.build.clientlayout import Folder, FromFolder, place, read_index, tagged
from image.build.snapshots import LayerSnapshots
from image.build.telling import Teller
from image.layout import archive
from image.manifest import IMAGE_CONFIGS, MAX_DOCUMENT, Manifest, parse_document
from image.pull import Downloads
from image.reference import parse
from image.registry.source import Remote, Source
from model.build import BuildRequest, CacheWay, cache_context
from model.errors import Damaged, FlotaError, InvalidInput
from model.quantity import parse_bool
from model.registries import Login
from model.status import Platform

MODES = ("", "min", "max")
FROM = {"registry": {"ref"}, "local": {"src", "tag"}, "inline": set[str](), "fleet": set[str]()}
TO = {
    "registry": {"ref", "mode", "ignore-error", "image-manifest", "oci-mediatypes"},
    "local": {"dest", "mode", "tag", "ignore-error", "image-manifest", "oci-mediatypes"},
    "inline": set[str](),
    "fleet": set[str](),
}
"""Options, by kind. `image-manifest` and `oci-mediatypes` may say what is done anyway."""


class Store(Protocol):
    """`image.store.ImageStore`."""

    builds: LayerSnapshots

    @property
    def source(self) -> Source: ...

    async def bring(self, remote: Remote, source: Downloads | None = None) -> None: ...

    def exports(self, used: Mapping[str, str]) -> Exports: ...


class CacheWays:
    """`open` it before the build, `export` behind it. Raises InvalidInput for options that mean nothing."""

    def __init__(
        self,
        request: BuildRequest,
        session: Session,
        store: Store,
        cache: Cache,
        teller: Teller,
        *,
        folder: Folder,
        platform: Platform,
        login: FindLogin,
        now: Callable[[], float],
    ) -> None:
        self._request = request
        self._session = session
        self._store = store
        self._teller = teller
        self._folder = folder
        self._platform = platform
        self._login = login
        self._now = now
        self._base = cache
        self.cache = Remembering(cache, now)
        for way in request.cache_from:
            _known(way, "--cache-from", FROM[way.kind])
        for way in request.cache_to:
            _known(way, "--cache-to", TO[way.kind])
            if way.options.get("mode", "") not in MODES:
                raise InvalidInput(f"--cache-to: mode={way.options['mode'][:40]!r} is neither min nor max")
            for name in ("image-manifest", "oci-mediatypes"):
                if not _said(way, name, True):
                    raise InvalidInput(f"--cache-to: {name}=false is not done", hint="Leave it out")
            _said(way, "ignore-error", False)

    @property
    def inline(self) -> Callable[[Sequence[str]], Awaitable[str]] | None:
        """Given to the engine, if an image is to have its own cache in it."""
        if all(way.kind != "inline" for way in self._request.cache_to):
            return None
        return lambda diffs: self._exports().inline(diffs)

    async def open(self) -> None:
        imports: dict[str, CacheRemote] = {}
        for number, way in enumerate(self._request.cache_from):
            if way.kind in ("fleet", "inline"):
                continue
            try:
                with self._teller.step(f"importing the cache of {_name(way)}"):
                    found = await self._imported(number, way)
                    imports[found.source] = found
            except FlotaError as error:
                self._teller.warn("CacheNotImported", f"the cache of {_name(way)} is not used: {error}")
        self.cache = Remembering(self._base, self._now, imports)

    async def _imported(self, number: int, way: CacheWay) -> Imported:
        if way.kind == "registry":
            reference = parse(way.options.get("ref", ""))
            login = await self._login_of(reference.host, reference.name)
            return await of_registry(reference, self._store.source, self._platform, login, self._store.bring)
        return await self._of_folder(cache_context(number), way.options.get("tag", "latest"))

    async def _login_of(self, host: str, ref: str) -> Login:
        return self._request.logins.get(host) or await self._login(ref)

    async def _of_folder(self, context: str, tag: str) -> Imported:
        async def read(path: str) -> bytes:
            return await self._folder.read(context, path, MAX_DOCUMENT)

        entry = tagged(await read_index(self._folder, context), tag, "the folder")
        parsed = parse_document(await read(place(entry)), configs=(*IMAGE_CONFIGS, CONFIG))
        if not isinstance(parsed, Manifest) or parsed.config.media_type != CONFIG:
            raise Damaged("it is no build cache")
        document = decode(await read(place(parsed.config)))
        blobs = FromFolder(self._folder, context)
        remote = Remote(
            reference=parse("build-cache"), config=b"", parsed=NOTHING, layers=parsed.layers, pinned=""
        )
        source = f"folder {entry.digest}"  # its path says nothing: it is another client's the next time
        return Imported(document, remote, lambda wanted: self._store.bring(wanted, blobs), source)

    # -- behind the build -----------------------------------------------------------------------------
    def _exports(self) -> Exports:
        return self._store.exports(self.cache.used)

    async def export(self, images: Sequence[Sequence[str]]) -> None:
        """`images`: diff ids of those that were built. Raises as `Source`."""
        local = 0
        for way in self._request.cache_to:
            if way.kind in ("fleet", "inline"):
                continue
            number = len(self._request.outputs) + local
            local += way.kind == "local"
            try:
                with self._teller.step(f"exporting the cache to {_name(way)}"):
                    await self._exported(way, images, number)
            except FlotaError as error:
                if not _said(way, "ignore-error", False):
                    raise
                self._teller.warn("CacheNotExported", f"the cache of {_name(way)} is not written: {error}")

    async def _exported(self, way: CacheWay, images: Sequence[Sequence[str]], number: int) -> None:
        exports = self._exports()
        records = await exports.records(None if way.options.get("mode") == "max" else images)
        name = way.options.get("ref", "") or f"build-cache:{way.options.get('tag', 'latest')}"
        reference = parse(name)
        with self._store.builds.hold_layers(chains_of(records)):
            outgoing = await exports.outgoing(reference, records)
            if way.kind == "registry":
                login = await self._login_of(reference.host, reference.name)
                await self._store.source.push(outgoing, login)
            else:
                tar = archive([(outgoing, (reference.name,))], docker=False)
                await self._session.send(number, tar)


def _name(way: CacheWay) -> str:
    return next((way.options[key] for key in ("ref", "src", "dest") if way.options.get(key)), way.kind)


def _known(way: CacheWay, flag: str, known: Collection[str]) -> None:
    """Raises InvalidInput."""
    for option in way.options:
        if option not in known:
            have = ", ".join(sorted(known)) or "none"
            raise InvalidInput(
                f"{flag}: type={way.kind} has no option {option[:40]!r}", hint=f"There are: {have}"
            )


def _said(way: CacheWay, option: str, otherwise: bool) -> bool:
    """Raises InvalidInput."""
    text = way.options.get(option, "")
    return parse_bool(text, f"--cache-to: {option}") if text else otherwise
