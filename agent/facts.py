"""What this host is, measured at the agent's start: cpus, memory, kernel, runtime, underlay address."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import platform
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from agent import hostroutes
from aio.release import running
from aio.subprocess import run
from image.platforms import host_platform
from model.errors import FlotaError, Unsupported
from model.quantity import NANO
from model.status import HostFacts
from model.version import VERSION
from model.whereabouts import parted
from net.kernel.underlay import carrier_of, link_kinds, nics, own_addresses

DEFAULT_MTU = 1500
"""Where no link carries the address, as behind NAT."""
SAFE_RUNC = (1, 2, 8)
"""First release with the fixes of CVE-2025-31133, -52565 and -52881 (1.3 has them from 1.3.3 on)."""


async def measure(
    *,
    name: str,
    address: str,
    controller: str,
    driver: tuple[str, str],
    labels: Mapping[str, str],
    cgroup_driver: str = "",
    runc: str = "runc",
) -> HostFacts:
    """`driver` is the storage driver and why it was chosen; `address` empty: the source address of the way to
    `controller`. Raises Unsupported without one."""
    where = address or source_address(controller)
    version = await _runc_version(runc)
    known = HostFacts(
        hostname=name or socket.gethostname(),
        address=where,
        nano_cpus=len(os.sched_getaffinity(0)) * NANO,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        platform=host_platform(),
        kernel=platform.release(),
        os_name=_os_name(),
        cgroup=_cgroup_mode(),
        cgroup_driver=cgroup_driver,
        runtime=version,
        storage_driver=driver[0],
        storage_reason=driver[1],
        version=VERSION,
        release=running(),
        warnings=tuple(_warnings(version)),
        labels=dict(labels),
        link_kinds=link_kinds(),
    )
    return underlay(known, where)


def underlay(known: HostFacts, address: str) -> HostFacts:
    """`known` with what may change while it runs: its underlay address is `address` now."""
    reached, carrier = hostroutes.measure(), carrier_of(address)
    return replace(
        known,
        address=address,
        mtu=carrier.mtu if carrier is not None else DEFAULT_MTU,
        link=carrier.name if carrier is not None else "",
        onlink=carrier.ranges if carrier is not None else (),
        link_local=carrier.link_local if carrier is not None else "",
        addresses=own_addresses(),
        links=reached.links,
        routes=reached.routes,
        nics=nics(),
    )


def source_address(target: str) -> str:
    """The address that packets to `target` (host or host:port) would come from; no packet is sent. To a
    target on this host itself, or to none: that of the way out, if there is one. Raises Unsupported."""
    host = parted(target, 0)[0] if target else ""
    found = _source_address(host) if host else ""
    if found and not ipaddress.ip_address(found).is_loopback:
        return found
    for anybody in ("192.0.2.1", "2001:db8::1"):
        with contextlib.suppress(Unsupported):
            return _source_address(anybody)
    return found or _source_address("192.0.2.1")


def _source_address(host: str) -> str:
    try:
        infos = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise Unsupported(
            f"{host} has no address: {error.strerror}", hint="Give this host's --address"
        ) from error
    for family, kind, protocol, _, where in infos:
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.connect(where)
            except OSError:
                continue
            found: str = probe.getsockname()[0]
            return found
    raise Unsupported(f"this host has no route to {host}", hint="Give this host's --address")


def boot_id() -> str:
    """Changes with every boot (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def _runc_version(runc: str) -> str:
    try:
        done = (await run([runc, "--version"], deadline=10)).check()
    except FlotaError as error:
        raise Unsupported(f"no OCI runtime: {error.message}", hint="Install runc") from error
    return done.stdout.decode(errors="replace").split("\n")[0]


def _warnings(runtime: str) -> list[str]:
    numbers = tuple(map(int, re.findall(r"\d+", runtime)[:3]))
    if numbers and numbers < SAFE_RUNC:
        return [f"{runtime} lacks fixes of 2024 and 2025 (CVE-2025-31133 among others): update runc"]
    return []


def _os_name() -> str:
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return ""
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', text, re.MULTILINE)
    return found[1] if found else ""


def _cgroup_mode() -> str:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return "v2"
    return "hybrid" if (root / "unified").is_dir() else "v1"
