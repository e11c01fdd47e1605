"""Bodies of the HTTP API: what its requests carry and its replies say. Pure.

Specs and records travel as they are; here is only what wraps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from model.events import Event
from model.ids import HostId
from model.image import ImageRecord
from model.policy import PolicyProtocol, PolicySpec
from model.records import Block, Condition, Host, Instance, Network, Policy, RegistryToken, Service
from model.spec import (
    Availability,
    ContainerSpec,
    EndpointWish,
    Placement,
    Publish,
    Reservations,
    ServiceSpec,
    Struct,
    VolumeSpec,
)
from model.status import InstanceStatus, VolumeReport


class CreateInstance(Struct):
    spec: ContainerSpec
    name: str = ""
    """Empty: one is invented."""
    placement: Placement = Placement()
    host: str = ""
    """Id or name of the host it must run on; empty: the scheduler's choice."""
    start: bool = False
    """False: created, to be started later (attach first)."""


class InstanceInfo(Struct):
    instance: Instance
    status: InstanceStatus
    host_name: str = ""
    explanation: tuple[str, ...] = ()
    """Why it is as it is: placement, phase, conditions; newest last."""
    origin: Literal["fleet", "host"] = "fleet"
    """`host`: made on that host's own socket, whose journal decides what becomes of it."""


class StopRequest(Struct):
    grace: float | None = None
    signal: str = ""


WaitCondition = Literal[
    "created", "running", "stopped", "removed", "next-exit", "wired", "limited", "paused", "unpaused"
]


class WaitResult(Struct):
    exit_code: int | None
    phase: str
    message: str = ""


class UpdateService(Struct):
    """Replace a service's spec. `revision` is the one it was read at; another writer in between is a 409."""

    spec: ServiceSpec
    revision: int = 0
    """0: whatever it is now."""


class ServiceInfo(Struct):
    service: Service
    running: int
    """Instances that are ready: with a health check, those that are healthy."""
    wanted: int
    instances: tuple[InstanceInfo, ...] = ()
    explanation: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """Of the command that made or changed it."""


class HostInfo(Struct):
    host: Host
    connected: bool = False
    instances: int = 0
    reserved: Reservations = Reservations()
    conditions: tuple[str, ...] = ()


class UpdateHost(Struct):
    availability: Availability | None = None
    labels_set: Mapping[str, str] = {}
    labels_remove: tuple[str, ...] = ()
    revision: int = 0
    """The one it was read at, another writer in between is a 409; 0: whatever it is now."""


class HostAway(Struct):
    """A host's agent is about to be started again."""

    seconds: float
    """For which its silence is no loss; 600 at most. Its next session ends that."""


class BlockUsage(Struct):
    """How full a host's share of a subnet is. An IPv6 share has 65536 usable addresses at most."""

    cidr: str
    host: str
    """Its name."""
    size: int
    """Addresses that containers can have."""
    used: int
    """Those that containers have now."""
    free: int
    quarantined_until: float = 0.0
    fixed: bool = False
    """One address that is somebody's, wherever it runs; it may lie within a share."""
    resting: int = 0
    """Given back so lately that nobody gets them yet."""
    leaked: int = 0
    """Held on the host by somebody who is not there any more."""
    untold: bool = False
    """Its host could not be asked for the last two."""


class NetworkInfo(Struct):
    network: Network
    blocks: tuple[Block, ...] = ()
    usage: tuple[BlockUsage, ...] = ()
    """Of the blocks; told of one network, not in lists."""
    strangers: Mapping[str, str] = {}
    """Addresses that machines of the site have, and which host met them there with which MAC."""
    endpoints: Mapping[str, str] = {}
    """Instance name → its addresses on this network, comma separated."""


class ConnectNetwork(Struct):
    """Put a container on a network, or take it off."""

    container: str
    endpoint: EndpointWish = EndpointWish()


class DisconnectNetwork(Struct):
    container: str
    force: bool = False
    """Also while its host can't be asked, and without a complaint if it is not on the network."""


class UpdatePorts(Struct):
    """Change what a plain container publishes, also while it runs. A port is taken away by what it leads to:
    container port and protocol, and host port and address where they are given."""

    add: tuple[Publish, ...] = ()
    remove: tuple[Publish, ...] = ()


class UpdateBandwidth(Struct):
    """Change the limits of a plain container's endpoint, also while it runs. None stays as it is."""

    network: str = ""
    """Id or name; empty: the only one it is on."""
    bandwidth_in: int | None = None
    """Bits a second, as in an EndpointWish."""
    bandwidth_out: int | None = None


class NetworksPruned(Struct):
    removed: tuple[str, ...]
    """Names."""


class PolicyInfo(Struct):
    policy: Policy
    selected: tuple[str, ...] = ()
    """Names of the containers that it selects now."""


class UpdatePolicy(Struct):
    """Replace a policy's spec. `revision` is the one it was read at; another writer in between is a 409."""

    spec: PolicySpec
    revision: int = 0
    """0: whatever it is now."""


