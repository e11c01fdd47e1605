"""What `POST /containers/create` takes: Docker's types, and the table of their fields. Pure.

Source: Docker Engine API 1.51, "ContainerConfig", "HostConfig", "NetworkingConfig".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from api.docker.bodies import Body, Docker
from api.docker.fields import Field, Table, idle, partly, refused

Words = str | tuple[str, ...]
"""Go's StrSlice: one word may come as a text."""


class Health(Docker):
    """Durations in nanoseconds; 0: as the image says."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class Binding(Docker):
    host_ip: str = ""
    host_port: str = ""


class RestartWish(Docker):
    name: str = ""
    maximum_retry_count: int = 0


class LogWish(Docker):
    type: str = ""
    config: Mapping[str, str] = {}


class UlimitWish(Docker):
    name: str
    soft: int = 0
    hard: int = 0


class DevicePath(Docker):
    on_host: str = msgspec.field(name="PathOnHost", default="")
    in_container: str = msgspec.field(name="PathInContainer", default="")
    permissions: str = msgspec.field(name="CgroupPermissions", default="")


class DeviceWeight(Docker):
    path: str = ""
    weight: int = 0


class DeviceRate(Docker):
    path: str = ""
    rate: int = 0


class VolumeOptions(Docker):
    no_copy: bool = False
    labels: Mapping[str, str] = {}
    driver_config: Mapping[str, Any] = {}
    subpath: str = ""


class BindOptions(Docker):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class TmpfsOptions(Docker):
    size_bytes: int = 0
    mode: int = 0
    options: tuple[tuple[str, ...], ...] = ()


class MountWish(Docker):
    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class AddressWish(Docker):
    ipv4: str = msgspec.field(name="IPv4Address", default="")
    ipv6: str = msgspec.field(name="IPv6Address", default="")
    link_local: tuple[str, ...] = msgspec.field(name="LinkLocalIPs", default=())


class EndpointWords(Docker):
    """A container's foot on a network, as asked for."""

    ipam: AddressWish | None = msgspec.field(name="IPAMConfig", default=None)
    links: tuple[str, ...] | None = None
    aliases: tuple[str, ...] | None = None
    mac_address: str = ""
    driver_opts: Mapping[str, str] | None = None
    gw_priority: int = 0


class Networking(Docker):
    endpoints_config: Mapping[str, EndpointWords] = {}


