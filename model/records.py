"""The controller's records: what its store holds. Pure.

Sole writers: API commands and the reconcile loop. `revision` is set by the store at each commit and is
what an optimistic write must name. Nothing reported by hosts is in here but what decisions rest on.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from model.buildcache import CacheKeeping
from model.ids import HostId, InstanceId, NetworkId, PolicyId, ServiceId
from model.image import ImageKeeping
from model.policy import PolicySpec
from model.spec import (
    ContainerSpec,
    EndpointWish,
    HostSpec,
    NetworkSpec,
    Placement,
    Publish,
    ServiceSpec,
    Struct,
)
from model.status import HostFacts, HostState
from model.tunnels import KeyPhase, TunnelEnd

Revision = int


class Desired(StrEnum):
    """What an instance should be. `removed` is final; its record goes once its host says so."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    REMOVED = "removed"


class ResolvedAttachment(EndpointWish, kw_only=True):
    """An attachment with its network found; wishes for addresses kept."""

    network: NetworkId


class Instance(Struct):
    """One placed copy. A service's is replaced, never edited; a plain container lives over stop/start."""

    id: InstanceId
    name: str
    spec: ContainerSpec
    placement: Placement = Placement()
    service: ServiceId | None = None
    service_name: str = ""
    slot: int = 0
    """Replica number from 1 in a replicated service; 0 for global and plain ones."""
    generation: int = 0
    """Of the service spec it was made from."""
    host: HostId | None = None
    pinned: bool = False
    """The user chose the host (`run --node`, or a global service's instance)."""
    desired: Desired = Desired.RUNNING
    attempt: int = 1
    """Counts starts asked for by people; the agent starts again when it rises."""
    stop_signal: str = ""
    stop_grace: float | None = None
    """Of the last stop request, where it differs from the spec."""
    force: bool = False
    """With `removed`: kill without grace."""
    remove_volumes: bool = False
    """With `removed`: anonymous volumes go too."""
    idle: bool = False
    """With `removed`: it was stopped before, so it holds nothing of its host (memory, ports) any more."""
    attachments: tuple[ResolvedAttachment, ...] = ()
    """The networks it should be on now, in their order; a plain container's are edited while it lives."""
    created_at: float = 0.0
    reason: str = ""
    """Why it was made, moved, is pending or being removed; for `why`."""
    revision: Revision = 0


class Condition(Struct):
    """One standing fact about a service or network, e.g. that an instance can't be placed and why."""

    type: str
    message: str
    since: float = 0.0


class Vip(Struct):
    """A service's address on one network, on every host that carries it."""

    ipv4: str = ""
    ipv6: str = ""


class Rollout(Struct):
    """How the last change of a service's instances goes, in Docker's words. `paused` and `rollback_paused`
    wait for a person."""

    state: Literal[
        "updating", "paused", "completed", "rollback_started", "rollback_paused", "rollback_completed"
    ] = "updating"
    started_at: float = 0.0
    generation: int = 0
    """Of the service with which it began: it brings what is made from that one or a later one."""
    completed_at: float = 0.0
    message: str = ""


class Service(Struct):
    id: ServiceId
    spec: ServiceSpec
    vips: Mapping[NetworkId, Vip] = {}
    ingress: tuple[Publish, ...] = ()
    """Its ports of that mode, each with its number."""
    former_images: tuple[str, ...] = ()
    """That it was made of before, the last one first; bounded."""
    generation: int = 1
    previous: ServiceSpec | None = None
    """What `rollback` brings back."""
    rollout: Rollout | None = None
    """None: it runs as it was made."""
    created_at: float = 0.0
    updated_at: float = 0.0
    removed: bool = False
    """Being removed: its instances go first."""
    conditions: tuple[Condition, ...] = ()
    revision: Revision = 0


class Host(Struct):
    id: HostId
    spec: HostSpec
    facts: HostFacts
    state: HostState = HostState.JOINING
    """The liveness loop's verdict, durable because replacements rest on it."""
    state_reason: str = ""
    joined_at: float = 0.0
    certificate: str = ""
    """SHA-256 of its current certificate, hex; an older one is refused."""
    renewal: str = ""
    """SHA-256 of the certificate that is to follow it: made, and not yet seen in use."""
    tunnels: Mapping[NetworkId, tuple[TunnelEnd, ...]] = {}
    """Its ends of encrypted networks: peers need them, whether it is in session or not."""
    revision: Revision = 0