class PolicyQuestion(Struct):
    """May `source` speak with `target`? Each is a container, a service (one of its containers) or an
    address."""

    source: str
    target: str
    port: int = 0
    """0: any."""
    protocol: PolicyProtocol = "tcp"


class PolicyExplanation(Struct):
    allowed: bool
    """On one network at least."""
    lines: tuple[str, ...] = ()
    """Per network the verdict, then what decides at either end."""


class CreateVolume(Struct):
    spec: VolumeSpec = VolumeSpec()


class VolumeInfo(Struct):
    volume: VolumeReport
    host: str
    mountpoint: str = ""
    used_by: tuple[str, ...] = ()


class ImageInfo(Struct):
    image: ImageRecord
    host: str = ""
    containers: int = 0


class PullLogin(Struct):
    """Who a host is at the registry of an image that it is to pull."""

    login: str = ""
    """As in the header of requests (`model.registries`); empty: nobody."""


class FoundImage(Struct):
    name: str
    description: str = ""
    stars: int = 0
    official: bool = False


class ImageRemoved(Struct):
    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    host: str = ""
    freed: int = 0
    """Bytes on disk, about, that went with them."""
    spared: Mapping[str, str] = {}
    """Images that would have gone, and why each stays."""


class FleetInfo(Struct):
    name: str
    fleet_id: str
    version: str
    revision: int
    hosts: int
    hosts_ready: int
    services: int
    instances: int
    instances_running: int
    store: str = ""
    release: str = ""
    """That the controller runs from; empty: it was not installed by flota."""
    registry: str = ""
    """The fleet's own, if it serves one: host:port."""
    storage_drivers: tuple[str, ...] = ()
    """`DRIVER on HOST, HOST: why`."""


class UpdateSettings(Struct):
    """What is None stays."""

    vxlan_port: int | None = None
    vni_range: tuple[int, int] | None = None
    """First and last; of new networks."""
    source_ports: tuple[int, int] | None = None
    """Zeros: the kernel's choice."""
    image_gc_high: int | None = None
    image_gc_low: int | None = None
    image_keep: int | None = None
    image_min_age: float | None = None
    """These as in `model.image.ImageKeeping`."""
    build_cache_size: int | None = None
    build_cache_age: float | None = None
    build_cache_free: int | None = None
    """These as in `model.buildcache.CacheKeeping`."""


class Knock(Struct):
    """A host with a certificate of this fleet that a restored state does not know."""

    id: HostId
    name: str
    address: str = ""
    seen_at: float = 0.0


class RecoveryInfo(Struct):
    """How far a restored fleet is; names of hosts."""

    restored_at: float = 0.0
    """0: it never was."""
    taken_at: float = 0.0
    awaited: tuple[str, ...] = ()
    unheard: tuple[str, ...] = ()
    knocks: tuple[Knock, ...] = ()


class CreateToken(Struct):
    ttl: float = 86400.0
    """Seconds; 0: does not expire."""
    once: bool = False
    """One host joins by it."""
    replaces: str = ""
    """Name or id of a host whose place the one that joins takes; it is good once, for that name alone."""


class CreateRegistryToken(Struct):
    name: str
    scope: Literal["pull", "push", "delete"] = "pull"
    prefix: str = ""
    ttl: float = 0.0
    """Seconds; 0: does not expire."""


class RegistryTokenCreated(Struct):
    token: RegistryToken
    secret: str
    """The password of a login; any user name does. Shown once."""
    registry: str = ""
    """Where the registry is, if there is one: host:port."""


class TokenCreated(Struct):
    id: str
    token: str
    """Shown once; only its hash is kept."""
    expires_at: float
    join_command: str = ""


class JoinRequest(Struct):
    """From a host without a certificate. `csr` is PEM; the answered certificate names the host."""

    secret: str
    csr: str
    name: str
    address: str = ""
    labels: Mapping[str, str] = {}
    certificate: str = ""
    """PEM: of a host that was a member as `name` before."""
    proof: str = ""
    """Base64: `csr`, signed by the key of that certificate."""


class JoinReply(Struct):
    host_id: str
    fleet_id: str
    certificate: str
    """PEM, leaf first, then the CA."""
    ca: str


class StatsSample(Struct):
    """One reading of a container's cgroup, absolute counters."""

    instance: str
    name: str
    at: float
    cpu_ns: int = 0
    online_cpus: int = 1
    memory: int = 0
    """Bytes in use without the page cache that can go (docker's figure)."""
    memory_limit: int = 0
    pids: int = 0
    pids_limit: int = 0
    network_rx: int = 0
    network_tx: int = 0
    block_read: int = 0
    block_write: int = 0
    host: str = ""


class ProcessTable(Struct):
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Why(Struct):
    """The answer of `flota why`: what the object is, and each decision about it with its reason."""

    kind: Literal["instance", "service", "node", "network"]
    id: str
    name: str
    summary: str
    reasons: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    conditions: tuple[Condition, ...] = ()
