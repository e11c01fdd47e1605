"""Images from other hosts of the fleet first, from their registries where none has them: a Source around one.

Invariant: a layer that this gives is what its digest says, whoever it came from; what one host had to fetch
from outside, others get from it. Without an answer of the controller all is as without this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from pathlib import Path

from aio.supervisor import in_thread
from image.digest import of
from image.manifest import Descriptor
from image.peers.chain import checked
from image.peers.client import Papers, PeerClient, one_line
from image.peers.fetch import Fetch, Outcome, Swarm
from image.peers.partial import Partial, Partials
from image.peers.records import FromPeers, Offer
from image.peers.records import checked as checked_record
from image.peers.shelf import Shelf
from image.reference import Reference, parse
from image.registry.source import Document, IndexPush, Outgoing, Remote, Source
from model.api import FoundImage
from model.blobs import BlobPeers, BlobWord, CopyImage
from model.errors import Damaged, FlotaError, Unavailable
from model.ids import HostId
from model.image import Progress
from model.registries import NOBODY, Login
from model.status import Platform

log = logging.getLogger("flota.image")
REGISTRY_WITHIN = 8.0
"""Seconds that a registry has for the documents of an image that another host may give as well."""
RENEW_EVERY = 4.0
"""Seconds between two words to the controller while a blob comes from outside."""
SHUNNED = 600.0
"""Seconds for which a host is asked nothing that gave wrong bytes, or passed them on."""


class PeerSource:
    """`registry` is where all comes from in the end."""

    shelf: Shelf
    """Set before anything is asked for."""

    def __init__(self, registry: Source, swarm: Swarm, client: PeerClient, partials: Partials) -> None:
        self._registry = registry
        self._swarm = Spoken(swarm)
        self._client = client
        self._partials = partials
        self._shunned: dict[HostId, float] = {}
        self._offered: dict[str, list[CopyImage]] = {}
        """By the name under which they are to come; the last one counts."""

    async def close(self) -> None:
        self._partials.close()
        await self._client.close()
        await self._registry.close()

    # -- documents ----------------------------------------------------------------------------------
    async def resolve(self, reference: Reference, platform: Platform, login: Login = NOBODY) -> Remote:
        """At the registry; one that is named by its digest, where the registry does not answer soon, from a
        host that has it; one that is offered, from those that offer it."""
        offers = self._offered.get(reference.name)
        if offers and reference.digest in ("", offers[-1].digest):
            return await self._as_offered(reference, platform, offers[-1])
        try:
            async with asyncio.timeout(REGISTRY_WITHIN if reference.digest else None):
                found = await self._registry.resolve(reference, platform, login)
        except (Unavailable, TimeoutError) as error:
            remote = await self.given(reference, platform) if reference.digest else None
            if remote is None and isinstance(error, Unavailable):
                raise
            if remote is None:
                return await self._registry.resolve(reference, platform, login)
            log.warning(
                "%s: its documents come from another host, its registry does not answer", reference.name
            )
            return remote
        await in_thread(self.shelf.keep_indexes, found.indexes)
        return found

    @contextlib.contextmanager
    def offered(self, copy: CopyImage) -> Iterator[None]:
        """Until the block ends, `resolve` finds what is offered under that name."""
        name = parse(copy.ref).name
        offers = self._offered.setdefault(name, [])
        offers.append(copy)
        try:
            yield
        finally:
            offers[:] = [offer for offer in offers if offer is not copy]
            if not offers:
                self._offered.pop(name, None)

    async def _as_offered(self, reference: Reference, platform: Platform, copy: CopyImage) -> Remote:
        """Raises Unavailable."""
        answer = copy.answer
        found = await self._of_peers(reference, copy.digest, platform, answer, offer=answer)
        if found is None:
            raise Unavailable(
                f"no host gives {reference.familiar}",
                hint="Hosts reach each other at their --peer-port; the agent's log says more",
            )
        return found

    async def given(self, reference: Reference, platform: Platform) -> Remote | None:
        """The image that the reference's digest means, as a host of the fleet has it; None where none gives
        it."""
        pinned = f"{reference.repository}@{reference.digest}"
        answer = await self._swarm.ask(BlobWord(digest=reference.digest, image=pinned))
        if answer is None:
            return None
        return await self._of_peers(reference, reference.digest, platform, answer)

    async def _of_peers(
        self,
        reference: Reference,
        digest: str,
        platform: Platform,
        answer: BlobPeers,
        offer: BlobPeers | None = None,
    ) -> Remote | None:
        for peer in answer.peers:
            if not peer.whole:
                continue
            try:
                found = await self._client.documents(peer, digest, Papers(ticket=answer.ticket))
                chain = checked(found.documents, found.config, digest, platform)
            except FlotaError as error:
                why = one_line(error.message)
                log.info("image %s: not from host %s: %s", digest[7:19], peer.host[:12], why)
                continue
            by_config = of(found.config) == digest
            pinned = "" if by_config else f"{reference.repository}@{digest}"
            await in_thread(self.shelf.keep_indexes, chain.indexes)
            return Remote(
                reference=reference,
                config=found.config,
                parsed=chain.configuration,
                layers=chain.manifest.layers,
                pinned=pinned,
                manifest=chain.data,
                indexes=chain.indexes,
                access=Elsewhere(platform, offer),
            )
        return None

    # -- builds -------------------------------------------------------------------------------------
    async def record(self, key: str) -> Offer | None:
        """What a build's step came to on another host; None where none gives it."""
        answer = await self._swarm.ask(BlobWord(digest=key, record=True))
        for peer in answer.peers if answer is not None else ():
            assert answer is not None
            try:
                found = await self._client.record(peer, key, Papers(ticket=answer.ticket))
                return Offer(record=checked_record(found, key), peers=answer)
            except FlotaError as error:
                log.info("step %s: not from host %s: %s", key[7:19], peer.host[:12], one_line(error.message))
        return None

    # -- layers -------------------------------------------------------------------------------------
    async def download(
        self, remote: Remote, layer: Descriptor, path: Path, progress: Callable[[int], None]
    ) -> None:
        with self._partials.coming(layer, remote, path, progress) as partial:
            try:
                await self._download(partial, path)
            except BaseException:
                await self._say(BlobWord(digest=layer.digest, state="given_up"))
                raise
            partial.whole = True
            await self._say(BlobWord(digest=layer.digest, state="here"))

    async def _download(self, partial: Partial, path: Path) -> None:
        access = partial.remote.access
        offer = access.offer if isinstance(access, Elsewhere | FromPeers) else None
        fetch = Fetch(partial, self._swarm, self._client, remote_image(partial.remote), offer)
        fetch.without.update(self._avoided())
        failure: FlotaError | None = None
        while True:
            outcome = await fetch.run(outside_failed=failure is not None)
            if outcome is Outcome.COMPLETE:
                if await partial.verified():
                    return
                if isinstance(access, FromPeers):
                    self._shun(set(fetch.gave.values()), partial)
                    raise Damaged(f"layer {partial.layer.digest[7:19]} came wrong from other hosts")
                await self._mend(fetch, partial, path)
                return
            if failure is not None:
                raise failure
            if isinstance(access, FromPeers):
                raise Unavailable(f"no host gives layer {partial.layer.digest[7:19]}")
            try:
                async with self._telling(partial) if outcome is Outcome.OUTSIDE else contextlib.nullcontext():
                    await self._outside(partial, path)
                return
            except Unavailable as error:
                if outcome is Outcome.ALONE:
                    raise
                failure = error
                fetch.without.update(self._avoided())

    async def _outside(self, partial: Partial, path: Path) -> None:
        """From the registry, from the first byte: others have parts of it as they come."""
        remote = partial.remote
        if isinstance(remote.access, Elsewhere):
            remote = await self._registry.resolve(remote.reference, remote.access.platform, remote.login)
        partial.restart()
        await self._registry.download(remote, partial.layer, path, partial.reached)

    async def _mend(self, fetch: Fetch, partial: Partial, path: Path) -> None:
        """All pieces are here, and some are wrong: which, only a good copy tells. Hosts that gave those are
        asked nothing for a while; they may have them from others."""
        short = partial.layer.digest[7:19]
        log.warning("layer %s: what came from other hosts is not what its digest says", short)
        wrong = await partial.sums()
        await self._outside(partial, path)
        right = await partial.sums()
        bad = {
            fetch.gave[n]
            for n, (a, b) in enumerate(zip(wrong, right, strict=True))
            if a != b and n in fetch.gave
        }
        self._shun(bad, partial)

    def _shun(self, hosts: Collection[HostId], partial: Partial) -> None:
        until = asyncio.get_running_loop().time() + SHUNNED
        for host in hosts:
            log.warning("layer %s: host %s gave wrong bytes of it", partial.layer.digest[7:19], host[:12])
            self._shunned[host] = until

    def _avoided(self) -> dict[HostId, str]:
        """Hosts that are not asked now, and why."""
        now = asyncio.get_running_loop().time()
        self._shunned = {host: until for host, until in self._shunned.items() if until > now}
        away = dict.fromkeys(self._client.away(), "it can't be reached")
        return {**away, **dict.fromkeys(self._shunned, "it gave wrong bytes")}

    @contextlib.asynccontextmanager
    async def _telling(self, partial: Partial) -> AsyncIterator[None]:
        """The controller, as long as the block goes on, that this host fetches it for all."""

        async def tell() -> None:
            while True:
                await asyncio.sleep(RENEW_EVERY)
                await self._say(BlobWord(digest=partial.layer.digest, state="fetching"))

        failure: FlotaError | None = None
        async with asyncio.TaskGroup() as group:
            task = group.create_task(tell())
            try:
                with self._swarm.outside(partial.layer.digest):
                    yield
            except FlotaError as error:
                failure = error  # raised bare below: a group would wrap it
            finally:
                task.cancel()
        if failure is not None:
            raise failure

    async def _say(self, word: BlobWord) -> None:
        await self._swarm.ask(word)

    # -- all else is the registry's -----------------------------------------------------------------
    async def document(self, reference: Reference, login: Login = NOBODY, *, near: bool = False) -> Document:
        return await self._registry.document(reference, login, near=near)

    async def artifact(self, reference: Reference, config: str, login: Login = NOBODY) -> Remote | None:
        return await self._registry.artifact(reference, config, login)

    async def push(
        self, outgoing: Outgoing, login: Login = NOBODY, say: Callable[[Progress], None] = lambda _: None
    ) -> str:
        return await self._registry.push(outgoing, login, say)

    async def push_index(
        self, index: IndexPush, login: Login = NOBODY, say: Callable[[Progress], None] = lambda _: None
    ) -> str:
        return await self._registry.push_index(index, login, say)

    async def push_referrers(
        self,
        subject: str,
        origin: Reference,
        target: Reference,
        login: Login = NOBODY,
        say: Callable[[Progress], None] = lambda _: None,
    ) -> int:
        return await self._registry.push_referrers(subject, origin, target, login, say)

    async def check_login(self, registry: str, login: Login) -> None:
        await self._registry.check_login(registry, login)

    async def tags(self, reference: Reference, login: Login = NOBODY) -> Sequence[str]:
        return await self._registry.tags(reference, login)

    async def search(self, term: str, limit: int, login: Login = NOBODY) -> Sequence[FoundImage]:
        return await self._registry.search(term, limit, login)


