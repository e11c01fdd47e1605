"""The fleet itself: ping, version, info."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from api.docker.containers import states
from api.docker.route import Call
from api.docker.times import moment
from api.docker.versions import NEWEST, OLDEST, text
from api.fanout import each
from model.api import HostInfo, ImageInfo
from model.version import VERSION

_FEATURES = {"seccomp": "name=seccomp,profile=builtin", "cgroupns": "name=cgroupns"}


_SAME: dict[str, Any] = {
    "Plugins": {
        "Volume": ["local"],
        "Network": ["bridge", "host", "ipvlan", "macvlan", "null", "overlay"],
        "Authorization": None,
        "Log": ["json-file"],
    },
    "MemoryLimit": True,
    "SwapLimit": True,
    "CpuCfsPeriod": True,
    "CpuCfsQuota": True,
    "CPUShares": True,
    "CPUSet": True,
    "PidsLimit": True,
    "IPv4Forwarding": True,
    "BridgeNfIptables": False,
    "BridgeNfIp6tables": False,
    "OomKillDisable": False,
    "KernelMemoryTCP": False,
    "Debug": False,
    "NFd": 0,
    "NGoroutines": 0,
    "NEventsListener": 0,
    "LoggingDriver": "json-file",
    "OSVersion": "",
    "OSType": "linux",
    "IndexServerAddress": "https://index.docker.io/v1/",
    "GenericResources": None,
    "DockerRootDir": "/var/lib/flota",
    "HttpProxy": "",
    "HttpsProxy": "",
    "NoProxy": "",
    "Labels": [],
    "ExperimentalBuild": False,
    "Runtimes": {"runc": {"path": "runc"}},
    "DefaultRuntime": "runc",
    "LiveRestoreEnabled": True,
    "Isolation": "",
    "InitBinary": "docker-init",
    "ContainerdCommit": {"ID": "", "Expected": ""},
    "RuncCommit": {"ID": "", "Expected": ""},
    "InitCommit": {"ID": "", "Expected": ""},
    "ProductLicense": "",
}
"""Of `info`: what is the same in every fleet."""


async def ping(call: Call) -> web.Response:
    """Swarm: this endpoint is a manager, so that clients offer services."""
    return _pong(call, "active/manager")


async def host_ping(call: Call) -> web.Response:
    """Of a host's own socket."""
    return _pong(call, "active/worker")


def _pong(call: Call, swarm: str) -> web.Response:
    headers = {
        "Builder-Version": "1",
        "Swarm": swarm,
        "Cache-Control": "no-cache, no-store, must-revalidate",
        "Pragma": "no-cache",
    }
    body = b"" if call.request.method == "HEAD" else b"OK"
    return web.Response(body=body, headers=headers, content_type="text/plain", charset="utf-8")


async def version(call: Call) -> dict[str, Any]:
    hosts = call.port.list_hosts()
    facts = hosts[0].host.facts if hosts else None
    arch = facts.platform.arch if facts is not None else "amd64"
    kernel = facts.kernel if facts is not None else ""
    said = {
        "ApiVersion": text(NEWEST),
        "MinAPIVersion": text(OLDEST),
        "Os": "linux",
        "Arch": arch,
        "KernelVersion": kernel,
        "GitCommit": call.port.info().release,
        "GoVersion": "",
        "BuildTime": "",
    }
    details = {**said, "Experimental": "false"}
    return {
        "Platform": {"Name": "flota"},
        "Components": [{"Name": "Engine", "Version": VERSION, "Details": details}],
        "Version": VERSION,
        **said,
    }


async def info(call: Call) -> dict[str, Any]:
    fleet, hosts = call.port.info(), call.port.list_hosts()
    counts = {"running": 0, "paused": 0}
    infos = call.port.list_instances()
    for one in infos:
        if (state := states.state(one)) in counts:
            counts[state] += 1
    first = hosts[0].host.facts if hosts else None
    return {
        **_SAME,
        "ID": fleet.fleet_id,
        "Name": fleet.name,
        "ServerVersion": VERSION,
        "Containers": len(infos),
        "ContainersRunning": counts["running"],
        "ContainersPaused": counts["paused"],
        "ContainersStopped": len(infos) - sum(counts.values()),
        "Images": await _images(call),
        "Driver": first.storage_driver if first is not None else "",
        "DriverStatus": _nodes(hosts),
        "SystemTime": moment(time.time()),
        "CgroupDriver": (first.cgroup_driver if first is not None else "") or "cgroupfs",
        "CgroupVersion": "2" if first is not None and first.cgroup == "v2" else "1",
        "KernelVersion": first.kernel if first is not None else "",
        "OperatingSystem": first.os_name if first is not None else "",
        "Architecture": machine(first.platform.arch if first is not None else "amd64"),
        "RegistryConfig": _registries(fleet.registry),
        "NCPU": sum(h.host.facts.nano_cpus for h in hosts) // 1_000_000_000,
        "MemTotal": sum(h.host.facts.memory for h in hosts),
        "Swarm": _swarm(fleet.fleet_id, hosts),
        "SecurityOptions": list(_FEATURES.values()),
        "Warnings": [f"{h.host.spec.name}: {line}" for h in hosts for line in h.conditions] or None,
    }


async def host_info(call: Call) -> dict[str, Any]:
    """Of a host's own socket: a node that is no manager."""
    made = await info(call)
    return {
        **made,
        "Swarm": {**made["Swarm"], "ControlAvailable": False, "RemoteManagers": None, "Cluster": None},
    }


async def _images(call: Call) -> int:
    """Different ones, on hosts that answer."""
    outcome = await each(call.port, call.port.ready_hosts(), "GET", "/v1/images", list[ImageInfo])
    return len({one.image.id for _, images in outcome.replies for one in images})


def _nodes(hosts: Any) -> list[list[str]]:
    """As classic Swarm told of its nodes."""
    lines = [["Nodes", str(len(hosts))]]
    for host in hosts:
        lines.append([f" {host.host.spec.name}", f"{host.host.facts.address} ({host.host.state})"])
    return lines


_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "386": "i686", "arm": "armv7l"}


def machine(arch: str) -> str:
    """As `uname -m` calls it."""
    return _MACHINES.get(arch, arch)


def _registries(own: str) -> dict[str, Any]:
    names = ["docker.io", *([own] if own else [])]
    known = {
        name: {"Name": name, "Mirrors": [], "Secure": True, "Official": name == "docker.io"} for name in names
    }
    return {
        "AllowNondistributableArtifactsCIDRs": None,
        "AllowNondistributableArtifactsHostnames": None,
        "InsecureRegistryCIDRs": [],
        "IndexConfigs": known,
        "Mirrors": None,
    }


def _swarm(fleet_id: str, hosts: Any) -> dict[str, Any]:
    first: HostInfo | None = hosts[0] if hosts else None
    address = first.host.facts.address if first is not None else ""
    ident = first.host.id if first is not None else ""
    return {
        "NodeID": ident,
        "NodeAddr": address,
        "LocalNodeState": "active",
        "ControlAvailable": True,
        "Error": "",
        "RemoteManagers": [{"NodeID": ident, "Addr": address}] if ident else None,
        "Nodes": len(hosts),
        "Managers": 1,
        "Cluster": {"ID": fleet_id, "Spec": {"Name": "default", "Labels": {}}},
    }
