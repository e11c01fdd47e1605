"""RUN steps of a host's builds, done: the step's files, mounts, network and limits into a bundle, and runc.

    run/build/<id>/            the bundle: configuration, /etc files, secrets (memory alone)
    state/images/caches/       caches of RUN

Invariants: what a step needs besides its files is gone when it has ended, however it did; what an agent that
was killed has left is gone before the first step of the next.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from agent import etcfiles, inroot
from agent.assemble import host_resolv_conf
from agent.build import spec as specs
from agent.build.caches import Caches
from agent.build.fitting import SECRETS, Fitted, Fitter, Fittings
from agent.build.mounts import check_place, wanted
from agent.build.networks import Space
from agent.build.process import Bundle, Processes
from agent.build.stubs import Stubs, lead
from agent.cgroup import CgroupFiles
from agent.context import Context
from agent.oci import cgroups
from agent.oci.facts import ContainerFacts
from agent.oci.process import workdir
from agent.ocispec import profile_of
from agent.runtime.argv import Programs
from agent.trees import remove_tree
from aio.supervisor import in_thread
from aio.together import to_its_end
from image.build.base import Bound, Session
from image.build.step import SCRIPT, RunStep
from image.drivers.mounts import is_mounted, unmount
from model.errors import InvalidInput
from model.spec import ContainerSpec, Mount, Struct

BUILDS = "build"
"""Folder of the steps' bundles in the agent's run folder; secrets are mounted below."""
_ETC = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


class Task(Struct):
    """One RUN to be done. `ident` is a container's id; `tty`: a person sits before it."""

    ident: str
    root: str
    step: RunStep
    bound: tuple[Bound | None, ...]
    number: int
    args: tuple[str, ...] | None = None
    """Instead of the step's own."""
    tty: bool = False


class Executor:
    """One per agent. `open` must be called before all else."""

    def __init__(self, context: Context, programs: Programs) -> None:
        self._context = context
        files = CgroupFiles(parent=context.cgroup_parent)
        self.processes = Processes(programs, context.runtime, files)
        self.caches = Caches(context.state / "images" / "caches", context.clock.now)
        self._fitter = Fitter(self.caches)
        self._bundles = context.run / BUILDS

    async def open(self) -> None:
        """After the agent has ended the containers that nobody knows."""
        await in_thread(self._open)

    def _open(self) -> None:
        self._bundles.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in self._bundles.iterdir():
            _clear(entry)
        self.caches.open()

    @property
    def context(self) -> Context:
        return self._context

    @property
    def folder(self) -> str:
        """Whatever is in it when the agent starts goes."""
        return os.fspath(self._bundles)

    @contextlib.asynccontextmanager
    async def bundle(self, task: Task, space: Space, session: Session) -> AsyncIterator[Bundle]:
        """All that the step's process needs, until the block ends; nothing is left of it in its files then.
        Raises FlotaError before anything of it runs."""
        mounts = wanted(task.step.mounts, task.step.workdir)
        folder = self._bundles / task.ident
        async with contextlib.AsyncExitStack() as stack:
            folder.mkdir(mode=0o700)
            stack.push_async_callback(_cleared, folder)
            fittings = await self._fitter.fit(
                stack, mounts, task.bound, session, number=task.number, folder=str(folder)
            )
            stubs = Stubs(task.root)
            stack.callback(stubs.close)
            yield await in_thread(self._made, task, space, fittings, stubs, str(folder))

    def _made(self, task: Task, space: Space, fittings: Fittings, stubs: Stubs, folder: str) -> Bundle:
        context, step = self._context, task.step
        spec = specs.container_spec(step, fittings.environment, args=task.args, tty=task.tty)
        _check_workdir(task.root, step.workdir)
        for place in ("/proc", "/sys", "/dev"):
            stubs.make(place, folder=True, plain=True)
        places = _places(fittings.mounts, stubs)
        mounts = [fitted.mount(places[fitted.target]) for fitted in fittings.mounts]
        if step.script is not None:
            mounts.append(Mount(type="bind", target=SCRIPT, source=_script(step, folder), read_only=True))
        passwd, group = (inroot.read_file(task.root, path) for path in ("/etc/passwd", "/etc/group"))
        facts = ContainerFacts(
            hostname=specs.HOSTNAME,
            rootfs=task.root,
            cgroups_path=cgroups.oci_path(context.cgroup_parent, task.ident),
            steering=cgroups.scope_properties(context.cgroup_parent, stop_grace=0.0),
            netns=space.path,
            etc=_etc(spec, space, folder, stubs, places),
            mounts=tuple(mounts),
            passwd=passwd,
            group=group,
            profile=profile_of(spec, context.view.security_profile),
            abi32=inroot.has_abi32(task.root),
        )
        config = specs.configuration(
            spec,
            facts,
            context.limits,
            context.seccomp,
            devices=specs.devices_of(step.devices, context.limits),
        )
        return Bundle(ident=task.ident, folder=folder, config=config, watched=bool(step.resources.memory))


async def _cleared(place: Path) -> None:
    await to_its_end(in_thread(_clear, place))


def _clear(place: Path) -> None:
    secrets = str(place / SECRETS)
    if is_mounted(secrets):
        unmount(secrets)
    remove_tree(place)


def _check_workdir(root: str, path: str) -> None:
    """Raises InvalidInput where it leads to a process's own links (CVE-2024-21626), also behind links of the
    image. A folder that is missing the runtime makes."""
    place = workdir(path)
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        workdir("/" + "/".join(lead(top, place)))
    except OSError as error:
        raise InvalidInput(f"the working directory {place[:200]} in the image: {error.strerror}") from error
    finally:
        os.close(top)


def _places(mounts: Sequence[Fitted], stubs: Stubs) -> Mapping[str, str]:
    """Where each target leads, made where it is missing. What is mounted within another mount, or in /dev,
    is the runtime's to find there. Raises InvalidInput."""
    made: dict[str, str] = {}
    for fitted in sorted(mounts, key=lambda f: f.target.count("/")):
        above = next((t for t in made if fitted.target.startswith(f"{t}/")), "")
        if above:
            place = made[above] + fitted.target[len(above) :]
        elif fitted.target.startswith("/dev/"):
            place = fitted.target
        else:
            place = stubs.make(fitted.target, folder=fitted.folder)
        check_place(place, fitted.target)
        made[fitted.target] = place
    return made


def _script(step: RunStep, folder: str) -> str:
    assert step.script is not None
    path = os.path.join(folder, "script")
    with open(path, "wb") as file:
        file.write(step.script.content.encode("utf-8", "surrogateescape"))
        os.fchmod(file.fileno(), 0o755)
    return path


def _etc(
    spec: ContainerSpec, space: Space, folder: str, stubs: Stubs, places: Mapping[str, str]
) -> Mapping[str, str]:
    """Files of its own under /etc, but where the step mounts something itself."""
    resolver = etcfiles.resolver_of(space.endpoints)
    gateway = space.endpoints[0].gateway if space.endpoints else "127.0.0.1"
    texts = {
        "/etc/hosts": etcfiles.hosts(spec, specs.HOSTNAME, space.endpoints, host_gateway=gateway),
        "/etc/hostname": f"{specs.HOSTNAME}\n",
        "/etc/resolv.conf": etcfiles.resolv_conf(spec, host_resolv_conf(), resolver),
    }
    made = {}
    taken = set(places.values())
    for target in _ETC:
        if "/etc" in taken or target in taken:
            continue
        path = os.path.join(folder, os.path.basename(target))
        with open(path, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(texts[target])
        made[stubs.make(target, folder=False)] = path
    return made
