"""This host's kernel with all that goes beside it: whoever runs a real host's network takes it from here."""

from __future__ import annotations

from pathlib import Path

from net.kernel.linux import LinuxKernel
from net.wireguard.choice import HostTunnels

UNROUTED = "unrouted.json"
TUNNELS = "wireguard"
"""Folder of encrypted tunnels' control sockets, in the run folder."""


def host_kernel(run_dir: Path, *, sysfs: str = "/sys", own_cgroup: str = "") -> LinuxKernel:
    tunnels = HostTunnels(run_dir / TUNNELS, own_cgroup=own_cgroup)
    return LinuxKernel(sysfs=sysfs, tunnels=tunnels, unrouted=run_dir / UNROUTED)
