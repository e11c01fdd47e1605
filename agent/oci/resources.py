"""linux.resources and sysctls: limits in the OCI's terms, which runc turns into cgroup v1 or v2. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent.oci.facts import Device, HostLimits
from model.errors import InvalidInput, Unsupported
from model.quantity import NANO
from model.spec import ContainerSpec, Resources

CPU_PERIOD = 100_000
"""Microseconds."""
MIN_MEMORY = 6 << 20
_CPUSET = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*\Z")
_SYSCTL = re.compile(r"[a-z0-9_]+(?:[./][A-Za-z0-9_-]+)+\Z")
_IPC = "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced"
_IPC_SYSCTLS = frozenset(f"kernel.{name}" for name in _IPC.split())
DEFAULT_SYSCTLS = {"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "0"}
"""ping without NET_RAW, and low ports without NET_BIND_SERVICE, inside the container's own namespace."""


def resources(wish: Resources, host: HostLimits) -> dict[str, Any]:
    """Limits as runc takes them, for a new container and for `update` alike. Raises InvalidInput."""
    made: dict[str, Any] = {}
    if wish.memory or wish.memory_swap:
        made["memory"] = _memory(wish, host)
    cpu: dict[str, Any] = {}
    if wish.nano_cpus:
        if wish.nano_cpus > host.cpus * NANO:
            raise InvalidInput(f"{wish.nano_cpus / NANO:g} cpus asked for: this host has {host.cpus}")
        cpu |= {"quota": max(1000, wish.nano_cpus * CPU_PERIOD // NANO), "period": CPU_PERIOD}
    if wish.cpu_shares:
        cpu["shares"] = max(2, wish.cpu_shares)
    if wish.cpuset_cpus:
        if not _CPUSET.match(wish.cpuset_cpus):
            raise InvalidInput(f"invalid cpuset {wish.cpuset_cpus[:40]!r}", hint="Write for example 0-2,4")
        cpu["cpus"] = wish.cpuset_cpus
    if cpu:
        made["cpu"] = cpu
    if wish.pids > 0:
        made["pids"] = {"limit": wish.pids}
    return made


def _memory(wish: Resources, host: HostLimits) -> dict[str, int]:
    if wish.memory_swap > 0 and not wish.memory:
        raise InvalidInput("a swap limit needs a memory limit", hint="Give --memory too")
    if 0 < wish.memory < MIN_MEMORY:
        raise InvalidInput(f"memory limit of {wish.memory} bytes: the least is {MIN_MEMORY >> 20} MiB")
    if 0 < wish.memory_swap < wish.memory:
        raise InvalidInput("the swap limit counts memory too: it can't be below the memory limit")
    limits = {"limit": wish.memory} if wish.memory else {}
    if host.swap_accounting and wish.memory:
        limits["swap"] = wish.memory_swap or wish.memory * 2
    elif wish.memory_swap > 0:
        raise Unsupported("this host's kernel does not count swap", hint="Leave --memory-swap out")
    return limits


def device_rules(spec: ContainerSpec) -> list[dict[str, Any]]:
    """Nothing but the standard nodes, which the runtime adds itself; everything for a privileged one."""
    return [{"allow": spec.privileged, "access": "rwm"}]


def device_nodes(devices: tuple[Device, ...]) -> list[dict[str, Any]]:
    return [
        {
            "path": d.path,
            "type": d.type,
            "major": d.major,
            "minor": d.minor,
            "fileMode": d.mode,
            "uid": d.uid,
            "gid": d.gid,
        }
        for d in devices
    ]


def sysctls(spec: ContainerSpec, *, own_network: bool) -> dict[str, str]:
    """Only those that a namespace of the container's own holds; others would change the host.
    Raises InvalidInput. `own_network`: it has a network namespace."""
    made = dict(DEFAULT_SYSCTLS) if own_network else {}
    if spec.domainname:
        made["kernel.domainname"] = spec.domainname
    for name, value in spec.sysctls.items():
        if not _SYSCTL.match(name) or not value.isprintable():
            raise InvalidInput(f"invalid sysctl {name[:80]!r}")
        reason = _refused(name.replace("/", "."), spec, own_network=own_network)
        if reason:
            raise InvalidInput(f"sysctl {name} is refused: {reason}")
        made[name] = value
    return made


def _refused(name: str, spec: ContainerSpec, *, own_network: bool) -> str:
    if name.startswith("net."):
        return "" if own_network else "the container uses the host's network"
    if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        return "the container uses the host's ipc" if spec.ipc_mode == "host" else ""
    return "it is not separate per container"


def annotations_of(spec: ContainerSpec) -> Mapping[str, str]:
    """The user's own only; keys that steer a runtime are refused."""
    for key in spec.annotations:
        if key.startswith(("org.systemd.", "run.oci.", "io.podman.", "io.container.", "module.wasm.")):
            raise InvalidInput(f"annotation {key[:80]!r} is refused: it steers the runtime")
    return spec.annotations