class Network(Struct):
    """`spec.subnets` is resolved here: never empty for a network that has addresses."""

    id: NetworkId
    spec: NetworkSpec
    vni: int = 0
    """VXLAN network identifier, 0 for networks without."""
    vip_ranges: tuple[str, ...] = ()
    """In which its services' addresses lie, one per family: a container that is on several networks finds
    each network's services behind that network's gateway."""
    keys: KeyPhase = KeyPhase()
    """Of an encrypted network."""
    keyed_at: float = 0.0
    """When its keys were changed last, or made."""
    predefined: bool = False
    created_at: float = 0.0
    revision: Revision = 0


class Block(Struct):
    """A host's share of a network's subnet, leased by the controller. Keyed by (network, cidr).

    With a `holder` it is a fixed address: one address that is an instance's, wherever it runs. It may lie
    within the share of another host."""

    network: NetworkId
    cidr: str
    host: HostId
    """Of a fixed address: where its holder is, or was last."""
    leased_at: float = 0.0
    quarantined_until: float = 0.0
    """> 0: its host is gone; not to be leased before this time."""
    holder: str = ""
    """Whose fixed address it is: an instance's id, or `service id/replica` (`controller.fixed`)."""
    awaits: HostId | None = None
    """A host that may have given this address to somebody else; until it says that it has not, the address
    is nobody's."""
    number: int = 0
    """Of the ingress network, from 1: published ports are open on its host, and other hosts lead answers back
    there by it."""
    revision: Revision = 0

    @property
    def key(self) -> str:
        return f"{self.network}/{self.cidr}"

    @property
    def address(self) -> str:
        """Of a fixed address, without prefix length."""
        return self.cidr.partition("/")[0]


class Policy(Struct):
    id: PolicyId
    spec: PolicySpec
    created_at: float = 0.0
    updated_at: float = 0.0
    revision: Revision = 0


class KeptLogin(Struct):
    """Who hosts are at a registry for one service's or plain container's sake. Only the controller can open
    it, by a key that is not in the store, and it is in nothing that the API shows."""

    id: str
    """Its owner's: a service's or an instance's."""
    registry: str
    sealed: bytes
    revision: Revision = 0


class JoinToken(Struct):
    """Only the hash of a token is stored."""

    id: str
    secret_hash: str
    created_at: float = 0.0
    expires_at: float = 0.0
    """0: never."""
    once: bool = False
    """It goes with the first host that joins by it."""
    replaces: HostId = HostId("")
    """The host whose record it is for; empty: a new one's."""
    role: Literal["host"] = "host"
    revision: Revision = 0


class Recovery(Struct):
    """The state came out of a backup: hosts may have been told more since."""

    revision: int
    """Of the backup."""
    taken_at: float
    restored_at: float
    awaited: tuple[HostId, ...] = ()
    """Until all of these have said what they were told last, nothing is decided and no host told anything."""
    unheard: tuple[HostId, ...] = ()
    """To be asked when they come, but nobody waits for them."""


class RegistryToken(Struct):
    """A login of the fleet's registry for programs that have no certificate. Only its hash is stored."""

    id: str
    name: str
    secret_hash: str = ""
    scope: Literal["pull", "push", "delete"] = "pull"
    """Each includes the ones before it."""
    prefix: str = ""
    """The repository, and those below it, that it is for; empty: all."""
    created_at: float = 0.0
    expires_at: float = 0.0
    """0: never."""
    revision: Revision = 0


class FleetSettings(Struct):
    """One record, key `fleet`."""

    id: str = "fleet"
    name: str = "flota"
    fleet_id: str = ""
    address_pools: tuple[str, ...] = ("10.128.0.0/9",)
    subnet_prefix: int = 16
    vxlan_port: int = 4789
    vni_first: int = 4096
    vni_last: int = 1_048_575
    source_ports: tuple[int, int] = (0, 0)
    """First and last UDP port that tunnels send from (RFC 7348, 5); zeros: the kernel's choice."""
    security_profile: Literal["docker", "default", "strict"] = "default"
    labels: Mapping[str, str] = {}
    images: ImageKeeping = ImageKeeping()
    build_cache: CacheKeeping = CacheKeeping()
    recovery: Recovery | None = None
    """None: the state is its own controller's."""
    restored_at: float = 0.0
    """When it came out of a backup last: hosts that it doesn't know may have joined before that."""
    revision: Revision = 0


Record = (
    Instance
    | Service
    | Host
    | Network
    | Block
    | Policy
    | JoinToken
    | RegistryToken
    | KeptLogin
    | FleetSettings
)
