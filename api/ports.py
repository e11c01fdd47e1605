"""What the API needs from a controller and from a host: two Protocols, and who the caller is.

`api` never imports `controller` or `agent`; their `main` modules hand an implementation in. Queries are
synchronous reads of an immutable snapshot; commands return once the change is durable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

from api.channels import Channel, Pipe
from api.imageports import HostImages
from model.api import (
    ConnectNetwork,
    CreateInstance,
    CreateRegistryToken,
    CreateToken,
    CreateVolume,
    DisconnectNetwork,
    FleetInfo,
    HostAway,
    HostInfo,
    InstanceInfo,
    JoinReply,
    JoinRequest,
    NetworkInfo,
    NetworksPruned,
    PolicyExplanation,
    PolicyInfo,
    PolicyQuestion,
    ProcessTable,
    RecoveryInfo,
    RegistryTokenCreated,
    ServiceInfo,
    StatsSample,
    StopRequest,
    TokenCreated,
    UpdateBandwidth,
    UpdateHost,
    UpdatePolicy,
    UpdatePorts,
    UpdateService,
    UpdateSettings,
    VolumeInfo,
    WaitCondition,
    WaitResult,
    Why,
)
from model.blobs import BlobPeers, BlobWord
from model.build import BuildPlace, Placed
from model.containerfiles import Change, CommitRequest, PathStat
from model.doctor import CheckUp, HostCheck
from model.events import Event
from model.health import HealthLog
from model.ids import HostId, InstanceId
from model.image import Progress
from model.leases import HostLeases
from model.limits import UpdateLimits
from model.own import OwnAct
from model.policy import PolicySpec
from model.records import FleetSettings, Network, RegistryToken
from model.registries import NOBODY, Login
from model.registrycopies import RegistryStatus, RepositoryInfo, TagInfo
from model.renewal import RenewReply, RenewRequest
from model.spec import NetworkSpec, ServiceSpec, Struct
from model.status import HostFacts
from model.streams import ExecSpec, Exit


class Identity(Struct):
    """Who is calling: from the TLS client certificate, or the owner of the unix socket's other end."""

    role: Literal["admin", "host", "anonymous"]
    id: str = ""
    """Host id for role `host`, user name for `admin`."""
    certificate: str = ""
    """Of role `host`: SHA-256 of the certificate, hex."""
    valid_from: float = 0.0
    """Of that certificate, unix seconds."""


