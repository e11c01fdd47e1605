"""What users ask for: container, service, network, volume and host specs. Pure.

A spec is immutable and complete: names are not yet resolved, defaults are the field defaults below.
Units: bytes, nano-cpus, seconds. Field names are those of the API's JSON. `model.validate` holds the
rules that types alone can't express; nothing is stored before it has passed them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, dataclass_transform

import msgspec


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class _FrozenMeta(msgspec.StructMeta):
    """Tells type checkers that frozen and keyword-only are inherited, as they are at run time."""


class Struct(msgspec.Struct, metaclass=_FrozenMeta, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every value in this package."""


Protocol = Literal["tcp", "udp", "sctp"]
ProxyProtocol = Literal["", "v1", "v2"]
"""Version of the header that tells a container who asks."""


class BlkioDevice(Struct):
    """Limits on one block device of the host, `path`. 0 means none; rates are per second."""

    path: str
    weight: int = 0
    read_bps: int = 0
    write_bps: int = 0
    read_iops: int = 0
    write_iops: int = 0


class Resources(Struct):
    """Limits, felt by the container. 0 means unlimited."""

    nano_cpus: int = 0
    memory: int = 0
    memory_swap: int = 0
    """Memory plus swap, in bytes; 0: the same as `memory` × 2 where swap is counted; -1: unlimited."""
    pids: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory_swappiness: int = -1
    """0 to 100; -1: the kernel's own. Cgroup v1 alone has it, as `oom_kill_disable`."""
    oom_kill_disable: bool = False
    blkio_weight: int = 0
    """10 to 1000."""
    blkio_devices: tuple[BlkioDevice, ...] = ()


class Reservations(Struct):
    """What the scheduler sets aside on a host; limits nothing."""

    nano_cpus: int = 0
    memory: int = 0


class Ulimit(Struct):
    name: str
    soft: int
    hard: int


class DeviceWish(Struct):
    """A device node of the host, or each one under a directory of it, in the container as `target`."""

    source: str
    target: str
    permissions: str = "rwm"
    """Of r (read), w (write) and m (mknod)."""


class Mount(Struct):
    """One mount. `source` is a host path (bind), a volume name, or empty (anonymous volume, tmpfs)."""

    type: Literal["bind", "volume", "tmpfs"]
    target: str
    source: str = ""
    read_only: bool = False
    propagation: Literal["", "private", "rprivate", "shared", "rshared", "slave", "rslave"] = ""
    no_copy: bool = False
    labels: Mapping[str, str] = {}
    """Of the volume, if it is made for this mount."""
    create_source: bool = False
    """Make a missing bind source as a directory (`-v`); without it that is an error (`--mount`)."""
    tmpfs_size: int = 0
    tmpfs_mode: int = 0o1777
    tmpfs_options: tuple[str, ...] = ()
    """More tmpfs words for `--tmpfs path:opts`, e.g. `noexec`."""


class Publish(Struct):
    """One published port. `published` 0 means a free one of the host's choice, with `published_to` one from
    there to that.

    mode `host`: on the host where the container runs. mode `ingress`: on every host, of services only; a free
    number is the fleet's choice then.
    """

    target: int
    published: int = 0
    published_to: int = 0
    protocol: Protocol = "tcp"
    host_ip: str = ""
    mode: Literal["host", "ingress"] = "host"
    allow: tuple[str, ...] = ()
    """Ranges of clients that reach it, the host's own addresses included; empty: everybody."""
    proxy_protocol: ProxyProtocol = ""
    """Each connection begins with this header; tcp only."""
    on: tuple[str, ...] = ()
    """Mode `ingress`: constraints (see `Placement`) on the hosts where it is open; empty: on all."""


class EndpointWish(Struct):
    """How a container's foot on a network should be; addresses are asked for, not promised."""

    aliases: tuple[str, ...] = ()
    links: Mapping[str, str] = {}
    """Names that it alone has for others on the network: alias → name or id, which need not be there yet."""
    ipv4: str = ""
    """In a service's spec several, see `model.addressranges`: replica N gets the Nth, wherever it runs."""
    ipv6: str = ""
    keep_address: bool = False
    """In a service's spec: each replica gets addresses of the network's choice that stay its own, through
    updates and wherever it runs."""
    mac: str = ""
    ifname: str = ""
    """Of the interface inside; empty: the lowest free ethN."""
    sysctls: Mapping[str, str] = {}
    """Of that interface, its own name written IFNAME: `net.ipv4.conf.IFNAME.log_martians`."""
    priority: int = 0
    """The network of the highest one is the way out; among equals the first."""
    bandwidth_in: int = 0
    """Bits a second that are sent to it at most; 0: no limit."""
    bandwidth_out: int = 0
    """Bits a second that it sends at most; 0: no limit."""
    driver_opts: Mapping[str, str] = {}
    """Options that Docker's clients gave and that mean nothing here: shown again."""