class Spoken:
    """A swarm that is told what is true of this host, however many of its pulls fetch a blob at once: that
    one of them gets it from outside holds whatever another says."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._outside: Counter[str] = Counter()

    @property
    def own(self) -> HostId:
        return self._swarm.own

    async def ask(self, word: BlobWord) -> BlobPeers | None:
        fetching = BlobWord(digest=word.digest, state="fetching")
        if word.state == "given_up" and self._outside[word.digest]:
            return await self._swarm.ask(fetching)
        reply = await self._swarm.ask(word)
        if word.state == "wanted" and self._outside[word.digest]:
            await self._swarm.ask(fetching)
        return reply

    @contextlib.contextmanager
    def outside(self, digest: str) -> Iterator[None]:
        """Until the block ends, this host gets it from outside."""
        self._outside[digest] += 1
        try:
            yield
        finally:
            self._outside[digest] -= 1
            self._outside += Counter()  # drops those that have none


class Elsewhere:
    """How an image was reached whose documents came from a host: its registry is asked anew when it must."""

    def __init__(self, platform: Platform, offer: BlobPeers | None) -> None:
        self.platform = platform
        self.offer = offer
        """Hosts that have all of it, with a ticket for it; None: the controller is asked for each layer."""


def remote_image(remote: Remote) -> str:
    """`repository@digest` if the image was named so."""
    return remote.pinned if remote.reference.digest else ""
