"""A container as Docker's clients see it: `GET /containers/{id}/json`, and a line of the list. Pure.

The reverse of `hostconfig`: what was asked for comes back as it was asked, where a ContainerSpec keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.docker.containers import devices, mounts, networks, ports, states
from api.docker.containers.hostconfig import MASKED, READ_ONLY
from api.docker.containers.placing import NODE
from api.docker.times import moment, nanoseconds
from model import dockerwords
from model.api import HostInfo, InstanceInfo
from model.health import HealthLog
from model.image import ImageConfig
from model.quantity import exact_bytes
from model.spec import ContainerSpec, ExecProbe, HealthCheck, HttpProbe, ShellProbe, Struct, TcpProbe

ORIGIN = "flota.origin"
"""The label by which lists tell containers of a host's own."""


class Around(Struct):
    """What an inspection needs beside the container itself."""

    image: ImageConfig = ImageConfig()
    node: HostInfo | None = None
    networks: Mapping[str, str] = {}
    """Names by id."""
    prefixes: Mapping[str, int] = {}
    """Of networks by id: lengths of their IPv4 prefixes."""
    health: HealthLog | None = None
    execs: tuple[str, ...] = ()


def inspect(info: InstanceInfo, around: Around) -> dict[str, Any]:
    instance, status = info.instance, info.status
    spec = instance.spec
    entrypoint, cmd = command(spec, around.image)
    whole = [*(entrypoint or ()), *(cmd or ())]
    made: dict[str, Any] = {
        "Id": instance.id,
        "Created": moment(instance.created_at),
        "Path": whole[0] if whole else "",
        "Args": whole[1:],
        "State": states.inspected(info, around.health),
        "Image": status.image_id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": "",
        "Name": f"/{instance.name}",
        "RestartCount": status.restarts,
        "Driver": around.node.host.facts.storage_driver if around.node is not None else "",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(around.execs) or None,
        "HostConfig": {
            **host_config(spec),
            "MemoryReservation": instance.placement.reservations.memory,
        },
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "Mounts": mounts.points(spec.mounts, {target: name for name, target in status.volumes}),
        "Config": config(info, around.image, entrypoint, cmd),
        "NetworkSettings": network_settings(info, around),
    }
    if around.node is not None:
        made["Node"] = node(around.node)
    return made


def command(spec: ContainerSpec, image: ImageConfig) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """(entrypoint, cmd) as they are run."""
    if spec.entrypoint is None:
        return image.entrypoint, spec.args if spec.args is not None else image.cmd
    return spec.entrypoint or None, spec.args


def config(
    info: InstanceInfo, image: ImageConfig, entrypoint: Sequence[str] | None, cmd: Sequence[str] | None
) -> dict[str, Any]:
    spec = info.instance.spec
    given = dict(entry.partition("=")[::2] for entry in image.env)
    env = {**{name: value for name, value in given.items() if name not in spec.env_remove}, **spec.env}
    exposing = dict.fromkeys(
        (*image.exposed_ports, *spec.expose, *(ports.key(p.target, p.protocol) for p in spec.ports))
    )
    anonymous = [m.target for m in spec.mounts if m.type == "volume" and not m.source]
    volumes = dict.fromkeys((*image.volumes, *anonymous))
    made: dict[str, Any] = {
        "Hostname": spec.hostname or info.instance.id[:12],
        "Domainname": spec.domainname,
        "User": spec.user or image.user,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": spec.tty,
        "OpenStdin": spec.stdin,
        "StdinOnce": spec.stdin_once,
        "Env": [*(f"{name}={value}" for name, value in env.items()), *spec.env_remove],
        "Cmd": list(cmd) if cmd is not None else None,
        "Image": spec.image,
        "Volumes": {path: {} for path in volumes} or None,
        "WorkingDir": spec.workdir or image.workdir,
        "Entrypoint": list(entrypoint) if entrypoint is not None else None,
        "OnBuild": None,
        "Labels": dict(spec.labels),
    }
    if exposing:
        made["ExposedPorts"] = {text if "/" in text else f"{text}/tcp": {} for text in exposing}
    if spec.stop_signal or image.stop_signal:
        made["StopSignal"] = spec.stop_signal or image.stop_signal
    if spec.stop_grace != 10.0:
        made["StopTimeout"] = int(spec.stop_grace)
    if (health := spec.health or image.health) is not None:
        made["Healthcheck"] = healthcheck(health)
    return made


def healthcheck(health: HealthCheck) -> dict[str, Any]:
    probe = health.probe
    made: dict[str, Any] = {}
    if health.disabled:
        made["Test"] = ["NONE"]
    elif isinstance(probe, ExecProbe):
        made["Test"] = ["CMD", *probe.args]
    elif isinstance(probe, ShellProbe):
        made["Test"] = ["CMD-SHELL", probe.command]
    elif isinstance(probe, TcpProbe | HttpProbe):  # flota's own: shown, as no Docker can run them
        path = f"{probe.path}" if isinstance(probe, HttpProbe) else ""
        made["Test"] = ["CMD", f"flota-{'http' if path else 'tcp'}", f":{probe.port}{path}"]
    for name, value in (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ):
        if value:
            made[name] = nanoseconds(value)
    if health.retries:
        made["Retries"] = health.retries
    return made


_SAME: Mapping[str, Any] = {
    "ContainerIDFile": "",
    "VolumeDriver": "",
    "VolumesFrom": None,
    "ConsoleSize": [0, 0],
    "Cgroup": "",
    "Links": None,
    "UsernsMode": "",
    "Runtime": "runc",
    "Isolation": "",
    "CgroupParent": "",
    "CpuPeriod": 0,
    "CpuQuota": 0,
    "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0,
    "DeviceRequests": None,
    "CpuCount": 0,
    "CpuPercent": 0,
    "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
}
"""Of HostConfig: what is alike for all containers here, which Docker's clients look for all the same."""