class Attachment(EndpointWish, kw_only=True):
    """A wish to be on a network, named by id or name."""

    network: str


class RestartPolicy(Struct):
    """`max_attempts` 0 means without end. The delay doubles from `delay` up to `max_delay` and falls back
    once a run lasted `window` seconds."""

    condition: Literal["no", "on-failure", "always", "unless-stopped"] = "no"
    max_attempts: int = 0
    delay: float = 0.1
    max_delay: float = 60.0
    window: float = 10.0


class LogOptions(Struct):
    """Rotation of the log file, on by default: 3 files of 10 MiB. driver `none`: nothing is kept."""

    driver: Literal["file", "none"] = "file"
    max_size: int = 10 << 20
    max_files: int = 3


class ExecProbe(Struct, tag_field="type", tag="exec"):
    """Healthy if this program, run in the container, exits with 0."""

    args: tuple[str, ...]


class ShellProbe(Struct, tag_field="type", tag="shell"):
    """As `ExecProbe`, by the image's shell."""

    command: str


class TcpProbe(Struct, tag_field="type", tag="tcp"):
    """Healthy if the port takes a connection. Tried by the agent from within the container's network; nothing
    runs in the container."""

    port: int


class HttpProbe(Struct, tag_field="type", tag="http"):
    """As `TcpProbe`: healthy if GET of the path is answered with a status of 200 to 399."""

    port: int
    path: str = "/"


Probe = ExecProbe | ShellProbe | TcpProbe | HttpProbe


class HealthCheck(Struct):
    """How to tell whether a container is well. Whatever is None or 0 is as the image says, and without its
    word Docker's default (`agent.probe`). Times in seconds."""

    probe: Probe | None = None
    disabled: bool = False
    """No check, whatever the image says."""
    interval: float = 0.0
    timeout: float = 0.0
    retries: int = 0
    start_period: float = 0.0
    start_interval: float = 0.0


