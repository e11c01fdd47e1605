"""A host in memory, for tests of the API and the command line: `api.ports.HostPort` without a kernel."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import msgspec

from aio.supervisor import Supervisor
from model import api as m
from model import containerfiles as files
from model.blobs import CopyImage
from model.disk import DiskUse, HostDisk
from model.doctor import HostCheck, PathCheck
from model.errors import CommandFailed, InUse, NotFound, Unauthenticated, WrongState
from model.health import HealthLog, ProbeResult
from model.ids import HostId, resolve
from model.image import ImageConfig, ImageRecord, Progress
from model.leases import HostLeases
from model.own import OwnAct
from model.registries import Login
from model.remoteimages import PushedIndex, PushIndex, RemoteImage
from model.status import HostFacts, Phase, VolumeReport
from model.streams import ExecSpec
from tests.support.fakebuilds import FakeBuilds
from tests.support.fakecontainers import FakeContainer, Program, Session
from tests.support.fakefiles import Put

IMAGE_ID = "sha256:" + "ab" * 32


class FakeHost(FakeBuilds):
    """`api.ports.HostPort`."""

    def __init__(self, ident: HostId, name: str, tasks: Supervisor) -> None:
        super().__init__()
        self.id = ident
        self.name = name
        self.tasks = tasks
        self.containers: dict[str, FakeContainer] = {}
        record = ImageRecord(id=IMAGE_ID, names=("box:1",), size=1 << 20, config=ImageConfig(cmd=("sh",)))
        self.images: dict[str, ImageRecord] = {"box:1": record}
        self.volumes: dict[str, VolumeReport] = {}
        self.remote: dict[str, str] = {}
        """What registries have, by reference: digests."""
        self.uploads: list[bytes] = []
        self.pulls: list[tuple[str, str]] = []
        """Of which image, for which platform."""
        self.logins: list[Login] = []
        self.asked_near: list[bool] = []
        """Of questions for what a registry has."""
        """Of pulls, pushes and questions to registries."""
        self.copies: list[CopyImage] = []
        self.platforms: list[str] = []
        """Of every call that may name one, in order."""
        self.indexes: list[tuple[str, PushIndex]] = []
        self.signals: list[tuple[str, str]] = []
        self.execs: list[ExecSpec] = []
        self.commits: list[files.CommitRequest] = []
        self.extracts: list[tuple[str, bool]] = []
        """Folder, and whether what is of another kind gives way."""
        self.paths: tuple[PathCheck, ...] = ()
        """What a check-up finds."""
        self.told = HostLeases()
        self._serial = itertools.count()

    def facts(self) -> HostFacts:
        return HostFacts(hostname=self.name, address="192.0.2.1", nano_cpus=2_000_000_000, memory=4 << 30)

    def _find(self, ref: str) -> FakeContainer:
        names = [(i, c.instance.name) for i, c in self.containers.items()]
        return self.containers[resolve("container", ref, names)]

    async def act_on_own(self, ref: str, act: OwnAct) -> m.InstanceInfo:
        raise NotFound(f"no such container: {ref}")

    async def kill(self, ref: str, signal: str) -> None:
        container = self._find(ref)
        if not container.status.phase.live:
            raise WrongState(f"container {container.instance.name} is not running")
        self.signals.append((container.instance.name, signal))
        number = {"KILL": 9, "TERM": 15, "INT": 2}.get(signal.removeprefix("SIG"), 0)
        await container.program.signalled.put(number or int(signal))

    async def attach(self, ref: str, *, stdin: bool, logs: bool, attempt: int = 0) -> Session:
        container = self._find(ref)
        if container.status.phase is Phase.FAILED:
            raise CommandFailed(container.status.message)
        if not container.made:  # as where the pull takes longer than an attach is kept waiting
            raise WrongState("it was not created within 30 s")
        return container.attach(stdin=stdin, logs=logs)

    def leases(self) -> HostLeases:
        return self.told

    async def examine_networks(self) -> HostCheck:
        return HostCheck(host=self.id, facts=self.facts(), paths=self.paths)

    async def exec(self, ref: str, spec: ExecSpec) -> Session:
        container = self._find(ref)
        if not container.status.phase.live:
            raise WrongState(f"container {container.instance.name} is not running", hint="Start it first")
        self.execs.append(spec)
        program = Program()
        self.tasks.start(f"exec {next(self._serial)}", lambda: program.run(spec.args, dict(spec.env)))
        session = Session(program, stdin=spec.stdin)
        container.sessions.append(session)
        return session

    def logs(
        self,
        ref: str,
        *,
        follow: bool,
        tail: int | None,
        since: float | None,
        until: float | None,
        timestamps: bool,
        stdout: bool = True,
        stderr: bool = True,
    ) -> AsyncIterator[tuple[int, bytes]]:
        return self._find(ref).logs(follow=follow, tail=tail, timestamps=timestamps)

    async def stats(self, refs: Sequence[str], *, stream: bool) -> AsyncIterator[Sequence[m.StatsSample]]:
        found = [self._find(r) for r in refs] if refs else list(self.containers.values())
        for _ in range(3 if stream else 1):
            yield [
                m.StatsSample(
                    instance=c.instance.id, name=c.instance.name, at=time.time(), memory=1 << 20, pids=1
                )
                for c in found
            ]

    async def top(self, ref: str) -> m.ProcessTable:
        self._find(ref)
        return m.ProcessTable(titles=("PID", "CMD"), rows=(("4242", "sleep"),))

    def health(self, ref: str) -> HealthLog:
        result = ProbeResult(start=1, end=2, exit_code=0, output="fine")
        return HealthLog(status=self._find(ref).status.health, log=(result,))

    async def path_stat(self, ref: str, path: str) -> files.PathStat:
        return await self._find(ref).files.stat(path)

    def archive(self, ref: str, path: str) -> AsyncIterator[tuple[int, bytes]]:
        return self._find(ref).files.get(path)

    async def extract(self, ref: str, path: str, *, replace: bool) -> Put:
        self.extracts.append((path, replace))
        return self._find(ref).files.put(path)

    def export(self, ref: str) -> AsyncIterator[tuple[int, bytes]]:
        return self._find(ref).files.get("/.")

    async def changes(self, ref: str) -> AsyncIterator[files.Change]:
        self._find(ref)
        yield files.Change(kind="C", path="/etc")
        yield files.Change(kind="A", path="/etc/new\x1b")

    async def commit(self, ref: str, request: files.CommitRequest) -> AsyncIterator[Progress]:
        self._find(ref)
        self.commits.append(request)
        yield Progress(status="done", image=self._add(request.ref or "committed:1").id)

    def list_images(self) -> Sequence[m.ImageInfo]:
        return [m.ImageInfo(image=image) for image in {i.id: i for i in self.images.values()}.values()]

    def get_image(self, ref: str, platform: str = "") -> m.ImageInfo:
        self.platforms.append(platform)
        return m.ImageInfo(image=self._image(ref))

    def _image(self, ref: str) -> ImageRecord:
        for name, image in self.images.items():
            if ref in (name, image.id) or image.id.removeprefix("sha256:").startswith(ref):
                return image
        raise NotFound(f"no such image: {ref}")

    async def copy_image(self, request: CopyImage) -> AsyncIterator[Progress]:
        self.copies.append(request)
        self._add(request.ref)
        yield Progress(status="done", image=request.ref)

    async def pull_image(
        self, ref: str, platform: str, login: Login, *, all_platforms: bool = False
    ) -> AsyncIterator[Progress]:
        self.logins.append(login)
        self.platforms.append("all" if all_platforms else platform)
        self.pulls.append((ref, platform))
        yield Progress(status="pulling", id="0123", current=1, total=2)
        if "missing" in ref:
            raise NotFound(f"no such image: {ref}")
        self._add(ref)
        yield Progress(status="done", image=ref)

    async def push_image(
        self, ref: str, login: Login, *, platform: str = "", referrers: bool = False
    ) -> AsyncIterator[Progress]:
        self.logins.append(login)
        self.platforms.append(f"{platform} with referrers" if referrers else platform)
        self._image(ref)
        yield Progress(status="Pushed", id="0123", current=2, total=2)
        yield Progress(status=f"1: digest: {IMAGE_ID} size: 3")
        yield Progress(status="done", image=ref)

    async def push_index(self, ref: str, request: PushIndex, login: Login) -> PushedIndex:
        self.logins.append(login)
        self.indexes.append((ref, request))
        return PushedIndex(digest=IMAGE_ID)

    async def save_images(self, refs: Sequence[str], platform: str = "") -> AsyncIterator[bytes]:
        self.platforms.append(platform)
        for ref in refs:
            yield f"archive of {self._image(ref).id}\n".encode()

    async def remote_image(
        self, ref: str, login: Login, *, config: bool = False, near: bool = False
    ) -> RemoteImage:
        self.logins.append(login)
        self.asked_near.append(near)
        if ref not in self.remote:
            raise NotFound(f"no such image: {ref}")
        return RemoteImage(
            ref=ref,
            digest=self.remote[ref],
            document='{"schemaVersion": 2}',
            size=20,
            media_type="application/vnd.oci.image.manifest.v1+json",
            platforms=("linux/amd64",) if config else (),
        )

    async def check_login(self, registry: str, login: Login) -> None:
        self.logins.append(login)
        if login.password == "wrong":
            raise Unauthenticated(f"registry {registry}: the user name or the password is wrong")

    async def remote_tags(self, ref: str, login: Login) -> Sequence[str]:
        self.logins.append(login)
        return [name.rpartition(":")[2] for name in self.remote if name.rpartition(":")[0] == ref]

    async def search_images(self, term: str, limit: int, login: Login) -> Sequence[m.FoundImage]:
        self.logins.append(login)
        return [m.FoundImage(name=f"{term}-{n}", description="a box", stars=n) for n in range(limit)][:2]

    def _add(self, ref: str) -> ImageRecord:
        ident = "sha256:" + hashlib.sha256(ref.encode()).hexdigest()
        record = ImageRecord(id=ident, names=(ref,), size=1 << 20)
        self.images[ref] = record
        return record

    async def load_images(self, chunks: AsyncIterator[bytes], platform: str = "") -> AsyncIterator[Progress]:
        self.platforms.append(platform)
        data = b"".join([chunk async for chunk in chunks])
        self.uploads.append(data)
        yield Progress(status="reading", id="layer", current=len(data), total=len(data))
        self._add("loaded:1")
        yield Progress(status="loaded", image="loaded:1")

    async def import_image(
        self,
        chunks: AsyncIterator[bytes],
        *,
        ref: str,
        message: str,
        changes: Sequence[str],
        platform: str = "",
    ) -> ImageRecord:
        self.platforms.append(platform)
        self.uploads.append(b"".join([chunk async for chunk in chunks]))
        return self._add(ref or "imported:1")

    async def tag_image(self, ref: str, name: str) -> m.ImageInfo:
        image = self._image(ref)
        image = msgspec.structs.replace(image, names=(*image.names, name))
        self.images.update(dict.fromkeys(image.names, image))
        return m.ImageInfo(image=image)

    async def remove_image(self, ref: str, *, force: bool, platform: str = "") -> m.ImageRemoved:
        self.platforms.append(platform)
        image = self._image(ref)
        used = [c for c in self.containers.values() if c.instance.spec.image == ref]
        if used and not force:
            raise InUse(f"image {ref} is used by container {used[0].instance.name}")
        names = [n for n, i in self.images.items() if i is image]
        for name in names:
            del self.images[name]
        return m.ImageRemoved(untagged=tuple(names), deleted=(image.id,))

    async def prune_images(
        self, *, all_unused: bool, chosen: Callable[[ImageRecord], bool]
    ) -> m.ImageRemoved:
        if not all_unused:
            return m.ImageRemoved()
        used = {c.instance.spec.image for c in self.containers.values()}
        gone = {name: image for name, image in self.images.items() if name not in used and chosen(image)}
        for name in gone:
            del self.images[name]
        spared = {name: "a container is made of it" for name in self.images if name in used}
        ids = dict.fromkeys(image.id for image in gone.values())
        return m.ImageRemoved(untagged=tuple(gone), deleted=tuple(ids), freed=10 * len(ids), spared=spared)

    async def make_room(self, to: int | None) -> m.ImageRemoved:
        if to is None:
            return m.ImageRemoved()
        return await self.prune_images(all_unused=True, chosen=lambda _: True)

    async def disk_use(self) -> HostDisk:
        use = DiskUse(kind="images", total=len(self.images), active=0, size=1000, reclaimable=250)
        return HostDisk(uses=(use,), capacity=4000, free=1000)

    async def written(self, refs: Sequence[str]) -> Mapping[str, int]:
        return dict.fromkeys(refs or self.containers, 1234)

    def list_volumes(self) -> Sequence[m.VolumeInfo]:
        return [self.get_volume(name) for name in self.volumes]

    def get_volume(self, name: str) -> m.VolumeInfo:
        if name not in self.volumes:
            raise NotFound(f"no such volume: {name}")
        return m.VolumeInfo(volume=self.volumes[name], host=self.name, mountpoint=f"/v/{name}")

    async def create_volume(self, request: m.CreateVolume) -> m.VolumeInfo:
        name = request.spec.name or "f" * 64
        self.volumes[name] = VolumeReport(name=name, labels=request.spec.labels)
        return self.get_volume(name)

    async def remove_volume(self, name: str, *, force: bool) -> None:
        self.get_volume(name)
        del self.volumes[name]

    async def prune_volumes(self, *, all_unused: bool) -> Mapping[str, int]:
        freed = dict.fromkeys(self.volumes, 10)
        self.volumes.clear()
        return freed
