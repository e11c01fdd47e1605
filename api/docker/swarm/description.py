"""A service as Docker's clients see it: the reverse of `spec`, and what stands of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from api.docker.containers.inspection import healthcheck
from api.docker.swarm.spec import FORCED
from api.docker.times import moment, nanoseconds
from model.api import ServiceInfo
from model.quantity import exact_bytes
from model.records import Rollout, Service
from model.spec import (
    ContainerSpec,
    Global,
    Mount,
    Placement,
    Publish,
    Replicated,
    RestartPolicy,
    ServiceSpec,
    UpdatePolicy,
)

CONDITIONS: Mapping[str, str] = {"no": "none", "on-failure": "on-failure"}
"""Docker's words for when to restart; any other is `any`."""
Ids = Mapping[str, str]
"""Ids of networks by name and by id."""


def described(info: ServiceInfo, ids: Ids, *, status: bool = False, defaults: bool = True) -> dict[str, Any]:
    """`status`: with how many tasks run; `defaults`: with how it is updated also where nobody said so."""
    service = info.service
    made: dict[str, Any] = {
        "ID": service.id,
        "Version": {"Index": service.revision},
        "CreatedAt": moment(service.created_at),
        "UpdatedAt": moment(service.updated_at or service.created_at),
        "Spec": spec_words(service.spec, ids, defaults=defaults),
    }
    if service.previous is not None:
        made["PreviousSpec"] = spec_words(service.previous, ids, defaults=defaults)
    made["Endpoint"] = _endpoint(service, ids)
    if service.rollout is not None:
        made["UpdateStatus"] = _rollout(service.rollout)
    if status:
        made["ServiceStatus"] = {
            "RunningTasks": info.running,
            "DesiredTasks": info.wanted,
            "CompletedTasks": 0,
        }
    return made


def spec_words(spec: ServiceSpec, ids: Ids, *, defaults: bool = True) -> dict[str, Any]:
    replicas = spec.mode.replicas if isinstance(spec.mode, Replicated) else 0
    changing = {
        name: _update(policy)
        for name, policy in (("UpdateConfig", spec.update), ("RollbackConfig", spec.rollback))
        if defaults or policy != UpdatePolicy()
    }
    return {
        "Name": spec.name,
        "Labels": dict(spec.labels),
        "TaskTemplate": task_words(spec, ids),
        "Mode": {"Global": {}} if isinstance(spec.mode, Global) else {"Replicated": {"Replicas": replicas}},
        **changing,
        "EndpointSpec": _endpoint_spec(spec),
    }


def task_words(spec: ServiceSpec, ids: Ids) -> dict[str, Any]:
    """Docker's TaskSpec of a service."""
    made = instance_words(spec.container, spec.placement, ids)
    made["RestartPolicy"] = _restart(spec.container.restart, may_end=spec.may_end)
    return made