class HostConfig(Docker):
    binds: tuple[str, ...] = ()
    log_config: LogWish = LogWish()
    network_mode: str = ""
    port_bindings: Mapping[str, tuple[Binding, ...] | None] = {}
    restart_policy: RestartWish = RestartWish()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: tuple[str, ...] = ()
    mounts: tuple[MountWish, ...] = ()
    annotations: Mapping[str, str] = {}
    cap_add: Words = ()
    cap_drop: Words = ()
    cgroupns_mode: str = ""
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    ipc_mode: str = ""
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: tuple[str, ...] = ()
    tmpfs: Mapping[str, str] = {}
    uts_mode: str = msgspec.field(name="UTSMode", default="")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: Mapping[str, str] = {}
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    blkio_weight: int = 0
    blkio_weight_device: tuple[DeviceWeight, ...] = ()
    blkio_device_read_bps: tuple[DeviceRate, ...] = ()
    blkio_device_write_bps: tuple[DeviceRate, ...] = ()
    blkio_device_read_iops: tuple[DeviceRate, ...] = msgspec.field(name="BlkioDeviceReadIOps", default=())
    blkio_device_write_iops: tuple[DeviceRate, ...] = msgspec.field(name="BlkioDeviceWriteIOps", default=())
    devices: tuple[DevicePath, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    oom_score_adj: int = 0
    oom_kill_disable: bool = False
    nano_cpus: int = 0
    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    pids_limit: int = 0
    ulimits: tuple[UlimitWish, ...] = ()
    init: bool = False
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None


class CreateBody(Docker):
    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: Mapping[str, Any] = {}
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] = ()
    cmd: Words | None = None
    healthcheck: Health | None = None
    image: str = ""
    volumes: Mapping[str, Any] = {}
    working_dir: str = ""
    entrypoint: Words | None = None
    network_disabled: bool = False
    mac_address: str = ""
    labels: Mapping[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None
    host_config: HostConfig = HostConfig()
    networking_config: Networking = Networking()


CONFIG: Table = (
    *(Field(name) for name in ("Hostname", "Domainname", "User", "Tty", "OpenStdin", "StdinOnce", "Cmd")),
    *(idle(f"Attach{name}", "who attaches says what it wants") for name in ("Stdin", "Stdout", "Stderr")),
    Field("ExposedPorts"),
    Field("Env"),
    Field("Healthcheck"),
    idle("ArgsEscaped", "of Windows"),
    Field("Image"),
    Field("Volumes"),
    Field("WorkingDir"),
    Field("Entrypoint"),
    Field("NetworkDisabled"),
    Field("MacAddress"),
    idle("OnBuild", "of images"),
    Field("Labels"),
    Field("StopSignal"),
    Field("StopTimeout"),
    idle("Shell", "of images"),
    Field("HostConfig"),
    Field("NetworkingConfig"),
)
_NO_REALTIME = "cgroup v2 has no such limit, nor have most kernels (CONFIG_RT_GROUP_SCHED)"
_NOT_YET = "flota has nothing like it yet"
HOST_CONFIG: Table = (
    partly("Binds", "z and Z mean nothing, as there is no SELinux label to set"),
    idle("ContainerIDFile", "a client's own file"),
    partly("LogConfig", "json-file with max-size and max-file (local is kept the same way), none"),
    Field("NetworkMode"),
    Field("PortBindings"),
    Field("RestartPolicy"),
    Field("AutoRemove"),
    partly("VolumeDriver", "local; any other only where no volume would be made by it"),
    partly("VolumesFrom", "on that one's host"),
    partly("Mounts", "of type bind, volume and tmpfs"),
    idle("ConsoleSize", "a client sets the size when it attaches"),
    Field("Annotations"),
    Field("CapAdd"),
    Field("CapDrop"),
    partly("CgroupnsMode", "private and host; on a host with cgroup v1 all see the host's"),
    *(Field(name) for name in ("Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "GroupAdd")),
    partly("IpcMode", "private and host"),
    refused("Cgroup", _NOT_YET),
    partly("Links", "on the network of NetworkMode, as by EndpointsConfig; not on the default bridge"),
    Field("OomScoreAdj"),
    partly("PidMode", "host"),
    Field("Privileged"),
    Field("PublishAllPorts"),
    Field("ReadonlyRootfs"),
    partly("SecurityOpt", "seccomp=unconfined, no-new-privileges, profile=docker|default|strict"),
    refused("StorageOpt", _NOT_YET),
    Field("Tmpfs"),
    partly("UTSMode", "private and host"),
    partly("UsernsMode", "host, as users are those of the host"),
    Field("ShmSize"),
    Field("Sysctls"),
    partly("Runtime", "runc"),
    partly("Isolation", "default; others are of Windows"),
    Field("CpuShares"),
    Field("CpuPeriod"),
    Field("CpuQuota"),
    refused("CpuRealtimePeriod", _NO_REALTIME),
    refused("CpuRealtimeRuntime", _NO_REALTIME),
    Field("CpusetCpus"),
    Field("CpusetMems"),
    Field("NanoCpus"),
    refused("CpuCount", "of Windows"),
    refused("CpuPercent", "of Windows"),
    refused("IOMaximumIOps", "of Windows"),
    refused("IOMaximumBandwidth", "of Windows"),
    Field("Memory"),
    partly("MemoryReservation", "set aside on a host when the container is placed; no limit that is felt"),
    Field("MemorySwap"),
    partly("MemorySwappiness", "on a host with cgroup v1"),
    refused("KernelMemory", "the kernel has it no more"),
    refused("KernelMemoryTCP", _NOT_YET),
    partly("OomKillDisable", "on a host with cgroup v1, together with Memory"),
    Field("PidsLimit"),
    Field("Ulimits"),
    refused("CgroupParent", "a host's own setting: flota agent --cgroup-parent"),
    Field("BlkioWeight"),
    *(Field(f"BlkioDevice{name}") for name in ("ReadBps", "WriteBps", "ReadIOps", "WriteIOps")),
    Field("BlkioWeightDevice"),
    Field("Devices"),
    Field("DeviceCgroupRules"),
    refused("DeviceRequests", "there are no device drivers: name the nodes in Devices"),
    Field("Init"),
    Field("MaskedPaths"),
    Field("ReadonlyPaths"),
)
NETWORKING: Table = (Field("EndpointsConfig"),)
ENDPOINT: Table = (
    Field("IPAMConfig"),
    partly("Links", "on networks of one's own; the default bridge has no names"),
    Field("Aliases"),
    Field("MacAddress"),
    partly(
        "DriverOpts",
        "com.docker.network.endpoint.ifname and com.docker.network.endpoint.sysctls, others of Docker's own "
        "are refused; of other names they mean nothing and are shown again",
    ),
    Field("GwPriority"),
    *(
        idle(name, "what an endpoint has, not what it should have")
        for name in (
            "NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway",
            "GlobalIPv6Address", "GlobalIPv6PrefixLen", "DNSNames",
        )
    ),
)  # fmt: skip
MOUNT: Table = (
    *(Field(name) for name in ("Type", "Source", "Target", "ReadOnly")),
    idle("Consistency", "of other systems than Linux"),
    partly("BindOptions", "Propagation and CreateMountpoint"),
    partly("VolumeOptions", "NoCopy and Labels"),
    Field("TmpfsOptions"),
    refused("ClusterOptions", _NOT_YET),
    refused("ImageOptions", _NOT_YET),
)

CREATE = Body(
    CreateBody,
    CONFIG,
    parts={"HostConfig": HOST_CONFIG, "NetworkingConfig": NETWORKING},
    items={"NetworkingConfig.EndpointsConfig": ENDPOINT, "HostConfig.Mounts": MOUNT},
    optional=False,
)
