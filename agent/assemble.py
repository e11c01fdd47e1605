"""From a prepared instance to the bundle that the runtime creates: mounts resolved, files written, facts
gathered."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from agent import devices, etcfiles, inroot, ocispec
from agent.context import Context
from agent.endpoints import HOST, in_namespace, mode_of, owner
from agent.oci import cgroups, process, users
from agent.runtime.base import Bundle
from aio.subprocess import Completed, run
from aio.supervisor import in_thread
from model.errors import DeadlineExceeded, NotFound
from model.image import ImageConfig
from model.records import Instance
from model.spec import Mount, Struct, VolumeSpec
from model.status import Endpoint

log = logging.getLogger("flota.agent")
HOST_RESOLV_CONF = "/etc/resolv.conf"
ETC_LIMIT = 1 << 20
"""Bytes of a file under /etc that a container's change of networks is written into."""
SOURCE_DEADLINE = 5.0
"""Seconds in which the file system of a bind source must answer."""


class Mounts(Struct):
    """All mounts with host paths; (volume, target) of each volume; the anonymous volumes among them."""

    mounts: tuple[Mount, ...]
    volumes: tuple[tuple[str, str], ...]
    anonymous: tuple[str, ...]


async def mounts_of(context: Context, want: Instance, image: ImageConfig, root: str) -> Mounts:
    """Volumes are made where missing; an anonymous one is found again by the container and its target.
    Raises InvalidInput for a target that leads nowhere good, NotFound for a missing bind source,
    DeadlineExceeded for one that does not answer."""
    wishes = list(want.spec.mounts)
    covered = {os.path.normpath(mount.target) for mount in wishes}
    wishes += [Mount(type="volume", target=t) for t in image.volumes if os.path.normpath(t) not in covered]
    made: list[Mount] = []
    volumes: list[tuple[str, str]] = []
    anonymous: list[str] = []
    for wish in wishes:
        target = inroot.resolve_target(root, wish.target)
        if wish.type == "volume":
            name = await _volume(context, want, wish)
            if not wish.source:
                anonymous.append(name)
            if not wish.no_copy:
                await context.volumes.fill(name, root + target)
            volumes.append((name, wish.target))
            made.append(replace(wish, source=context.volumes.path(name), target=target))
        elif wish.type == "bind":
            made.append(replace(wish, source=await _bind_source(wish), target=target))
        else:
            made.append(replace(wish, source="", target=target))
    return Mounts(mounts=tuple(made), volumes=tuple(volumes), anonymous=tuple(anonymous))


async def _volume(context: Context, want: Instance, wish: Mount) -> str:
    now = context.clock.now()
    if not wish.source:
        return (await context.volumes.anonymous(want.id, wish.target, now, wish.labels)).name
    return (await context.volumes.create(VolumeSpec(name=wish.source, labels=wish.labels), now)).name


async def _bind_source(wish: Mount) -> str:
    path = os.path.normpath(wish.source)
    if (await _apart(path, "stat", "-L", "--", path)).code != 0:
        if not wish.create_source:
            raise NotFound(f"bind source {path} does not exist on this host", hint="Make it, or use -v")
        (await _apart(path, "mkdir", "-p", "-m", "755", "--", path)).check()
    return path


async def _apart(path: str, *words: str) -> Completed:
    """By a process of its own: on a file system that hangs a look never ends, nor would the thread's."""
    try:
        return await run(words, deadline=SOURCE_DEADLINE)
    except DeadlineExceeded as error:
        raise DeadlineExceeded(
            f"bind source {path} does not answer within {SOURCE_DEADLINE:g} s",
            hint="Its file system may hang, for example a network one whose server is gone",
        ) from error


