"""`POST /containers/create`: the image is looked for in the fleet, the container placed and recorded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from aiohttp import web
from msgspec.structs import replace

from api.docker.containers.body import CreateBody
from api.docker.containers.hostconfig import spec_of
from api.docker.containers.mounts import mounts_from
from api.docker.containers.placing import Wish, place_of
from api.docker.errors import Refusal
from api.docker.hosts import Found, whereabouts
from api.docker.ports import DockerPort
from api.docker.route import Call
from model.api import CreateInstance
from model.codec import encode_json
from model.errors import AlreadyExists, FlotaError, InvalidInput
from model.ids import NAME
from model.spec import Mount, Placement, Reservations, Struct

PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9]+)?\Z")


class Create(Struct):
    name: str = ""
    platform: str = ""


async def create(call: Call) -> web.Response:
    query, body = call.query_as(Create), call.body_as(CreateBody)
    name = query.name.removeprefix("/")
    if name and not NAME.match(name):
        raise InvalidInput(
            f"Invalid container name ({name[:128]}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    if not body.image:
        raise InvalidInput("no image is named (field Image)")
    platform = query.platform if PLATFORM.match(query.platform) else ""
    if query.platform and not platform:
        raise InvalidInput(f"invalid platform {query.platform[:40]!r}")
    reserved = Reservations(memory=body.host_config.memory_reservation)
    wish = place_of(body.env, body.labels, call.node(), reserved)
    shared, wish = _volumes_from(call.port, body.host_config.volumes_from, wish)
    if wish.host:
        call.port.locate_host(wish.host)
    found = await whereabouts(call.port, body.image, platform, wish.host)
    image = found.have[0][1].image
    call.state.images.put(image.id, image)
    spec = spec_of(replace_env(body, wish), image.config, call.version, platform)
    taken = {mount.target for mount in spec.mounts}
    spec = replace(spec, mounts=(*spec.mounts, *(m for m in shared if m.target not in taken)))
    request = CreateInstance(spec=spec, name=name, placement=_placement(wish, found), host=wish.host)
    try:
        info = await call.port.create_instance(request, call.login())
    except AlreadyExists as error:
        raise conflict(call.port, name, error) from error
    except InvalidInput as error:
        raise _in_dockers_words(error) from error
    return created({"Id": info.instance.id, "Warnings": []})


def _volumes_from(port: DockerPort, wishes: Sequence[str], wish: Wish) -> tuple[tuple[Mount, ...], Wish]:
    """The mounts of other containers, and where those are: volumes are of one host. The first to name a path
    has it. Raises NotFound, InvalidInput."""
    mounts: dict[str, Mount] = {}
    for text in wishes:
        ref, _, word = text.partition(":")
        other = port.get_instance(ref)
        if wish.host and wish.host not in (other.host_name, other.instance.host):
            where = f"container {ref[:80]} is on {other.host_name}, not {wish.host}"
            raise InvalidInput(f"HostConfig.VolumesFrom: {where}")
        wish = replace(wish, host=other.host_name)
        for mount in mounts_from(other, word):
            mounts.setdefault(mount.target, mount)
    return tuple(mounts.values()), wish


def replace_env(body: CreateBody, wish: Wish) -> CreateBody:
    return body if wish.env == body.env else replace(body, env=wish.env)


def _placement(wish: Wish, found: Found) -> Placement:
    """An image that came from no registry is where it was made, and hosts that lack it could not get it."""
    if any(info.image.digests for _, info in found.have) or wish.host:
        return wish.placement
    lacking = tuple(f"node.id!={host}" for host in found.lack)
    return replace(wish.placement, constraints=(*wish.placement.constraints, *lacking))


def conflict(port: DockerPort, name: str, error: AlreadyExists) -> Refusal:
    """Docker's words, by which clients tell that it is the name."""
    try:
        holder = port.get_instance(name).instance.id
    except FlotaError:  # it has gone since
        return Refusal(409, str(error))
    return Refusal(
        409,
        f'Conflict. The container name "/{name}" is already in use by container "{holder}". You have to '
        "remove (or rename) that container to be able to reuse that name.",
    )


def _in_dockers_words(error: InvalidInput) -> InvalidInput:
    """Problems are told by the fields of our spec: near enough to Docker's names to be found."""
    lines = "; ".join(f"{_field(problem.path)}: {problem.message}" for problem in error.problems)
    return InvalidInput(lines or error.message, hint=error.hint)


_FIELDS: dict[str, str] = {
    "spec.image": "Image",
    "spec.env": "Env",
    "spec.workdir": "WorkingDir",
    "spec.user": "User",
    "spec.hostname": "Hostname",
    "spec.labels": "Labels",
    "spec.mounts": "HostConfig.Mounts",
    "spec.resources.memory": "HostConfig.Memory",
    "spec.resources.memory_swap": "HostConfig.MemorySwap",
    "spec.resources.nano_cpus": "HostConfig.NanoCpus",
    "spec.resources.pids": "HostConfig.PidsLimit",
    "spec.resources.cpu_shares": "HostConfig.CpuShares",
    "spec.resources.cpuset_cpus": "HostConfig.CpusetCpus",
    "spec.resources.cpuset_mems": "HostConfig.CpusetMems",
    "spec.resources.memory_swappiness": "HostConfig.MemorySwappiness",
    "spec.resources.oom_kill_disable": "HostConfig.OomKillDisable",
    "spec.resources.blkio_weight": "HostConfig.BlkioWeight",
    "spec.resources.blkio_devices": "HostConfig.BlkioDevice",
    "spec.oom_score_adj": "HostConfig.OomScoreAdj",
    "spec.devices": "HostConfig.Devices",
    "spec.device_rules": "HostConfig.DeviceCgroupRules",
    "spec.masked_paths": "HostConfig.MaskedPaths",
    "spec.readonly_paths": "HostConfig.ReadonlyPaths",
    "spec.uts_mode": "HostConfig.UTSMode",
    "spec.ports": "HostConfig.PortBindings",
    "spec.networks": "NetworkingConfig.EndpointsConfig",
    "spec.restart": "HostConfig.RestartPolicy",
    "spec.ulimits": "HostConfig.Ulimits",
    "spec.cap_add": "HostConfig.CapAdd",
    "spec.cap_drop": "HostConfig.CapDrop",
    "spec.sysctls": "HostConfig.Sysctls",
    "spec.stop_grace": "StopTimeout",
    "spec.stop_signal": "StopSignal",
    "spec.log": "HostConfig.LogConfig",
    "spec.shm_size": "HostConfig.ShmSize",
    "spec.health": "Healthcheck",
    "spec.dns": "HostConfig.Dns",
    "spec.extra_hosts": "HostConfig.ExtraHosts",
}


def _field(path: str) -> str:
    for ours, dockers in sorted(_FIELDS.items(), reverse=True):
        if path.startswith(ours):
            return dockers + path[len(ours) :]
    return path


def created(value: dict[str, Any]) -> web.Response:
    """201 with a JSON body."""
    return web.Response(status=201, body=encode_json(value), content_type="application/json")
