"""What requests about services and nodes take: Docker's types, and the tables of their fields. Pure.

Source: Docker Engine API 1.51, "ServiceSpec", "TaskSpec", "NodeSpec". Durations are nanoseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from api.docker.bodies import Body, Docker
from api.docker.containers.body import MOUNT, Health, MountWish, UlimitWish
from api.docker.fields import Field, Table, idle, partly, refused


class DnsWords(Docker):
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class ModeOf(Docker):
    """Seccomp's and AppArmor's."""

    mode: str = ""


class Privileges(Docker):
    seccomp: ModeOf = ModeOf()
    app_armor: ModeOf = ModeOf()
    selinux: Mapping[str, Any] = msgspec.field(name="SELinuxContext", default={})
    no_new_privileges: bool = False


class ContainerWords(Docker):
    image: str = ""
    labels: Mapping[str, str] = {}
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    hostname: str = ""
    env: tuple[str, ...] = ()
    dir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    privileges: Privileges = Privileges()
    init: bool = False
    tty: bool = msgspec.field(name="TTY", default=False)
    open_stdin: bool = False
    read_only: bool = False
    mounts: tuple[MountWish, ...] = ()
    stop_signal: str = ""
    stop_grace_period: int | None = None
    healthcheck: Health | None = None
    hosts: tuple[str, ...] = ()
    dns: DnsWords = msgspec.field(name="DNSConfig", default=DnsWords())
    sysctls: Mapping[str, str] = {}
    capability_add: tuple[str, ...] = ()
    capability_drop: tuple[str, ...] = ()
    ulimits: tuple[UlimitWish, ...] = ()


class Limits(Docker):
    nano_cpus: int = msgspec.field(name="NanoCPUs", default=0)
    memory: int = msgspec.field(name="MemoryBytes", default=0)
    pids: int = 0


class Reserved(Docker):
    nano_cpus: int = msgspec.field(name="NanoCPUs", default=0)
    memory: int = msgspec.field(name="MemoryBytes", default=0)


class ResourceWords(Docker):
    limits: Limits = Limits()
    reservations: Reserved = Reserved()


class RestartWords(Docker):
    condition: str = ""
    delay: int | None = None
    max_attempts: int = 0
    window: int | None = None


class PlacementWords(Docker):
    constraints: tuple[str, ...] = ()
    max_replicas: int = 0


class NetworkWords(Docker):
    target: str = ""
    aliases: tuple[str, ...] | None = None


class DriverWords(Docker):
    name: str = ""
    options: Mapping[str, str] = {}


class TaskWords(Docker):
    container_spec: ContainerWords = ContainerWords()
    resources: ResourceWords = ResourceWords()
    restart_policy: RestartWords | None = None
    placement: PlacementWords = PlacementWords()
    force_update: int = 0
    runtime: str = ""
    networks: tuple[NetworkWords, ...] = ()
    log_driver: DriverWords = DriverWords()


class ReplicatedWords(Docker):
    replicas: int = 1


class ModeWords(Docker):
    replicated: ReplicatedWords | None = None
    global_: Mapping[str, Any] | None = msgspec.field(name="Global", default=None)
    replicated_job: Mapping[str, Any] | None = None
    global_job: Mapping[str, Any] | None = None


class UpdateWords(Docker):
    parallelism: int = 0
    delay: int = 0
    failure_action: str = ""
    monitor: int = 0
    max_failure_ratio: float = 0.0
    order: str = ""


class PortWords(Docker):
    name: str = ""
    protocol: str = "tcp"
    target_port: int = 0
    published_port: int = 0
    publish_mode: str = "ingress"


class EndpointWords(Docker):
    mode: str = "vip"
    ports: tuple[PortWords, ...] = ()


class ServiceBody(Docker):
    name: str = ""
    labels: Mapping[str, str] = {}
    task_template: TaskWords = TaskWords()
    mode: ModeWords = ModeWords()
    update_config: UpdateWords | None = None
    rollback_config: UpdateWords | None = None
    networks: tuple[NetworkWords, ...] = ()
    endpoint_spec: EndpointWords = EndpointWords()


class NodeBody(Docker):
    name: str = ""
    labels: Mapping[str, str] = {}
    role: str = ""
    availability: str = ""


_NOT_YET = "flota has nothing like it yet"
SERVICE: Table = (
    partly("Name", "small letters, digits, - and _; without one a name is invented"),
    Field("Labels"),
    Field("TaskTemplate"),
    Field("Mode"),
    Field("UpdateConfig"),
    Field("RollbackConfig"),
    Field("Networks"),
    Field("EndpointSpec"),
)
MODE: Table = (
    Field("Replicated"),
    Field("Global"),
    refused("ReplicatedJob", _NOT_YET),
    refused("GlobalJob", _NOT_YET),
)
TASK: Table = (
    refused("PluginSpec", "there are no plugins"),
    Field("ContainerSpec"),
    refused("NetworkAttachmentSpec", "containers are put on networks by /networks/NAME/connect"),
    Field("Resources"),
    Field("RestartPolicy"),
    Field("Placement"),
    Field("ForceUpdate"),
    partly("Runtime", "container"),
    Field("Networks"),
    partly("LogDriver", "json-file with max-size and max-file (local is kept the same way), none"),
)
CONTAINER: Table = (
    *(Field(name) for name in ("Image", "Labels", "Command", "Args")),
    partly("Hostname", "without templates"),
    partly("Env", "without templates"),
    *(Field(name) for name in ("Dir", "User", "Groups")),
    partly(
        "Privileges",
        "Seccomp (default, unconfined), NoNewPrivileges; AppArmor and SELinux where they ask for nothing",
    ),
    *(Field(name) for name in ("Init", "TTY", "OpenStdin", "ReadOnly")),
    partly("Mounts", "of type bind, volume and tmpfs"),
    *(Field(name) for name in ("StopSignal", "StopGracePeriod", "Healthcheck", "Hosts", "DNSConfig")),
    refused("Secrets", "secrets are not supported yet"),
    refused("Configs", "configs are not supported yet"),
    idle("Isolation", "of Windows"),
    *(Field(name) for name in ("Sysctls", "CapabilityAdd", "CapabilityDrop", "Ulimits")),
    refused("OomScoreAdj", _NOT_YET),
)
PRIVILEGES: Table = (
    refused("CredentialSpec", "of Windows"),
    partly("SELinuxContext", "Disable, as no SELinux labels are set"),
    partly("Seccomp", "default and unconfined"),
    partly("AppArmor", "default and disabled, which are the same where no profile is set"),
    Field("NoNewPrivileges"),
)
DNS: Table = (Field("Nameservers"), Field("Search"), Field("Options"))
HEALTH: Table = tuple(
    Field(name) for name in ("Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")
)
REPLICATED: Table = (Field("Replicas"),)
RESOURCES: Table = (Field("Limits"), Field("Reservations"))
LIMITS: Table = (Field("NanoCPUs"), Field("MemoryBytes"), Field("Pids"))
RESERVATIONS: Table = (Field("NanoCPUs"), Field("MemoryBytes"), refused("GenericResources", _NOT_YET))
RESTART: Table = (
    Field("Condition"),
    partly("Delay", "a restart is tried on the same host, in the same task"),
    Field("MaxAttempts"),
    partly("Window", "a run of that length begins the count anew"),
)
PLACEMENT: Table = (
    partly(
        "Constraints",
        "node.id, node.hostname, node.platform.os, node.platform.arch, node.labels.*; node.role==worker, "
        "which every node is",
    ),
    refused("Preferences", "tasks are spread over hosts; choose them by constraints"),
    Field("MaxReplicas"),
    idle("Platforms", "a host that can't run the image says so; choose by node.platform.arch"),
)
NETWORK: Table = (
    Field("Target"),
    Field("Aliases"),
    refused("DriverOpts", "flota's own commands set an endpoint's options"),
)
LOG: Table = (Field("Name"), Field("Options"))
UPDATE: Table = tuple(
    Field(name) for name in ("Parallelism", "Delay", "FailureAction", "Monitor", "MaxFailureRatio", "Order")
)
ENDPOINT: Table = (Field("Mode"), Field("Ports"))
PORT: Table = (
    idle("Name", "for people"),
    *(Field(name) for name in ("Protocol", "TargetPort", "PublishedPort", "PublishMode")),
)
NODE: Table = (
    partly("Name", "the host's own, which doesn't change"),
    Field("Labels"),
    partly("Role", "worker: the controller is none of the hosts"),
    Field("Availability"),
)
_CONTAINER = "TaskTemplate.ContainerSpec"
_RESOURCES = "TaskTemplate.Resources"
SPEC = Body(
    ServiceBody,
    SERVICE,
    parts={
        "Mode": MODE,
        "Mode.Replicated": REPLICATED,
        "TaskTemplate": TASK,
        _CONTAINER: CONTAINER,
        f"{_CONTAINER}.Privileges": PRIVILEGES,
        f"{_CONTAINER}.DNSConfig": DNS,
        f"{_CONTAINER}.Healthcheck": HEALTH,
        _RESOURCES: RESOURCES,
        f"{_RESOURCES}.Limits": LIMITS,
        f"{_RESOURCES}.Reservations": RESERVATIONS,
        "TaskTemplate.RestartPolicy": RESTART,
        "TaskTemplate.Placement": PLACEMENT,
        "TaskTemplate.LogDriver": LOG,
        "UpdateConfig": UPDATE,
        "RollbackConfig": UPDATE,
        "EndpointSpec": ENDPOINT,
    },
    items={
        f"{_CONTAINER}.Mounts": MOUNT,
        "TaskTemplate.Networks": NETWORK,
        "Networks": NETWORK,
        "EndpointSpec.Ports": PORT,
    },
    optional=False,
)
NODE_SPEC = Body(NodeBody, NODE, optional=False)