def instance_words(container: ContainerSpec, placement: Placement, ids: Ids) -> dict[str, Any]:
    """Docker's TaskSpec of one task, which was made so."""
    resources, reserved = container.resources, placement.reservations
    limits = {"NanoCPUs": resources.nano_cpus, "MemoryBytes": resources.memory, "Pids": resources.pids}
    reservations = {"NanoCPUs": reserved.nano_cpus, "MemoryBytes": reserved.memory}
    where = {"Constraints": list(placement.constraints), "MaxReplicas": placement.max_per_host}
    log = container.log
    return {
        "ContainerSpec": _container(container),
        "Resources": {"Limits": _set(limits), "Reservations": _set(reservations)},
        "RestartPolicy": _restart(container.restart, may_end=container.restart.condition == "no"),
        "Placement": _set(where),
        "Networks": [
            {"Target": ids.get(wish.network, wish.network)}
            | ({"Aliases": list(wish.aliases)} if wish.aliases else {})
            for wish in container.networks
        ],
        "LogDriver": {
            "Name": "none" if log.driver == "none" else "json-file",
            "Options": {"max-file": str(log.max_files), "max-size": exact_bytes(log.max_size)},
        },
        "ForceUpdate": _forced(container),
        "Runtime": "container",
    }


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what says nothing."""
    return {key: value for key, value in values.items() if value}


def _forced(container: ContainerSpec) -> int:
    text = container.annotations.get(FORCED, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 18 else 0


def _container(spec: ContainerSpec) -> dict[str, Any]:
    privileges: dict[str, Any] = {}
    if spec.seccomp:
        privileges["Seccomp"] = {"Mode": spec.seccomp}
    if spec.no_new_privileges:
        privileges["NoNewPrivileges"] = True
    made = _set(
        {
            "Labels": dict(spec.labels),
            "Command": list(spec.entrypoint or ()),
            "Args": list(spec.args or ()),
            "Hostname": spec.hostname,
            "Env": [f"{name}={value}" for name, value in spec.env.items()],
            "Dir": spec.workdir,
            "User": spec.user,
            "Groups": list(spec.groups),
            "Privileges": privileges,
            "TTY": spec.tty,
            "OpenStdin": spec.stdin,
            "ReadOnly": spec.read_only,
            "Mounts": [_mount(mount) for mount in spec.mounts],
            "StopSignal": spec.stop_signal,
            "Healthcheck": healthcheck(spec.health) if spec.health is not None else {},
            "Hosts": [_host(entry) for entry in spec.extra_hosts],
            "Sysctls": dict(spec.sysctls),
            "CapabilityAdd": list(spec.cap_add),
            "CapabilityDrop": list(spec.cap_drop),
            "Ulimits": [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in spec.ulimits],
        }
    )
    dns = {"Nameservers": list(spec.dns), "Search": list(spec.dns_search), "Options": list(spec.dns_options)}
    return {
        "Image": spec.image,
        **made,
        "Init": spec.init,
        "StopGracePeriod": nanoseconds(spec.stop_grace),
        "DNSConfig": _set(dns),
        "Isolation": "default",
    }


def _host(entry: str) -> str:
    name, _, address = entry.partition("=" if "=" in entry else ":")
    return f"{address} {name}"


def _mount(mount: Mount) -> dict[str, Any]:
    made: dict[str, Any] = {"Type": mount.type, "Target": mount.target}
    if mount.source:
        made["Source"] = mount.source
    if mount.read_only:
        made["ReadOnly"] = True
    if mount.type == "bind" and (mount.propagation or mount.create_source):
        made["BindOptions"] = _set(
            {"Propagation": mount.propagation, "CreateMountpoint": mount.create_source}
        )
    if mount.type == "volume" and (words := _set({"NoCopy": mount.no_copy, "Labels": dict(mount.labels)})):
        made["VolumeOptions"] = words
    if mount.type == "tmpfs":
        mode = mount.tmpfs_mode if mount.tmpfs_mode != 0o1777 else 0
        options = [pair.split("=", 1) for pair in mount.tmpfs_options]
        if words := _set({"SizeBytes": mount.tmpfs_size, "Mode": mode, "Options": options}):
            made["TmpfsOptions"] = words
    return made


def _restart(policy: RestartPolicy, *, may_end: bool) -> dict[str, Any]:
    condition = "none" if may_end else CONDITIONS.get(policy.condition, "any")
    if policy.condition == "no" and not may_end:
        condition = "any"
    return {
        "Condition": condition,
        "Delay": nanoseconds(policy.delay),
        "MaxAttempts": policy.max_attempts,
        "Window": nanoseconds(policy.window) if policy.window != RestartPolicy().window else 0,
    }


def _update(policy: UpdatePolicy) -> dict[str, Any]:
    return {
        "Parallelism": policy.parallelism,
        "Delay": nanoseconds(policy.delay),
        "FailureAction": policy.failure_action,
        "Monitor": nanoseconds(policy.monitor),
        "MaxFailureRatio": policy.max_failure_ratio,
        "Order": policy.order,
    }


def _endpoint_spec(spec: ServiceSpec) -> dict[str, Any]:
    made: dict[str, Any] = {"Mode": spec.endpoint_mode}
    if spec.container.ports:
        made["Ports"] = ports(spec.container.ports)
    return made


def ports(published: Iterable[Publish]) -> list[dict[str, Any]]:
    made = []
    for port in published:
        words: dict[str, Any] = {"Protocol": port.protocol, "TargetPort": port.target}
        if port.published:
            words["PublishedPort"] = port.published
        made.append({**words, "PublishMode": port.mode})
    return made


def _endpoint(service: Service, ids: Ids) -> dict[str, Any]:
    """What stands: ports with their numbers, and addresses."""
    made: dict[str, Any] = {"Spec": _endpoint_spec(service.spec)}
    own = [port for port in service.spec.container.ports if port.mode != "ingress"]
    if standing := [*ports(service.ingress), *ports(own)]:
        made["Ports"] = standing
    addresses = [
        {"NetworkID": ids.get(network, network), "Addr": f"{address}/{length}"}
        for network, vip in service.vips.items()
        for address, length in ((vip.ipv4, 32), (vip.ipv6, 128))
        if address
    ]
    if addresses:
        made["VirtualIPs"] = addresses
    return made


def _rollout(rollout: Rollout) -> dict[str, Any]:
    made: dict[str, Any] = {"State": rollout.state, "StartedAt": moment(rollout.started_at)}
    if rollout.completed_at:
        made["CompletedAt"] = moment(rollout.completed_at)
    return {**made, "Message": rollout.message or _SAID[rollout.state]}


_SAID: Mapping[str, str] = {
    "updating": "update in progress",
    "paused": "update paused",
    "completed": "update completed",
    "rollback_started": "rollback in progress",
    "rollback_paused": "rollback paused",
    "rollback_completed": "rollback completed",
}
