"""A fleet of fakes behind the Docker API whose hosts take contexts as real ones do, and build nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from agent.build.link import Link
from agent.builds import outline
from image.build.base import Session
from image.context.find import find
from image.context.objects import Lease, Objects
from image.context.receive import streamed
from image.dockerfile.parser import parse
from model.build import BuildRequest, Built, Done, StepBegan, StepEnded, StepMoved, StepSaid
from model.image import ImageRecord
from tests.support.contexts import store
from tests.support.dockersocket import DockerSocket, docker_socket
from tests.support.fakehost import IMAGE_ID, FakeHost

TEXT = b"FROM box:1\nENV A=b\nRUN echo hi\nCMD sh\n"


class Builder:
    """What hosts of the fleet build with: no steps are done, but contexts are real."""

    def __init__(self, objects: Objects, lease: Lease) -> None:
        self.objects = objects
        self.lease = lease
        self.root = ""
        """Of the context that had the Dockerfile."""
        self.fails: Exception | None = None
        self.during: Callable[[BuildRequest, Session], Awaitable[None]] | None = None
        """What else a build does of its session."""
        self.hold = asyncio.Event()
        self.hold.set()

    async def bring(self, link: Link, context: str, paths: Sequence[str]) -> str:
        return await streamed(link.tar(context), self.objects, self.lease)

    async def build(self, host: FakeHost, request: BuildRequest, session: Session) -> Done:
        text = request.dockerfile
        if not text:
            self.root = await session.scan("", ())
            text = self.objects.read(find(self.objects.tree, self.root, request.file).digest, 1 << 20)
        session.tell(outline(parse(text, file=request.file)))
        session.tell(StepBegan(step=1, name="[1/2] FROM box:1", line=1))
        session.tell(StepMoved(step=1, what="0123456789ab Downloading", current=1, total=4))
        session.tell(StepMoved(step=1, what="transferring", current=1))
        session.tell(StepEnded(step=1, cached=True))
        session.tell(StepBegan(step=2, name="[2/2] RUN echo hi", line=3))
        session.tell(StepSaid(step=2, data="hé\n".encode()[:2]))
        session.tell(StepSaid(step=2, data="hé\n".encode()[2:]))
        session.tell(StepSaid(step=2, data=b"oh\n", stderr=True))
        if self.during is not None:
            await self.during(request, session)
        await self.hold.wait()
        if self.fails is not None:
            raise self.fails
        session.tell(StepEnded(step=2))
        made = ImageRecord(id=IMAGE_ID, names=request.names)
        host.images.update(dict.fromkeys(request.names, made))
        return Done(host=host.name, images=(Built(image=IMAGE_ID),), names=request.names)


class Ground:
    def __init__(self, docker: DockerSocket, builder: Builder) -> None:
        self.docker = docker
        self.builder = builder

    @property
    def requests(self) -> list[BuildRequest]:
        return [request for host in self.docker.fleet.hosts.values() for request in host.requests]


@asynccontextmanager
async def build_ground(tmp_path: Path) -> AsyncIterator[Ground]:
    """Objects of contexts are in a folder below it, as the socket."""
    objects = store(tmp_path / "objects")
    with ExitStack() as stack:
        builder = Builder(objects, stack.enter_context(objects.leased()))
        async with docker_socket(tmp_path) as served:
            for host in served.fleet.hosts.values():
                host.building, host.bring = partial(builder.build, host), builder.bring
            yield Ground(served, builder)