def host_config(spec: ContainerSpec) -> dict[str, Any]:
    resources = spec.resources
    return {
        **_SAME,
        **devices.shown(spec),
        "CgroupnsMode": spec.cgroup_namespace or "private",
        "UTSMode": spec.uts_mode,
        "Binds": mounts.binds(spec.mounts) or None,
        "LogConfig": {
            "Type": "none" if spec.log.driver == "none" else "json-file",
            "Config": {"max-file": str(spec.log.max_files), "max-size": exact_bytes(spec.log.max_size)},
        },
        "NetworkMode": networks.mode_of(spec.networks),
        "PortBindings": ports.bindings(spec.ports),
        "RestartPolicy": {"Name": spec.restart.condition, "MaximumRetryCount": spec.restart.max_attempts},
        "AutoRemove": spec.auto_remove,
        "Annotations": dict(spec.annotations),
        "CapAdd": list(spec.cap_add) or None,
        "CapDrop": list(spec.cap_drop) or None,
        "Dns": list(spec.dns),
        "DnsOptions": list(spec.dns_options),
        "DnsSearch": list(spec.dns_search),
        "ExtraHosts": list(spec.extra_hosts) or None,
        "GroupAdd": list(spec.groups) or None,
        "IpcMode": spec.ipc_mode or "private",
        "PidMode": spec.pid_mode,
        "Privileged": spec.privileged,
        "PublishAllPorts": spec.publish_all,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": security(spec) or None,
        "Tmpfs": mounts.tmpfs(spec.mounts) or None,
        "ShmSize": spec.shm_size,
        "Sysctls": dict(spec.sysctls) or None,
        "CpuShares": resources.cpu_shares,
        "Memory": resources.memory,
        "NanoCpus": resources.nano_cpus,
        "CpusetCpus": resources.cpuset_cpus,
        "MemorySwap": resources.memory_swap or 2 * resources.memory,
        "PidsLimit": resources.pids or None,
        "Ulimits": [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in spec.ulimits],
        "Mounts": mounts.wishes(spec.mounts),
        "MaskedPaths": None if spec.privileged else _or(spec.masked_paths, MASKED),
        "ReadonlyPaths": None if spec.privileged else _or(spec.readonly_paths, READ_ONLY),
        "Init": spec.init,
        **dockerwords.shown(spec),
    }


def _or(said: Sequence[str] | None, usual: Sequence[str]) -> list[str]:
    return list(usual if said is None else said)


def security(spec: ContainerSpec) -> list[str]:
    made = [f"profile={spec.security_profile}"] if spec.security_profile else []
    made += [f"seccomp={spec.seccomp}"] if spec.seccomp else []
    if spec.no_new_privileges is not None:
        made.append(f"no-new-privileges={str(spec.no_new_privileges).lower()}")
    return made


def network_settings(info: InstanceInfo, around: Around) -> dict[str, Any]:
    """Top-level addresses are those of the first network, for clients of before 1.52."""
    instance, status = info.instance, info.status
    standing = networks.endpoints(instance.attachments, status.endpoints, around.networks, around.prefixes)
    mode = networks.mode_of(instance.spec.networks)
    if mode in ("host", "none"):
        standing = {mode: networks.endpoint_of_mode()}
    first: Mapping[str, Any] = next(iter(standing.values()), {})
    exposing = (*around.image.exposed_ports, *instance.spec.expose)
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": "",
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": ports.bound(status.ports, exposing) if status.phase.live else {},
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{
            name: first.get(name, 0 if name.endswith("Len") else "")
            for name in (
                "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress",
                "IPPrefixLen", "IPv6Gateway", "MacAddress",
            )
        },
        "Networks": standing,
    }  # fmt: skip


def node(host: HostInfo) -> dict[str, Any]:
    """As classic Swarm showed it."""
    facts = host.host.facts
    return {
        "ID": host.host.id,
        "Name": host.host.spec.name,
        "IP": facts.address,
        "Addr": facts.address,
        "Cpus": facts.nano_cpus // 1_000_000_000,
        "Memory": facts.memory,
        "Labels": {**facts.labels, **host.host.spec.labels},
    }


def listed(info: InstanceInfo, around: Around, now: float) -> dict[str, Any]:
    """A line of `GET /containers/json`. Its labels name the node, since nothing else of it is shown there by
    Docker's own command; those of an inspection are the container's own."""
    instance, status = info.instance, info.status
    spec = instance.spec
    entrypoint, cmd = command(spec, around.image)
    labels = dict(spec.labels)
    if info.host_name:
        labels.setdefault(NODE, info.host_name)
    if info.origin == "host":
        labels.setdefault(ORIGIN, info.origin)
    made = {
        "Id": instance.id,
        "Names": [f"/{instance.name}"],
        "Image": spec.image,
        "ImageID": status.image_id,
        "Command": " ".join((*(entrypoint or ()), *(cmd or ()))),
        "Created": int(instance.created_at),
        "Ports": ports.listed(status.ports, (*around.image.exposed_ports, *spec.expose))
        if status.phase.live
        else [],
        "Labels": labels,
        "State": states.state(info),
        "Status": states.summary(info, now),
        "HostConfig": {"NetworkMode": networks.mode_of(spec.networks)},
        "NetworkSettings": {
            "Networks": networks.endpoints(
                instance.attachments, status.endpoints, around.networks, around.prefixes
            )
        },
        "Mounts": mounts.points(spec.mounts, {target: name for name, target in status.volumes}),
    }
    if info.host_name:
        made["Node"] = {"ID": instance.host or "", "Name": info.host_name}
    return made
