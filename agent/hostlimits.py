"""What this host's kernel and our own process allow containers to have: measured once, at the agent's start.

Invariant: reads only; what can't be read takes the cautious value.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import struct

from agent.devices import all_nodes
from agent.oci.facts import HostLimits
from agent.oci.process import ULIMITS
from agent.oci.seccomp import SeccompPolicy

SECCOMP_PROFILE = "/usr/share/containers/seccomp.json"
_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_INITS = ("catatonit", "docker-init", "tini-static", "tini")
_CAP_SYS_RESOURCE = 24
_PT_INTERP = 3


def measure(cgroup_root: str = "/sys/fs/cgroup") -> HostLimits:
    release = platform.release().split(".")
    unified = os.path.exists(f"{cgroup_root}/cgroup.controllers")
    return HostLimits(
        arch=_ARCH.get(platform.machine(), platform.machine()),
        kernel=(int(release[0]), int("".join(c for c in release[1] if c.isdigit()) or 0)),
        cgroup_v2=unified,
        swap_accounting=unified or os.path.exists(f"{cgroup_root}/memory/memory.memsw.limit_in_bytes"),
        capabilities=_bounding(),
        cpus=os.cpu_count() or 1,
        hard_limits=_hard_limits(),
        devices=tuple(all_nodes()),
        init_path=find_init(),
    )


def load_seccomp(limits: HostLimits, path: str = SECCOMP_PROFILE) -> SeccompPolicy | None:
    """None when the file is not there. Raises Damaged."""
    try:
        with open(path, "rb") as file:
            data = file.read(1 << 20)
    except FileNotFoundError:
        return None
    return SeccompPolicy(data, arch=limits.arch, kernel=limits.kernel)


def find_init() -> str:
    """The first init that needs no shared library, since it will run in a stranger's root."""
    for name in _INITS:
        path = shutil.which(name, path="/usr/libexec/podman:/usr/bin:/usr/local/bin:/usr/sbin")
        if path is not None and is_static(path):
            return os.path.realpath(path)
    return ""


def is_static(path: str) -> bool:
    """An ELF file of 64 bits without an interpreter (elf(5), PT_INTERP)."""
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:5] != b"\x7fELF\x02":
            return False
        order = "<" if head[5] == 1 else ">"
        (offset,) = struct.unpack_from(order + "Q", head, 32)
        size, count = struct.unpack_from(order + "HH", head, 54)
        file.seek(offset)
        table = file.read(size * count)
    kinds = (struct.unpack_from(order + "I", table, at)[0] for at in range(0, len(table) - 3, size or 1))
    return _PT_INTERP not in kinds


def _bounding() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next((int(line.split()[1], 16) for line in file if line.startswith("CapBnd:")), 0)


def _hard_limits() -> dict[str, int]:
    """Empty where we may raise them (CAP_SYS_RESOURCE)."""
    if _bounding() >> _CAP_SYS_RESOURCE & 1:
        return {}
    limits = {}
    for name in ULIMITS:
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is not None:
            hard = resource.getrlimit(number)[1]
            if hard != resource.RLIM_INFINITY:
                limits[name] = hard
    return limits
