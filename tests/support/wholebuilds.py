"""Builds with nothing left out: parser, engine, real store, real copies, steps in real containers.

The base `busybox:1` is the root of `tests.support.containers`; contexts there are none, so files come by RUN
and from other stages.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import secrets
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aio.sharing import SharedLocks
from image.build.copying import Copying
from image.build.engine import build
from image.build.fake import FakeFetcher
from image.build.parts import Parts
from image.platforms import host_platform
from image.store import ImageStore
from model.build import BuildRequest, Done
from model.errors import NotFound
from net.host import HostNetwork
from tests.support.buildlab import BuildLab, SaidSession, build_lab
from tests.support.images import chunks, docker_archive, image
from tests.support.imagestores import made

BASE = "busybox:1"


class WholeBuilds:
    def __init__(self, lab: BuildLab, store: ImageStore, copying: Copying) -> None:
        self.lab = lab
        self.store = store
        self._copying = copying

    async def build(self, text: str, session: SaidSession | None = None, **wishes: Any) -> Done:
        request = BuildRequest(dockerfile=text.encode(), **wishes)
        async with self.lab.runner(*request.allow, files=self._copying) as runner:
            parts = Parts(
                images=self.store,
                snapshots=self.store.builds,
                runner=runner,
                cache=self.store.build_cache,
                fetcher=FakeFetcher(),
                clock=self.lab.context.clock,
                new_id=lambda: secrets.token_hex(32),
                platform=host_platform(),
                slots=asyncio.Semaphore(8),
                turns=SharedLocks(),
            )
            return await build(request, session or SaidSession(), parts)

    async def files(self, done: Done) -> dict[str, bytes]:
        """Of the image that was made: its own, without the base's."""
        ident = secrets.token_hex(32)
        await self.store.prepare_root(ident, done.images[0].image)
        try:
            root = Path((await self.store.mount_root(ident)).path)
            base = {path.relative_to(self.lab.base) for path in self.lab.base.rglob("*")}
            own = (path for path in root.rglob("*") if path.relative_to(root) not in base)
            return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else b"" for p in own}
        finally:
            await self.store.remove_root(ident)

    async def _load(self) -> None:
        with contextlib.suppress(NotFound):
            self.store.find(BASE)
            return
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.add(self.lab.base, arcname=".")
        layer = buffer.getvalue()
        built = image([layer], config={"Env": ["PATH=/bin"]})
        await self.store.load(chunks(docker_archive(built, [layer], names=[BASE])))


@contextlib.asynccontextmanager
async def whole_builds(
    folder: Path, network: HostNetwork | None = None, *, parent: str = ""
) -> AsyncIterator[WholeBuilds]:
    async with build_lab(folder, network, parent=parent) as lab:
        store = made(lab.context.state)
        await store.open()
        lab.context.images = store
        copying = Copying(str(folder / "contexts"))
        try:
            builds = WholeBuilds(lab, store, copying)
            await builds._load()
            yield builds
        finally:
            await copying.close()
            await store.close()
