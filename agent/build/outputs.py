"""What becomes of a build's image: pushed, or sent to the client as an archive or as plain files.

Invariant: who asked for files alone leaves no image behind, and no other image loses a name to one that was
never to stay.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from msgspec.structs import replace

from agent.context import Context
from agent.files import work
from agent.files.job import Job, Place
from image.base import PushWish
from image.build.base import Session, Snapshots
from image.reference import parse
from model.build import BuildRequest, Built, Done, Output, StepMoved
from model.errors import InUse, InvalidInput
from model.image import ImageRecord, Progress
from model.registries import NOBODY

Told = Callable[[str], AbstractContextManager[int]]
"""A step of that name, until the block ends: its number."""
IN_STORE = frozenset({"image", "registry"})
CONFIG, DIGEST, NAME = "containerimage.config.digest", "containerimage.digest", "image.name"


def stays(request: BuildRequest) -> bool:
    """Whether the image is to be in this host's store."""
    return any(output.kind in IN_STORE for output in request.outputs)


def names_kept(request: BuildRequest) -> BuildRequest:
    """As the engine hears of it: an image that does not stay takes no names."""
    return request if stays(request) else replace(request, names=())


class Outputs:
    def __init__(self, context: Context, snapshots: Snapshots, session: Session, told: Told) -> None:
        self._context = context
        self._snapshots = snapshots
        self._session = session
        self._told = told

    async def deliver(self, request: BuildRequest, done: Done) -> Done:
        """All outputs, in their order. Raises what a registry does, and InvalidInput for what there can't be
        of several platforms."""
        images = self._context.images
        record = images.find(done.images[0].image)
        if len(done.images) > 1 and any(output.kind not in ("image",) for output in request.outputs):
            raise InvalidInput(
                "several platforms can be kept as images, and not be given away in one",
                hint="Build one platform at a time",
            )
        digest = ""
        with images.lease(record.id) as held:
            for number, output in enumerate(request.outputs):
                digest = await self._deliver(number, output, request, held) or digest
        if not stays(request):
            await self._drop(record.id)
        return replace(
            done,
            images=tuple(replace(one, digest=digest) for one in done.images),
            digest=digest,
            names=tuple(parse(name).name for name in request.names),
            metadata=metadata(request, done.images[0], digest),
        )

    async def _deliver(self, number: int, output: Output, request: BuildRequest, image: ImageRecord) -> str:
        """The digest of the image's manifest, where that is known then."""
        match output.kind:
            case "registry":
                return await self._push(request, image)
            case "docker" | "oci":
                with self._told(f"exporting as {output.kind} archive"):
                    names = [parse(name).name for name in request.names]
                    await self._session.send(number, self._context.images.save([image.id], names=names))
            case "tar" | "local":
                with self._told("exporting files"):
                    await self._files(number, image)
            case "image":
                pass
        return ""

    async def _push(self, request: BuildRequest, image: ImageRecord) -> str:
        digest = ""
        for name in request.names:
            reference = parse(name)
            with self._told(f"pushing {reference.familiar}") as step:

                def say(said: Progress, step: int = step) -> None:
                    what = " ".join(filter(None, (said.id, said.status)))
                    moved = StepMoved(step=step, what=what, current=said.current, total=said.total)
                    self._session.tell(moved)

                login = request.logins.get(reference.host, NOBODY)
                pushed = await self._context.images.push(
                    reference.name, PushWish(), login=login, progress=say
                )
                digest = _digest_at(pushed, reference.repository)
        return digest

    async def _files(self, number: int, image: ImageRecord) -> None:
        async with self._snapshots.shown(self._snapshots.of_image(image)) as root:
            place = Place(container="", name="the build's result", folder=root)
            await self._session.send(number, work.output(Job(verb="tree", place=place)))

    async def _drop(self, ident: str) -> None:
        """Also one that was there before without a name: nobody could tell them apart."""
        image = self._context.images.find(ident)
        if not image.names:
            with contextlib.suppress(InUse):
                await self._context.images.remove(ident)


def _digest_at(image: ImageRecord, repository: str) -> str:
    found = [pinned.partition("@")[2] for pinned in image.digests if pinned.startswith(f"{repository}@")]
    return found[-1] if found else ""


def metadata(request: BuildRequest, built: Built, digest: str) -> Mapping[str, str]:
    """As docker buildx writes it: JSON by key."""
    found = {CONFIG: built.image, DIGEST: digest or built.image}
    if request.names:
        found[NAME] = ",".join(parse(name).name for name in request.names)
    return {key: json.dumps(value) for key, value in found.items()}