class ControllerPort(Protocol):
    # -- plain containers ---------------------------------------------------------------------------
    def list_instances(self) -> Sequence[InstanceInfo]: ...

    def get_instance(self, ref: str) -> InstanceInfo: ...

    async def create_instance(self, request: CreateInstance, login: Login = NOBODY) -> InstanceInfo:
        """`login` is kept, sealed, for pulls of its image, as long as there is the container."""
        ...

    def login_for_pull(self, host: HostId, instance: InstanceId) -> Login:
        """Raises NotFound when the host has no such instance."""
        ...

    async def start_instance(self, ref: str, *, hold: bool = False) -> InstanceInfo:
        """`hold`: one that has ended is only made ready for its next attempt, which a client attaches to
        (`HostPort.attach`) and then starts."""
        ...

    async def stop_instance(self, ref: str, request: StopRequest) -> InstanceInfo:
        """Returns when the stop is durable; `wait_instance` tells when it has stopped."""
        ...

    async def restart_instance(self, ref: str, request: StopRequest) -> InstanceInfo: ...

    async def pause_instance(self, ref: str, *, paused: bool) -> InstanceInfo: ...

    async def remove_instance(self, ref: str, *, force: bool, volumes: bool) -> InstanceInfo: ...

    async def rename_instance(self, ref: str, name: str) -> InstanceInfo: ...

    async def update_ports(self, ref: str, request: UpdatePorts) -> InstanceInfo: ...

    async def update_limits(self, ref: str, request: UpdateLimits) -> InstanceInfo:
        """Returns when the wish is durable; `wait_instance` with `limited` tells when it has come about."""
        ...

    async def update_bandwidth(self, ref: str, request: UpdateBandwidth) -> InstanceInfo: ...

    async def wait_instance(self, ref: str, condition: WaitCondition) -> WaitResult:
        """`created`: its process is held, ready to attach and start; `stopped`: not running now; `wired`: its
        networks and ports are as wanted, or it doesn't run, or the message says why they can't be; `paused`,
        `unpaused`: so it is, or nobody wants it any more, or it doesn't run, or the message says why not."""
        ...

    # -- services -----------------------------------------------------------------------------------
    def list_services(self) -> Sequence[ServiceInfo]: ...

    def get_service(self, ref: str) -> ServiceInfo: ...

    async def create_service(self, spec: ServiceSpec, login: Login = NOBODY) -> ServiceInfo: ...

    async def update_service(
        self, ref: str, request: UpdateService, login: Login = NOBODY
    ) -> ServiceInfo: ...

    async def rollback_service(self, ref: str, revision: int = 0) -> ServiceInfo:
        """`revision`: as in `UpdateService`."""
        ...

    async def scale_service(self, ref: str, replicas: int) -> ServiceInfo: ...

    async def remove_service(self, ref: str) -> None: ...

    # -- hosts --------------------------------------------------------------------------------------
    def list_hosts(self) -> Sequence[HostInfo]: ...

    def get_host(self, ref: str) -> HostInfo: ...

    async def update_host(self, ref: str, request: UpdateHost) -> HostInfo: ...

    async def expect_away(self, ref: str, request: HostAway) -> None: ...

    async def remove_host(self, ref: str, *, force: bool) -> None: ...

    async def create_token(self, request: CreateToken) -> TokenCreated: ...

    async def join(self, request: JoinRequest) -> JoinReply: ...

    # -- the registry, and its logins -----------------------------------------------------------------
    async def registry_status(self) -> RegistryStatus: ...

    async def list_repositories(self) -> Sequence[RepositoryInfo]: ...

    async def list_repository_tags(self, repository: str) -> Sequence[TagInfo]: ...

    async def remove_registry_manifest(self, ref: str) -> None: ...

    async def create_registry_token(self, request: CreateRegistryToken) -> RegistryTokenCreated: ...

    def list_registry_tokens(self) -> Sequence[RegistryToken]: ...

    async def remove_registry_token(self, ref: str) -> None: ...

    # -- networks -----------------------------------------------------------------------------------
    def list_networks(self) -> Sequence[NetworkInfo]: ...

    def get_network(self, ref: str) -> NetworkInfo: ...

    async def create_network(self, spec: NetworkSpec) -> NetworkInfo: ...

    async def remove_network(self, ref: str) -> None: ...

    async def rotate_keys(self, ref: str) -> NetworkInfo:
        """Begin to change an encrypted network's keys. Raises WrongState for one that is not."""
        ...

    def diagnose(self, checks: Sequence[HostCheck], failed: Mapping[str, str]) -> CheckUp:
        """What the hosts' checks of their networks mean together; `failed`: host's name → why it has none."""
        ...

    async def prune_networks(self, chosen: Callable[[Network], bool]) -> NetworksPruned:
        """Remove those of the chosen networks that nobody uses."""
        ...

    async def connect_network(self, ref: str, request: ConnectNetwork) -> InstanceInfo:
        """Returns when the wish is durable; `wait_instance` with `wired` tells when it has come about."""
        ...

    async def disconnect_network(self, ref: str, request: DisconnectNetwork) -> InstanceInfo: ...

    # -- policies -----------------------------------------------------------------------------------
    def list_policies(self) -> Sequence[PolicyInfo]: ...

    def get_policy(self, ref: str) -> PolicyInfo: ...

    async def create_policy(self, spec: PolicySpec) -> PolicyInfo: ...

    async def update_policy(self, ref: str, request: UpdatePolicy) -> PolicyInfo: ...

    async def remove_policy(self, ref: str) -> None: ...

    def explain_policies(self, question: PolicyQuestion) -> PolicyExplanation: ...

    # -- the fleet ----------------------------------------------------------------------------------
    def info(self) -> FleetInfo: ...

    def get_settings(self) -> FleetSettings: ...

    async def update_settings(self, request: UpdateSettings) -> FleetSettings: ...

    def recovery(self) -> RecoveryInfo: ...

    async def admit_host(self, ref: str) -> HostInfo:
        """Let in a host that joined after the backup. Raises NotFound for one that does not knock."""
        ...

    async def settle(self) -> None:
        """Go on without the hosts that a restored fleet waits for. Raises WrongState where it doesn't."""
        ...

    def backup(self) -> AsyncIterator[bytes]:
        """An archive of all that the controller keeps, of one moment (`controller.backup`)."""
        ...

    def why(self, ref: str) -> Why: ...

    def events(self, since: float | None, until: float | None) -> AsyncIterator[Event]:
        """Kept events from `since` (unix seconds), then live ones until `until` (None: for ever)."""
        ...

    def locate_instance(self, ref: str) -> tuple[str, HostId]:
        """(full id, host) for calls that go to the host. Raises NotFound; WrongState when it has no host."""
        ...

    def locate_host(self, ref: str) -> HostId: ...

    def ready_hosts(self) -> Sequence[tuple[HostId, str]]:
        """(id, name) of every host in session."""
        ...

    def place_build(self, wish: BuildPlace) -> AbstractContextManager[tuple[HostId, Placed]]:
        """Which host is to build, and why it; until the block ends the build counts as one of that host's.
        Raises NotFound, Unavailable, InvalidInput."""
        ...

    async def open_pipe(self, host: HostId) -> Pipe:
        """A fresh connection to the host's own API. Raises Unavailable."""
        ...

    # -- agents -------------------------------------------------------------------------------------
    async def serve_session(
        self, host: HostId, certificate: str, channel: Channel, valid_from: float = 0.0
    ) -> None:
        """Speak `model.wire` with an agent until either side ends. The others: see `Identity`."""
        ...

    async def renew(self, host: HostId, certificate: str, request: RenewRequest) -> RenewReply:
        """The next certificate of a host that shows this one. Raises InvalidInput, and as `accept_pipe`."""
        ...

    def share_blob(self, host: HostId, certificate: str, word: BlobWord) -> BlobPeers:
        """What a host should do about a blob that it speaks of. Raises as `accept_pipe`."""
        ...

    def peers_for(self, host: HostId, digest: str, sources: Sequence[HostId]) -> BlobPeers:
        """Those hosts, which have this image, and a ticket for `host` to get it there. Raises NotFound."""
        ...

    async def accept_pipe(self, host: HostId, certificate: str, pipe: Pipe) -> None:
        """A host offers a connection for later use by `open_pipe`; returns when it is used up or gone. Raises
        NotFound, Forbidden for one that the fleet does not know (any more)."""
        ...


