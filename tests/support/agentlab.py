"""An agent over fakes: the host (runtime, images, network, disk) outlives it, as a real one does.

`AgentLab.agent()` starts one on the host's journal; leaving the block ends it as a crash would, with nothing
tidied. Crash points are made by `Tripwire`s around the seams.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from agent.context import Context
from agent.dialing import Dial
from agent.host import HostAgent
from agent.hostprocesses import FakeProcesses
from agent.journal import Journal
from agent.naming import FakeNames
from agent.oci.facts import HostLimits
from agent.runtime.fake import FakeRuntime
from agent.volumes import Volumes
from aio.clock import SystemClock
from aio.supervisor import Supervisor
from image.fake import FakeImages, record
from model.ids import HostId, InstanceId, NetworkId
from model.image import ImageConfig
from model.records import Desired, Instance, ResolvedAttachment
from model.spec import ContainerSpec
from model.status import HostFacts, InstanceStatus, Phase
from model.view import NetworkView, View
from net.fake import FakeHostNetwork
from net.host import PREDEFINED_BRIDGE, predefined_bridge
from tests.support.tripwire import Tripwire
from tests.support.waiting import until

HOST = HostId("aa" * 32)
BRIDGE = NetworkId(PREDEFINED_BRIDGE)
IMAGE = "app:1"


def ident(number: int) -> InstanceId:
    return InstanceId(f"{number:x}".rjust(64, "0"))


def instance(
    number: int = 1, *, desired: Desired = Desired.RUNNING, attempt: int = 1, **spec: Any
) -> Instance:
    """A wish for a container on the predefined bridge."""
    words = {"image": IMAGE, "args": ("serve",), "seccomp": "unconfined", "stop_grace": 5.0, **spec}
    return Instance(
        id=ident(number),
        name=f"box{number}",
        spec=ContainerSpec(**words),
        host=HOST,
        desired=desired,
        attempt=attempt,
        attachments=(ResolvedAttachment(network=BRIDGE),),
    )


def bridge(cidr: str = "10.9.0.0/24") -> NetworkView:
    return NetworkView(id=BRIDGE, spec=predefined_bridge(cidr), vni=0, blocks=(cidr,))


def view(*instances: Instance, revision: int = 1) -> View:
    return View(
        revision=revision, instances={i.id: i for i in instances}, networks={BRIDGE: bridge()}, fleet_id="f"
    )


async def refused(pid: int, address: str, port: int) -> socket.socket:
    """A `Dial` to a container in which nobody listens."""
    raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")


class AgentLab:
    """The host. `runtime`, `images` and `network` may be wrapped before an agent starts."""

    def __init__(self, folder: Path, config: ImageConfig | None = None) -> None:
        self.folder = folder
        self.fakes = (FakeRuntime(), FakeImages(folder / "roots", [record(IMAGE, config)]), FakeHostNetwork())
        self.runtime: Any = self.fakes[0]
        self.images: Any = self.fakes[1]
        self.network: Any = self.fakes[2]
        self.boot_id = "boot-1"
        self.wire: Tripwire | None = None
        self.dial: Dial = refused
        """How health checks reach containers."""
        self.removing = False
        """The scenario has asked for the removal; no later wish takes that back."""

    def reboot(self) -> None:
        """Processes, namespaces, mounts and the run folder are gone; the disk stays."""
        import shutil

        self.boot_id += "+"
        self.runtime = FakeRuntime(self.fakes[0].programs)
        images = self.fakes[1]
        images.mounted.clear()
        self.network = FakeHostNetwork()
        self.fakes = (self.runtime, images, self.network)
        self.images = images
        shutil.rmtree(self.folder / "run", ignore_errors=True)

    def trip(self, wire: Tripwire | None) -> None:
        """Wrap the seams of the agents to come; None: no more."""
        self.wire = wire
        real = zip(("runtime", "images", "network"), self.fakes, strict=True)
        self.runtime, self.images, self.network = (wire.wrap(n, f) if wire else f for n, f in real)

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[HostAgent]:
        """Start one; at the end it is gone without a word."""
        state, run = self.folder / "state", self.folder / "run"
        journal = await Journal.open(state)
        if self.wire is not None:
            journal.write = self.wire.journal_write(journal.write)  # type: ignore[method-assign]
        try:
            volumes = Volumes(state / "volumes", journal, dict)
            volumes.open()
            context = Context(
                host=HOST,
                facts=HostFacts(hostname="lab", address="192.0.2.1"),
                images=self.images,
                runtime=self.runtime,
                network=self.network,
                volumes=volumes,
                names=FakeNames(),
                processes=FakeProcesses(),
                clock=SystemClock(),
                state=state,
                run=run,
                limits=HostLimits(),
                seccomp=None,
                cgroup_parent="/flota-lab",
                boot_id=self.boot_id,
                dial=self.dial,
            )
            async with Supervisor("lab") as supervisor:
                agent = HostAgent(context, journal, supervisor)
                volumes.users = agent.volume_users
                volumes.changed = agent.report_host
                await agent.start()
                yield agent
        finally:
            await journal.close()

    def leaks(self) -> Mapping[str, Any]:
        """What would be there after everything was removed; empty maps and lists mean nothing."""
        runtime, images, network = self.fakes
        folders = {
            "bundles": self.folder / "run/c",
            "folders": self.folder / "state/containers",
            "volumes": self.folder / "state/volumes",
        }
        found: dict[str, Any] = {
            "containers": list(runtime._containers),
            "roots": list(images.made),
            "mounts": sorted(images.mounted),
            "spaces": list(network.spaces),
            "endpoints": list(network.endpoints),
            "ports": list(network.published),
        }
        for name, folder in folders.items():
            found[name] = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        return {name: what for name, what in found.items() if what}


async def phase(agent: HostAgent, number: int, *wanted: Phase, deadline: float = 20.0) -> InstanceStatus:
    """Its status once it is in one of these phases."""

    def found() -> InstanceStatus | None:
        status = next((s for s in agent.statuses() if s.instance == ident(number)), None)
        return status if status is not None and status.phase in wanted else None

    status = await until(
        found,
        deadline=deadline,
        what=f"{number} in {wanted}; is {[(s.phase, s.message) for s in agent.statuses()]}",
    )
    assert isinstance(status, InstanceStatus)
    return status


async def gone(agent: HostAgent, number: int, deadline: float = 20.0) -> None:
    await until(lambda: ident(number) not in agent.workers, deadline=deadline, what=f"{number} gone")


def wish(old: Instance, **changes: Any) -> Instance:
    return replace(old, **changes)
