"""Tasks: the instances of services, in Docker's words. Pure.

States: pending (no host yet), assigned, preparing, ready, starting, running; then complete (ended well),
failed, rejected (could not be made), shutdown (was to end), orphaned (its host is lost).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from api.docker.containers import states
from api.docker.parameters import Filters, check_filters
from api.docker.swarm.description import Ids, instance_words
from api.docker.times import moment
from api.filters import label_fits
from model.api import InstanceInfo, ServiceInfo
from model.errors import InvalidInput
from model.records import Desired, Service
from model.spec import Struct
from model.status import Endpoint, Phase

STATES = (
    "new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running", "complete",
    "shutdown", "failed", "rejected", "remove", "orphaned",
)  # fmt: skip
_BEFORE: Mapping[Phase, str] = {
    Phase.PENDING: "pending",
    Phase.ASSIGNED: "assigned",
    Phase.PULLING: "preparing",
    Phase.PREPARING: "preparing",
    Phase.CREATED: "ready",
    Phase.STARTING: "starting",
    Phase.STOPPING: "running",
    Phase.RESTARTING: "ready",
    Phase.REMOVED: "shutdown",
    Phase.LOST: "orphaned",
}
_DESIRED: Mapping[Desired, str] = {
    Desired.CREATED: "ready",
    Desired.RUNNING: "running",
    Desired.PAUSED: "running",
    Desired.STOPPED: "shutdown",
    Desired.REMOVED: "shutdown",
}


class Task(Struct):
    """An instance, and the service that it is of."""

    info: InstanceInfo
    service: Service

    @property
    def id(self) -> str:
        return self.info.instance.id

    @property
    def name(self) -> str:
        """`web.2`; of a global service's `web.<host's id>`."""
        instance = self.info.instance
        return f"{self.service.spec.name}.{instance.slot or instance.host or 0}"


def tasks_of(services: Iterable[ServiceInfo]) -> list[Task]:
    """All of them, those that have ended too."""
    return [Task(info=info, service=one.service) for one in services for info in one.instances]


def state(info: InstanceInfo) -> str:
    """One of STATES. With a health check a task starts until that says that it is well."""
    status, phase = info.status, info.status.phase
    wanted = info.instance.desired in (Desired.RUNNING, Desired.CREATED, Desired.PAUSED)
    if info.instance.host is None and phase is Phase.ASSIGNED:
        return "pending"
    if phase is Phase.RUNNING:
        return "starting" if wanted and (status.health == "starting" or status.opening) else "running"
    if phase is Phase.EXITED:
        if not wanted:
            return "shutdown"
        return "complete" if states.exit_code(info) == 0 else "failed"
    if phase is Phase.FAILED:
        return "failed" if status.started_at else "rejected"
    return _BEFORE[phase]


def described(task: Task, ids: Ids, networks: Mapping[str, Any]) -> dict[str, Any]:
    """`networks`: descriptions by id."""
    instance, status = task.info.instance, task.info.status
    made: dict[str, Any] = {
        "ID": instance.id,
        "Version": {"Index": instance.revision},
        "CreatedAt": moment(instance.created_at),
        "UpdatedAt": moment(_when(task.info)),
        "Labels": {},
        "Spec": instance_words(instance.spec, instance.placement, ids),
        "ServiceID": task.service.id,
        "Slot": instance.slot,
        "Status": _status(task.info),
        "DesiredState": _DESIRED[instance.desired],
    }
    if instance.host is not None:
        made["NodeID"] = instance.host
    if attached := [_attachment(foot, networks) for foot in status.endpoints]:
        made["NetworksAttachments"] = attached
    return made


def _when(info: InstanceInfo) -> float:
    status = info.status
    return max(info.instance.created_at, status.created_at, status.started_at, status.finished_at)


def _status(info: InstanceInfo) -> dict[str, Any]:
    status, word = info.status, state(info)
    made: dict[str, Any] = {
        "Timestamp": moment(_when(info)),
        "State": word,
        "Message": _said(info, word),
    }
    if fault := _fault(info, word):
        made["Err"] = fault
    if info.instance.host is not None:
        made["ContainerStatus"] = {
            "ContainerID": info.instance.id,
            "PID": status.pid if word in ("starting", "running") else 0,
            "ExitCode": states.exit_code(info) if word in ("complete", "failed", "shutdown") else 0,
        }
    bound = [
        {
            "Protocol": port.protocol,
            "TargetPort": port.target,
            "PublishedPort": port.published,
            "PublishMode": "host",
        }
        for port in status.ports
    ]
    made["PortStatus"] = {"Ports": bound} if bound else {}
    return made


def _said(info: InstanceInfo, word: str) -> str:
    if word in ("running", "complete") or not info.status.message:
        return {"running": "started", "complete": "finished"}.get(word, word)
    return info.status.message


def _fault(info: InstanceInfo, word: str) -> str:
    """Why it is not as it should be, in the words that hosts and the scheduler use."""
    status = info.status
    if word == "pending":
        return info.instance.reason or status.message
    if word == "failed" and status.phase is Phase.EXITED:
        return status.message or f"task: non-zero exit ({states.exit_code(info)})"
    if word in ("failed", "rejected", "orphaned"):
        return status.message
    return status.health_message if status.health == "unhealthy" else ""


def _attachment(foot: Endpoint, networks: Mapping[str, Any]) -> dict[str, Any]:
    shown = networks.get(foot.network, {})
    name = shown.get("Name", foot.network_name)
    return {
        "Network": {
            "ID": foot.network,
            "Spec": {"Name": name, "Labels": shown.get("Labels", {}), "Scope": shown.get("Scope", "swarm")},
            "DriverState": {"Name": shown.get("Driver", "")},
        },
        "Addresses": [
            f"{address}/{length}" for address, length in ((foot.ipv4, 32), (foot.ipv6, 128)) if address
        ],
    }


def current(task: Task) -> bool:
    """Whether it is made by the service's spec of now. Ingress ports are not of its making."""
    container, placement = task.service.spec.container, task.service.spec.placement
    if any(port.mode == "ingress" for port in container.ports):
        container = replace(container, ports=tuple(p for p in container.ports if p.mode != "ingress"))
    return task.info.instance.spec == container and task.info.instance.placement == placement


FILTERS: Mapping[str, Callable[[Task, str], bool]] = {
    "id": lambda t, v: t.id.startswith(v),
    "name": lambda t, v: v in (t.name, t.info.instance.name) or t.name.startswith(v),
    "label": lambda t, v: label_fits(t.info.instance.spec.labels, v),
    "service": lambda t, v: t.service.spec.name == v or bool(v and t.service.id.startswith(v)),
    "node": lambda t, v: (
        t.info.host_name == v or bool(v and t.info.instance.host and t.info.instance.host.startswith(v))
    ),
    "desired-state": lambda t, v: _DESIRED[t.info.instance.desired] == v.lower(),
    "runtime": lambda t, v: v == "container",
    "_up-to-date": lambda t, v: current(t) == (v.lower() in ("1", "true")),
}


def chosen(tasks: Sequence[Task], filters: Filters) -> list[Task]:
    """Values of one filter are alternatives, but for labels, which must all hold. Raises InvalidInput."""
    check_filters(filters, tuple(FILTERS))
    for value in filters.get("desired-state", ()):
        if value.lower() not in STATES:
            raise InvalidInput(f"invalid filter 'desired-state={value[:40]}'")
    return [
        task
        for task in tasks
        if all(
            not values or (all if key == "label" else any)(FILTERS[key](task, value) for value in values)
            for key, values in filters.items()
        )
    ]
