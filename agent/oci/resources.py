"""linux.resources and sysctls: limits in the OCI's terms, which runc turns into cgroup v1 or v2. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent.oci.facts import Device, HostLimits
from model.devicerules import DEVICE_RULE
from model.errors import InvalidInput, Unsupported
from model.quantity import NANO
from model.spec import ContainerSpec, Resources

Blocks = Mapping[str, tuple[int, int]]
CPU_PERIOD = 100_000
"""Microseconds."""
MIN_MEMORY = 6 << 20
_CPUSET = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*\Z")
_SYSCTL = re.compile(r"[a-z0-9_]+(?:[./][A-Za-z0-9_-]+)+\Z")
_IPC = "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced"
_IPC_SYSCTLS = frozenset(f"kernel.{name}" for name in _IPC.split())
DEFAULT_SYSCTLS = {"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "0"}
"""ping without NET_RAW, and low ports without NET_BIND_SERVICE, inside the container's own namespace."""


def resources(wish: Resources, host: HostLimits, blocks: Blocks) -> dict[str, Any]:
    """Limits as runc takes them, of a new container. `blocks`: numbers of the devices that have limits, by
    path. Raises InvalidInput, Unsupported."""
    made: dict[str, Any] = {}
    if memory := _memory(wish, host):
        made["memory"] = memory
    if cpu := _cpu(wish, host):
        made["cpu"] = cpu
    if wish.pids > 0:
        made["pids"] = {"limit": wish.pids}
    if wish.blkio_weight or wish.blkio_devices:
        made["blockIO"] = _block_io(wish, blocks)
    return made


def changed(wish: Resources, host: HostLimits) -> dict[str, Any]:
    """As `resources`, for one that lives: what is not limited any more is said to be so, as runc leaves
    alone what it is not told (opencontainers/runc, update.go). Cpus and memory nodes stay where the wish has
    none, as those of the parent may be fewer than the host's; limits of devices are of a new start."""
    cpu = {"shares": 1024, "quota": -1, "period": CPU_PERIOD, **_cpu(wish, host)}
    memory: dict[str, Any] = {"limit": -1, **({"swap": -1} if host.swap_accounting else {})}
    made = {"cpu": cpu, "memory": {**memory, **_memory(wish, host)}, "pids": {"limit": wish.pids or -1}}
    if wish.blkio_weight:
        made["blockIO"] = {"weight": wish.blkio_weight}
    return made


def _cpu(wish: Resources, host: HostLimits) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if wish.nano_cpus:
        if wish.nano_cpus > host.cpus * NANO:
            raise InvalidInput(f"{wish.nano_cpus / NANO:g} cpus asked for: this host has {host.cpus}")
        cpu |= {"quota": max(1000, wish.nano_cpus * CPU_PERIOD // NANO), "period": CPU_PERIOD}
    if wish.cpu_shares:
        cpu["shares"] = max(2, wish.cpu_shares)
    for name, text in (("cpus", wish.cpuset_cpus), ("mems", wish.cpuset_mems)):
        if text and not _CPUSET.match(text):
            raise InvalidInput(f"invalid cpuset {text[:40]!r}", hint="Write for example 0-2,4")
        if text:
            cpu[name] = text
    return cpu


def _memory(wish: Resources, host: HostLimits) -> dict[str, Any]:
    if wish.memory_swap > 0 and not wish.memory:
        raise InvalidInput("a swap limit needs a memory limit", hint="Give --memory too")
    if 0 < wish.memory < MIN_MEMORY:
        raise InvalidInput(f"memory limit of {wish.memory} bytes: the least is {MIN_MEMORY >> 20} MiB")
    if 0 < wish.memory_swap < wish.memory:
        raise InvalidInput("the swap limit counts memory too: it can't be below the memory limit")
    limits: dict[str, Any] = {"limit": wish.memory} if wish.memory else {}
    if host.swap_accounting and wish.memory:
        limits["swap"] = wish.memory_swap or wish.memory * 2
    elif wish.memory_swap > 0:
        raise Unsupported("this host's kernel does not count swap", hint="Leave --memory-swap out")
    for asked, flag in ((wish.memory_swappiness >= 0, "swappiness"), (wish.oom_kill_disable, "OOM killer")):
        if asked and host.cgroup_v2:
            raise Unsupported(f"this host has cgroup v2, which has no {flag} of its own per container")
    if wish.memory_swappiness >= 0:
        limits["swappiness"] = wish.memory_swappiness
    if wish.oom_kill_disable:
        limits["disableOOMKiller"] = True
    return limits


_RATES = {
    "throttleReadBpsDevice": "read_bps",
    "throttleWriteBpsDevice": "write_bps",
    "throttleReadIOPSDevice": "read_iops",
    "throttleWriteIOPSDevice": "write_iops",
}
"""OCI's names of lists (runtime-spec, config-linux.md#block-io) → fields of a BlkioDevice."""


def _block_io(wish: Resources, blocks: Blocks) -> dict[str, Any]:
    """runc writes them as blkio.* of v1, or as io.max and io.bfq.weight of v2."""
    made: dict[str, Any] = {"weight": wish.blkio_weight} if wish.blkio_weight else {}
    for device in wish.blkio_devices:
        major, minor = blocks[device.path]
        at = {"major": major, "minor": minor}
        if device.weight:
            made.setdefault("weightDevice", []).append({**at, "weight": device.weight})
        for name, field in _RATES.items():
            if rate := getattr(device, field):
                made.setdefault(name, []).append({**at, "rate": rate})
    return made


def device_rules(spec: ContainerSpec, devices: Sequence[Device]) -> list[dict[str, Any]]:
    """Nothing but the standard nodes, which the runtime adds itself, and what the user named; everything for
    a privileged one."""
    if spec.privileged:
        return [{"allow": True, "access": "rwm"}]
    named = (
        {"allow": True, "type": d.type, "major": d.major, "minor": d.minor, "access": d.permissions}
        for d in devices
    )
    return [{"allow": False, "access": "rwm"}, *named, *(_rule(text) for text in spec.device_rules)]


def _rule(text: str) -> dict[str, Any]:
    """Of `c 10:200 rwm`; a number left out means all."""
    found = DEVICE_RULE.match(text)
    if found is None:
        raise InvalidInput(f"invalid device rule {text[:40]!r}", hint="Write for example 'c 10:200 rwm'")
    kind, major, minor, access = found.groups()
    numbers = {name: int(n) for name, n in (("major", major), ("minor", minor)) if n != "*"}
    return {"allow": True, "type": kind, **numbers, "access": access}


def device_nodes(devices: Sequence[Device], wishes: Sequence[Device] = ()) -> list[dict[str, Any]]:
    """The wish for a path counts, where both have it."""
    by_path = {device.path: device for device in (*devices, *wishes)}
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
        for d in by_path.values()
    ]


def sysctls(spec: ContainerSpec, *, own_network: bool) -> dict[str, str]:
    """Only those that a namespace of the container's own holds; others would change the host.
    Raises InvalidInput. `own_network`: it has a network namespace."""
    made = dict(DEFAULT_SYSCTLS) if own_network else {}
    if spec.domainname and not spec.uts_mode:
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
