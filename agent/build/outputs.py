"""What becomes of a build's image: pushed, or sent to the client as an archive or as plain files.

Invariant: who asked for files alone leaves no image behind, and no other image loses a name to one that was
never to stay.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

from msgspec.structs import replace

from agent.build.trees import folders, joined
from agent.context import Context
from agent.files import work
from agent.files.job import Job, Place
from image.base import PushWish
from image.build.base import Session, Snapshots
from image.build.graph import shown
from image.context.layouts import layout_of
from image.reference import parse
from model.build import BuildRequest, Built, Done, Output, StepMoved
from model.errors import InvalidInput, Unsupported
from model.image import ImageRecord, Progress
from model.registries import NOBODY

Told = Callable[[str], AbstractContextManager[int]]
"""A step of that name, until the block ends: its number."""
IN_STORE = frozenset({"image", "registry"})
IMAGES = IN_STORE | {"docker", "oci"}
"""Of the others nobody gets an image."""
FILES = frozenset({"tar", "local"})
CONFIG, DIGEST, NAME = "containerimage.config.digest", "containerimage.digest", "image.name"


def stays(request: BuildRequest) -> bool:
    """Whether the image is to be in this host's store."""
    return any(output.kind in IN_STORE for output in request.outputs)


def check(request: BuildRequest) -> None:
    """Before anything is built. Raises InvalidInput, Unsupported for what there can't be."""
    if (request.provenance or request.sbom) and not any(one.kind in IMAGES for one in request.outputs):
        raise Unsupported(
            "plain files have no place for what is stated of them",
            hint="Leave out --provenance and --sbom, or make an image or an archive of one",
        )
    for place in request.contexts:
        if place.kind == "layout":
            layout_of(place.ref)
    platforms = platforms_of(request)
    for output in request.outputs:
        if output.kind in FILES:
            folders(output, platforms)
        if output.kind == "docker" and len(platforms) > 1:
            raise InvalidInput(
                "an output of type docker has the image of one platform",
                hint="Build one platform at a time, write type=oci, or push them",
            )


def platforms_of(request: BuildRequest) -> tuple[str, ...]:
    """As they were asked for, each once; empty: the host's own."""
    return tuple(dict.fromkeys(request.platforms)) or ("",)


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
        """All outputs, in their order; of plain files alone no image is told of. Raises what a registry
        does."""
        images = self._context.images
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(images.lease(one.image)) for one in done.images]
            for number, output in enumerate(request.outputs):
                await self._deliver(number, output, request, held)
        if not any(output.kind in IMAGES for output in request.outputs):
            files = tuple(Built(platform=one.platform) for one in done.images)
            return Done(images=files, host=done.host)
        names = tuple(parse(name).name for name in request.names)
        return replace(done, names=names, metadata={**done.metadata, **metadata(request, done)})

    async def _deliver(
        self, number: int, output: Output, request: BuildRequest, made: Sequence[ImageRecord]
    ) -> None:
        match output.kind:
            case "registry":
                await self._push(request)
            case "docker" | "oci":
                with self._told(f"exporting as {output.kind} archive"):
                    names = [parse(name).name for name in request.names]
                    ids = [one.id for one in made[:1]]  # the others are of its index
                    data = self._context.images.save(ids, names=names, whole=True)
                    await self._session.send(number, data)
            case "tar" | "local":
                with self._told("exporting files"):
                    await self._files(number, output, request, made)
            case "image":
                pass

    async def _push(self, request: BuildRequest) -> None:
        """Under each name; of several platforms, their index."""
        for name in request.names:
            reference = parse(name)
            with self._told(f"pushing {reference.familiar}") as step:

                def say(said: Progress, step: int = step) -> None:
                    what = " ".join(filter(None, (said.id, said.status)))
                    moved = StepMoved(step=step, what=what, current=said.current, total=said.total)
                    self._session.tell(moved)

                login = request.logins.get(reference.host, NOBODY)
                await self._context.images.push(reference.name, PushWish(), login=login, progress=say)

    async def _files(
        self, number: int, output: Output, request: BuildRequest, made: Sequence[ImageRecord]
    ) -> None:
        platforms = [
            asked or shown(image.platform) for asked, image in zip(platforms_of(request), made, strict=True)
        ]
        names = folders(output, platforms)
        trees = [partial(self._tree, image, name) for image, name in zip(made, names, strict=True)]
        await self._session.send(number, joined(trees))

    async def _tree(self, image: ImageRecord, under: str) -> AsyncIterator[bytes]:
        async with self._snapshots.shown(self._snapshots.of_image(image)) as root:
            place = Place(container="", name="the build's result", folder=root)
            async for piece in work.output(Job(verb="tree", place=place, under=under)):
                yield piece


def metadata(request: BuildRequest, done: Done) -> Mapping[str, str]:
    """As docker buildx writes it: JSON by key."""
    digest = done.digest or done.images[0].image
    found: dict[str, object] = {DIGEST: digest}
    if len(done.images) == 1:
        found[CONFIG] = done.images[0].image
    if request.names:
        found[NAME] = ",".join(parse(name).name for name in request.names)
    return {key: json.dumps(value) for key, value in found.items()}