class AttachSession(Protocol):
    """A container's or exec's streams, on the host that runs it."""

    async def read(self) -> tuple[int, bytes] | None:
        """(streams.STDOUT | STDERR, data); None at the end."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def resize(self, rows: int, cols: int) -> None: ...

    async def signal(self, signal: int) -> None: ...

    async def finish(self) -> Exit:
        """After `read` gave None: how it ended."""
        ...

    async def close(self) -> None: ...


class HostPort(HostImages, Protocol):
    """One host's own API: acts on its containers and images, served by its agent. Refs are full instance ids
    or, on the host's own socket, names and prefixes."""

    def facts(self) -> HostFacts: ...

    def leases(self) -> HostLeases:
        """Addresses of its networks, by its own book."""
        ...

    async def examine_networks(self) -> HostCheck:
        """Set back what was changed, and ask all peers for answers."""
        ...

    async def act_on_own(self, ref: str, act: OwnAct) -> InstanceInfo:
        """On a container that was made on the host's own socket; others it refuses."""
        ...

    # -- containers ---------------------------------------------------------------------------------
    async def kill(self, ref: str, signal: str) -> None: ...

    async def attach(self, ref: str, *, stdin: bool, logs: bool, attempt: int = 0) -> AttachSession:
        """Waits until the container is created (30 s at most): a client attaches before the start. To that
        attempt, of which the host may not have heard yet, or to a later one."""
        ...

    async def exec(self, ref: str, spec: ExecSpec) -> AttachSession: ...

    def logs(
        self,
        ref: str,
        *,
        follow: bool,
        tail: int | None,
        since: float | None,
        until: float | None,
        timestamps: bool,
        stdout: bool = True,
        stderr: bool = True,
    ) -> AsyncIterator[tuple[int, bytes]]:
        """(stream, line or part of one). Ends at the last line; with `follow` at the container's end."""
        ...

    def stats(self, refs: Sequence[str], *, stream: bool) -> AsyncIterator[Sequence[StatsSample]]:
        """All containers for no refs; one batch a second with `stream`."""
        ...

    async def top(self, ref: str) -> ProcessTable: ...

    def health(self, ref: str) -> HealthLog: ...

    # -- files of containers ------------------------------------------------------------------------
    async def path_stat(self, ref: str, path: str) -> PathStat: ...

    def archive(self, ref: str, path: str) -> AsyncIterator[tuple[int, bytes]]:
        """The path as a tar with one entry at its top, in pieces of kind STDOUT."""
        ...

    async def extract(self, ref: str, path: str, *, replace: bool) -> AttachSession:
        """A tar, plain or compressed, into the directory `path`: written to the session. `replace`: a file
        may take a directory's place, and a directory a file's."""
        ...

    def export(self, ref: str) -> AsyncIterator[tuple[int, bytes]]:
        """The whole root as a tar, without what is mounted in it."""
        ...

    def changes(self, ref: str) -> AsyncIterator[Change]: ...

    def commit(self, ref: str, request: CommitRequest) -> AsyncIterator[Progress]:
        """An image of what it has become; the last line names it."""
        ...

    # -- volumes ------------------------------------------------------------------------------------
    def list_volumes(self) -> Sequence[VolumeInfo]: ...

    def get_volume(self, name: str) -> VolumeInfo: ...

    async def create_volume(self, request: CreateVolume) -> VolumeInfo: ...

    async def remove_volume(self, name: str, *, force: bool) -> None: ...

    async def prune_volumes(self, *, all_unused: bool) -> Mapping[str, int]:
        """Name → bytes freed."""
        ...
