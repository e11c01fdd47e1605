"""RUN steps on a real host: runc, an overlay over a busybox root for each step, a real network of its own.

The lab is one agent's part of a build; `files()` gives the files of a stage as `image.build` would mount
them, and what a step left of them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent import orphans
from agent.build.executor import Executor
from agent.build.runner import FileSteps, Runner
from agent.context import Context
from agent.hostlimits import load_seccomp, measure
from agent.hostprocesses import FakeProcesses
from agent.journal import Journal
from agent.naming import FakeNames
from agent.runtime.conmon import ConmonRuntime
from agent.volumes import Volumes
from aio.clock import SystemClock
from image.build.base import Bound, Chosen, Source
from image.build.step import CopyStep, PlacedMount, RunStep, WorkdirStep
from image.dockerfile.instruction import Mount
from image.drivers.overlay import OverlayDriver
from image.fake import FakeImages
from model.build import FromHost, StepMoved, StepSaid, Typed
from model.errors import NotFound
from model.ids import HostId, InstanceId, NetworkId
from model.status import HostFacts
from model.view import NetworkView, View
from net.fake import FakeHostNetwork
from net.host import PREDEFINED_BRIDGE, HostNetwork, predefined_bridge
from net.kernel import netns
from tests.support.containers import busybox_root

HOST = HostId("aa" * 32)
BRIDGE = NetworkId(PREDEFINED_BRIDGE)
SERIAL = itertools.count(1)


class NoFiles:
    """Nobody copies here."""

    async def choose(self, step: CopyStep, sources: Sequence[Source]) -> Chosen:
        raise NotImplementedError

    async def copy(self, root: str, step: CopyStep, sources: Sequence[Source]) -> None:
        raise NotImplementedError

    async def workdir(self, root: str, step: WorkdirStep) -> bool:
        raise NotImplementedError


class SaidSession:
    """A client that keeps what it is told. `typed` is what its person types."""

    def __init__(
        self, secrets: Mapping[str, bytes] | None = None, agents: Mapping[str, str] | None = None
    ) -> None:
        self.out = b""
        self.err = b""
        self.moved: list[str] = []
        self.secrets = dict(secrets or {})
        self.agents = dict(agents or {})
        self.typed: list[Typed] = []
        self.heard: Any = lambda data: None

    def tell(self, said: FromHost) -> None:
        if isinstance(said, StepSaid):
            if said.stderr:
                self.err += said.data
            else:
                self.out += said.data
            self.heard(said.data)
        elif isinstance(said, StepMoved):
            self.moved.append(said.what)

    async def scan(self, context: str, paths: Sequence[str]) -> str:
        raise NotImplementedError

    async def secret(self, ident: str) -> bytes | None:
        return self.secrets.get(ident)

    @contextlib.asynccontextmanager
    async def ssh(self, ident: str) -> AsyncIterator[str]:
        if ident not in self.agents:
            raise NotFound(f"no agent {ident}")
        yield self.agents[ident]

    async def send(self, output: int, data: AsyncIterator[bytes]) -> None:
        raise NotImplementedError

    async def shell(self, number: int) -> AsyncIterator[Typed]:
        return self._typed()

    async def _typed(self) -> AsyncIterator[Typed]:
        for one in self.typed:
            yield one


class SpacesOnly(FakeHostNetwork):
    """Endpoints in memory, namespaces real: those of an earlier agent are found."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.spaces = {InstanceId(path.name): str(path) for path in folder.iterdir()}

    async def open_namespace(self, instance: Any) -> str:
        if instance not in self.spaces:
            netns.make(self._folder / instance)
            self.spaces[instance] = str(self._folder / instance)
        return self.spaces[instance]

    async def drop_namespace(self, instance: Any) -> None:
        if instance in self.spaces:
            netns.drop(Path(self.spaces[instance]))
        await super().drop_namespace(instance)