async def bundle(
    context: Context,
    want: Instance,
    image: ImageConfig,
    *,
    root: str,
    netns: str,
    endpoints: Sequence[Endpoint],
    mounts: tuple[Mount, ...],
) -> Bundle:
    """The OCI bundle of the next attempt. Raises InvalidInput, Unsupported."""
    spec = want.spec
    hostname = _hostname(context, want)
    etc = await in_thread(_etc_files, context, want, hostname, tuple(in_namespace(context, want, endpoints)))
    passwd, group = (inroot.read_file(root, path) for path in ("/etc/passwd", "/etc/group"))
    facts = ocispec.ContainerFacts(
        hostname=hostname,
        rootfs=root,
        cgroups_path=cgroups.oci_path(context.cgroup_parent, want.id),
        steering=cgroups.scope_properties(context.cgroup_parent, stop_grace=spec.stop_grace),
        netns=netns,
        etc=etc,
        mounts=mounts,
        passwd=passwd,
        group=group,
        profile=ocispec.profile_of(spec, context.view.security_profile),
        devices=await in_thread(devices.nodes, spec.devices) if spec.devices else (),
        blocks=await in_thread(devices.blocks, spec.resources.blkio_devices),
        abi32=await in_thread(inroot.has_abi32, root),
    )
    config = ocispec.container_config(spec, image, facts, context.limits, seccomp=context.seccomp)
    _make_workdir(want, image, root, passwd, group)
    return Bundle(
        id=want.id,
        directory=str(context.bundle(want.id)),
        config=config,
        log_path=str(context.log_path(want.id)) if spec.log.driver != "none" else "",
        tty=spec.tty,
        stdin=spec.stdin,
        stdin_once=spec.stdin_once,
    )


def _hostname(context: Context, want: Instance) -> str:
    """Who shares another container's network has its name too, which its /etc/hosts knows."""
    if want.spec.uts_mode:
        return context.facts.hostname
    if want.spec.hostname:
        return want.spec.hostname
    named = context.wishes.get(owner(context, want), want)
    return named.spec.hostname or (context.facts.hostname if mode_of(named.spec) == HOST else named.id[:12])


def rewrite_etc(context: Context, want: Instance, old: Sequence[Endpoint], new: Sequence[Endpoint]) -> None:
    """/etc/hosts and /etc/resolv.conf of a container whose endpoints changed; what it wrote itself stays."""
    spec, folder = want.spec, context.folder(want.id)
    hostname, host = _hostname(context, want), host_resolv_conf()
    _rewrite(folder / "hosts", lambda text: etcfiles.moved(text, spec, hostname, new))
    _rewrite(folder / "resolv.conf", lambda text: etcfiles.resolved_anew(text, spec, host, old, new))


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    """The file is mounted inside, so it stays the same one and is written by one call. The container may have
    made it as large as it likes: no more is read than such a file ever needs."""
    with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
        data = file.read(ETC_LIMIT + 1)
        if len(data) > ETC_LIMIT:
            log.warning("%s is left as it is: the container made it larger than %d bytes", path, ETC_LIMIT)
            return
        before = data.decode(errors="replace")
        after = change(before)
        if after != before:
            data = after.encode(errors="replace")
            os.pwrite(file.fileno(), data, 0)
            os.ftruncate(file.fileno(), len(data))


def _make_workdir(want: Instance, image: ImageConfig, root: str, passwd: bytes, group: bytes) -> None:
    spec = want.spec
    user = users.resolve(spec.user or image.user, (), passwd=passwd, group=group)
    folder = process.workdir(spec.workdir, image.workdir)
    if folder != "/":
        inroot.make_directory(root, folder, uid=user.uid, gid=user.gid)


def _etc_files(
    context: Context, want: Instance, hostname: str, endpoints: tuple[Endpoint, ...]
) -> dict[str, str]:
    """Who shares another container's network has its /etc/hosts and /etc/resolv.conf too, so that changes are
    seen by both; but not where it wants more of them than the other."""
    folder = context.folder(want.id)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    gateway = endpoints[0].gateway if endpoints else context.facts.address
    texts = {
        "hosts": etcfiles.hosts(want.spec, hostname, endpoints, host_gateway=gateway),
        "hostname": f"{hostname}\n",
        "resolv.conf": etcfiles.resolv_conf(want.spec, host_resolv_conf(), etcfiles.resolver_of(endpoints)),
    }
    for name, text in texts.items():
        with open(folder / name, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
    if mode_of(want.spec) == HOST and not want.spec.extra_hosts:
        del texts["hosts"]
    spec, other = want.spec, context.folder(owner(context, want))
    shared = {
        "hosts": not spec.extra_hosts,
        "resolv.conf": not (spec.dns or spec.dns_search or spec.dns_options),
    }
    places = {name: other if shared.get(name) and (other / name).exists() else folder for name in texts}
    return {f"/etc/{name}": str(place / name) for name, place in places.items()}


def host_resolv_conf() -> str:
    """The text of the host's own; empty if there is none."""
    try:
        with open(HOST_RESOLV_CONF, encoding="utf-8", errors="replace") as file:
            return file.read(64 << 10)
    except OSError:
        return ""