class ContainerSpec(Struct):
    """Everything that `flota run` takes. None means: as the image says."""

    image: str
    args: tuple[str, ...] | None = None
    """Replaces the image's CMD."""
    entrypoint: tuple[str, ...] | None = None
    """Replaces the image's ENTRYPOINT and drops its CMD; () clears it."""
    env: Mapping[str, str] = {}
    env_remove: tuple[str, ...] = ()
    """Variables of the image that it is not to have."""
    workdir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    said: Mapping[str, str] = {}
    """See `model.dockerwords`; it decides nothing."""
    tty: bool = False
    stdin: bool = False
    """Keep stdin open even if nobody is attached (`-i`)."""
    stdin_once: bool = False
    """Close stdin when the first attached client leaves (`run -i`)."""
    mounts: tuple[Mount, ...] = ()
    read_only: bool = False
    resources: Resources = Resources()
    oom_score_adj: int = 0
    devices: tuple[DeviceWish, ...] = ()
    device_rules: tuple[str, ...] = ()
    """What else it may use, as cgroup v1 writes it: `c 10:200 rwm`, `b 8:* r`."""
    ulimits: tuple[Ulimit, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_profile: Literal["", "docker", "default", "strict"] = ""
    """Empty: the fleet's default."""
    seccomp: Literal["", "unconfined"] = ""
    no_new_privileges: bool | None = None
    sysctls: Mapping[str, str] = {}
    init: bool = False
    shm_size: int = 64 << 20
    networks: tuple[Attachment, ...] = ()
    """Empty: the predefined `bridge`. One attachment named `host`, `none` or `container:NAME` is a mode."""
    ports: tuple[Publish, ...] = ()
    publish_all: bool = False
    expose: tuple[str, ...] = ()
    """Ports beside those that the image names for `publish_all`: `80`, `53/udp`, `3000-3005/tcp`."""
    extra_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    pid_mode: Literal["", "host"] = ""
    ipc_mode: Literal["", "host"] = ""
    uts_mode: Literal["", "host"] = ""
    """host: the host's own name, which it can't have another of."""
    cgroup_namespace: Literal["", "host"] = ""
    """host: it sees the host's cgroups; empty: its own alone, where cgroup v2 is."""
    masked_paths: tuple[str, ...] | None = None
    """Paths that it can't see into; None: the usual ones."""
    readonly_paths: tuple[str, ...] | None = None
    restart: RestartPolicy = RestartPolicy()
    stop_signal: str = ""
    stop_grace: float = 10.0
    drain: float = 1.0
    """Seconds between the end of new connections and the stop signal, for an instance of a service: requests
    that are shorter never fail when it is replaced."""
    auto_remove: bool = False
    log: LogOptions = LogOptions()
    health: HealthCheck | None = None
    pull: Literal["missing", "always", "never"] = "missing"
    platform: str = ""


class Placement(Struct):
    """Where instances may go. Constraints are `node.labels.zone==a`, `node.hostname!=x`, `node.id==…`,
    `node.platform.arch==amd64`, `node.platform.os==linux`."""

    constraints: tuple[str, ...] = ()
    max_per_host: int = 0
    strategy: Literal["spread", "binpack"] = "spread"
    reservations: Reservations = Reservations()


class Replicated(Struct, tag_field="mode", tag="replicated"):
    replicas: int = 1


class Global(Struct, tag_field="mode", tag="global"):
    """One instance on every host that passes the constraints."""


ServiceMode = Replicated | Global


class UpdatePolicy(Struct):
    """How instances of an old generation are replaced."""

    parallelism: int = 1
    """Seats at a time that are not ready for it; 0: all."""
    delay: float = 0.0
    order: Literal["stop-first", "start-first"] = "stop-first"
    failure_action: Literal["pause", "continue", "rollback"] = "pause"
    monitor: float = 5.0
    """Seconds for which the last new one must stay ready until the update counts as done."""
    max_failure_ratio: float = 0.0
    """The share of seats whose new instance may fail before `failure_action` is taken."""


Balance = Literal["round-robin", "random", "source-hash", "sticky"]
"""Which member a new connection to a service's address gets. source-hash: by the client's address. sticky:
the one that the client had last, for a while."""


class ServiceSpec(Struct):
    """`endpoint_mode` vip: the service's name leads to one address, which balances over its ready instances.
    dnsrr: the name leads to the instances' own addresses."""

    name: str
    container: ContainerSpec
    mode: ServiceMode = Replicated()
    placement: Placement = Placement()
    update: UpdatePolicy = UpdatePolicy()
    rollback: UpdatePolicy = UpdatePolicy()
    """How a change is taken back, by hand or because it failed."""
    endpoint_mode: Literal["vip", "dnsrr"] = "vip"
    balance: Balance = "round-robin"
    labels: Mapping[str, str] = {}
    may_end: bool = False
    """Its instances may end for good: `container.restart` is meant to be `no`. Without this word a service
    whose policy says nothing keeps its instances up."""


class Subnet(Struct):
    """One address range of a network; `gateway` empty: its first address."""

    cidr: str
    gateway: str = ""
    ip_range: str = ""
    exclude: tuple[str, ...] = ()


class NetworkSpec(Struct):
    """`driver` overlay spans hosts, bridge stays on each host. Options are strings, as in `--opt k=v`; which
    there are is in `model.netoptions`."""

    name: str
    driver: str = "overlay"
    subnets: tuple[Subnet, ...] = ()
    """Empty: one from the fleet's address pool."""
    ipv6: bool = False
    internal: bool = False
    options: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    ipam: Literal["", "dhcp"] = ""
    """dhcp: IPv4 addresses are the site's DHCP server's to give, and each endpoint's IPv6 address is made of
    its MAC; otherwise the fleet's."""


class VolumeSpec(Struct):
    name: str = ""
    """Empty: an anonymous volume with a 64-digit name."""
    driver: Literal["local"] = "local"
    labels: Mapping[str, str] = {}
    options: Mapping[str, str] = {}


class Availability(StrEnum):
    """active: takes work. pause: keeps what it has, takes nothing new.
    drain: its service instances go elsewhere."""

    ACTIVE = "active"
    PAUSE = "pause"
    DRAIN = "drain"


class HostSpec(Struct):
    name: str
    labels: Mapping[str, str] = {}
    availability: Availability = Availability.ACTIVE