class BuildLab:
    """`parent` is the cgroup of its containers, of its own if none is given."""

    def __init__(self, folder: Path, journal: Journal, network: HostNetwork, parent: str = "") -> None:
        self.folder = folder
        self.base = busybox_root(folder / "base")
        self.parent = parent or f"/flota-test-{secrets.token_hex(4)}"
        run, limits = folder / "run", measure()
        run.mkdir(exist_ok=True)
        self.runtime = ConmonRuntime(str(run), cgroup_parent=self.parent)
        self.context = Context(
            host=HOST,
            facts=HostFacts(hostname="lab", address="192.0.2.1"),
            images=FakeImages(folder / "roots", []),
            runtime=self.runtime,
            network=network,
            volumes=Volumes(folder / "volumes", journal, dict),
            names=FakeNames(),
            processes=FakeProcesses(),
            clock=SystemClock(),
            state=folder / "state",
            run=run,
            limits=limits,
            seccomp=load_seccomp(limits),
            cgroup_parent=self.parent,
            boot_id="boot",
        )
        view = NetworkView(id=BRIDGE, spec=predefined_bridge("10.9.0.0/24"), vni=0, blocks=("10.9.0.0/24",))
        self.context.view = View(revision=1, networks={BRIDGE: view}, fleet_id="f")
        self.executor = Executor(self.context, self.runtime.programs)

    def runner(self, *allow: str, files: FileSteps | None = None) -> Runner:
        new_id = lambda: secrets.token_hex(32)  # noqa: E731
        return Runner(self.executor, files or NoFiles(), allow=allow, new_id=new_id)

    @contextlib.contextmanager
    def files(self, *lower: Path) -> Iterator[Files]:
        """A writable layer over the base, or over other folders, bottom first."""
        driver, folder = OverlayDriver(), self.folder / f"stage-{next(SERIAL)}"
        layers = [str(one) for one in lower or (self.base,)]
        driver.prepare(str(folder), layers)
        root = driver.mount(str(folder), layers)
        try:
            yield Files(root, Path(driver.upper(str(folder))), layers)
        finally:
            driver.unmount(str(folder))

    async def run(
        self,
        command: str,
        *,
        files: Files | None = None,
        mounts: Sequence[Mount] = (),
        bound: Sequence[Bound | None] = (),
        session: SaidSession | None = None,
        allow: Sequence[str] = (),
        **words: Any,
    ) -> tuple[int, SaidSession]:
        """One RUN of `sh -c`, in files of its own if none are given."""
        session = session or SaidSession()
        step = run_step(command, mounts=mounts, **words)
        with contextlib.ExitStack() as stack:
            files = files or stack.enter_context(self.files())
            async with self.runner(*allow) as runner:
                given = tuple(bound) or (None,) * len(mounts)
                code = await runner.run(files.root, step, given, session, 1)
        return code, session

    def left(self) -> list[str]:
        """What there is beyond the files of builds: containers, their folders, namespaces, cgroups."""
        found = [f"container {name}" for name in os.listdir(self.runtime.programs.root)]
        for top in (self.folder / "run/build", self.folder / "run/ns"):
            found += [str(path) for path in top.iterdir()] if top.is_dir() else []
        for hierarchy in Path("/sys/fs/cgroup").iterdir():
            parent = hierarchy / self.parent.strip("/")
            found += [str(path) for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
        found += [f"mount {place}" for place in mounts_below(self.folder / "run")]
        return found + [f"address {a}" for a in self.context.addresses.held()]

    def close(self) -> None:
        for hierarchy in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
            parent = hierarchy / self.parent.strip("/")
            if parent.is_dir():
                parent.rmdir()


class Files:
    """`root` is where they are mounted; `upper` what differs from the layers below."""

    def __init__(self, root: str, upper: Path, below: Sequence[str]) -> None:
        self.root = root
        self.upper = upper
        self._below = below

    def changed(self) -> list[str]:
        """What a layer of it would hold: all but folders that are as they were."""
        paths = (path.relative_to(self.upper) for path in self.upper.rglob("*"))
        return sorted(str(path) for path in paths if not self._same(path))

    def _same(self, path: Path) -> bool:
        below = next((Path(one) / path for one in reversed(self._below) if (Path(one) / path).is_dir()), None)
        return below is not None and _looks(self.upper / path) == _looks(below)


def _looks(path: Path) -> tuple[int, ...]:
    status = path.lstat()
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns


def run_step(command: str, *, mounts: Sequence[Mount] = (), **words: Any) -> RunStep:
    words.setdefault("args", ("/bin/sh", "-c", command))
    words.setdefault("network", "none")
    return RunStep(mounts=tuple(PlacedMount(mount=mount) for mount in mounts), **words)


@contextlib.asynccontextmanager
async def build_lab(
    folder: Path, network: HostNetwork | None = None, *, parent: str = ""
) -> AsyncIterator[BuildLab]:
    journal = await Journal.open(folder / "state")
    spaces = network or SpacesOnly(folder / "run" / "ns")
    try:
        lab = BuildLab(folder, journal, spaces, parent)
        await orphans.clear(lab.context, {})
        await lab.executor.open()
        yield lab
        lab.close()
    finally:
        await journal.close()


def mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [place for place in (line.split()[4] for line in lines) if place.startswith(f"{folder}/")]
