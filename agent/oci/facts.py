"""What a configuration needs to know besides the user's spec and the image: facts as values. Pure.

`agent.hostlimits` measures HostLimits once; ContainerFacts are the agent's choices for one container.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from model.spec import Mount, Struct

Profile = Literal["docker", "default", "strict"]


class Device(Struct):
    path: str
    type: Literal["c", "b"]
    major: int
    minor: int
    mode: int
    uid: int = 0
    gid: int = 0
    permissions: str = "rwm"


class HostLimits(Struct):
    """What this host's kernel and our own process allow."""

    arch: str = "amd64"
    """As in OCI."""
    kernel: tuple[int, int] = (0, 0)
    cgroup_v2: bool = False
    swap_accounting: bool = True
    capabilities: int = (1 << 41) - 1
    """The agent's own bounding set as a mask: more can't be given."""
    cpus: int = 1
    hard_limits: Mapping[str, int] = {}
    """Highest hard rlimits that we may give, by ulimit name (`nofile`); none listed: any."""
    devices: tuple[Device, ...] = ()
    """All device nodes of the host, for privileged containers."""
    init_path: str = ""
    """A statically linked tini or catatonit; empty: there is none."""


class ContainerFacts(Struct):
    """The agent's choices for one attempt of one container."""

    hostname: str
    rootfs: str
    """Absolute path of the mounted root."""
    cgroups_path: str
    netns: str
    """Path of its network namespace; empty: the host's."""
    etc: Mapping[str, str] = {}
    """Files that we keep for it: `/etc/hosts` → host path; also hostname and resolv.conf."""
    mounts: tuple[Mount, ...] = ()
    """All of the user's and the image's mounts; bind and volume sources are absolute host paths by now, and
    targets have been resolved inside the root (`agent.inroot.resolve_target`)."""
    passwd: bytes = b""
    """The image's /etc/passwd and /etc/group as far as the container's writable layer has them, bounded."""
    group: bytes = b""
    steering: Mapping[str, str] = {}
    """Annotations for the runtime (`agent.oci.cgroups.scope_properties`)."""
    devices: tuple[Device, ...] = ()
    """Nodes that the user wants of the host's, `path` in the container."""
    blocks: Mapping[str, tuple[int, int]] = {}
    """Major and minor number of each block device that limits are asked for, by its path."""
    profile: Profile = "default"
    abi32: bool = True
    """Programs of the host's 32-bit ABI may run in it (`agent.inroot.has_abi32`). Without, the seccomp filter
    is compiled for one architecture instead of three: a start is a fifth faster, and the kernel's 32-bit
    entries are out of reach (a program that uses them dies of SIGSYS)."""
