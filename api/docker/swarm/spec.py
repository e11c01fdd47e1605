"""Docker's ServiceSpec to flota's. Pure; `description` is the reverse, `merging` keeps what it can't say.

Fields by field in `body`. Durations are nanoseconds there, seconds here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, cast

from msgspec.structs import replace

from api.docker.containers.hostconfig import environment, health_of, log_options, removed
from api.docker.containers.mounts import mount_of
from api.docker.swarm.body import (
    ContainerWords,
    EndpointWords,
    NetworkWords,
    PlacementWords,
    Privileges,
    ReplicatedWords,
    RestartWords,
    ServiceBody,
    TaskWords,
    UpdateWords,
)
from model.errors import InvalidInput
from model.quantity import NANO
from model.spec import (
    Attachment,
    ContainerSpec,
    Global,
    Placement,
    Publish,
    Replicated,
    Reservations,
    Resources,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    Ulimit,
    UpdatePolicy,
)

FORCED = "flota.force-update"
"""Annotation that makes a container differ from one that is the same but for Docker's ForceUpdate."""
CONDITIONS = {"": "always", "any": "always", "on-failure": "on-failure", "none": "no"}
_TEMPLATE = re.compile(r"\{\{\s*\.(?:Service|Node|Task)\b")
_ROLE = re.compile(r"\s*node\.role\s*(==|!=)\s*(\S+)\s*\Z")
_ENGINE = re.compile(r"\s*engine\.labels\.")
Named = Callable[[str], str]
"""The name of a network, by name or id. Raises NotFound."""


def spec_of(body: ServiceBody, named: Named) -> ServiceSpec:
    """Raises InvalidInput for what is wrong or can't be done, NotFound for a network."""
    task = body.task_template
    if task.runtime not in ("", "container"):
        raise InvalidInput(
            f"TaskTemplate.Runtime: {task.runtime[:40]!r} is not supported", hint="container is"
        )
    restart = task.restart_policy or RestartWords()
    if restart.condition not in CONDITIONS:
        raise InvalidInput(f"invalid RestartCondition: {restart.condition[:40]!r}")
    container = replace(
        _container(task.container_spec),
        resources=Resources(
            nano_cpus=task.resources.limits.nano_cpus,
            memory=task.resources.limits.memory,
            pids=task.resources.limits.pids,
        ),
        restart=_restart(restart),
        log=log_options(task.log_driver.name, task.log_driver.options, "TaskTemplate.LogDriver.Name"),
        networks=_networks(task.networks or body.networks, named),
        ports=_ports(body.endpoint_spec),
        annotations={FORCED: str(task.force_update)} if task.force_update else {},
    )
    return ServiceSpec(
        name=body.name,
        labels=body.labels,
        container=container,
        mode=_mode(body),
        placement=_placement(task),
        update=_update(body.update_config, "UpdateConfig"),
        rollback=_update(body.rollback_config, "RollbackConfig"),
        endpoint_mode=_endpoint_mode(body.endpoint_spec),
        may_end=restart.condition == "none",
    )


def _container(words: ContainerWords) -> ContainerSpec:
    at = "TaskTemplate.ContainerSpec"
    if not words.image:
        raise InvalidInput("ContainerSpec: image reference must be provided")
    for field, texts in (("Hostname", (words.hostname,)), ("Env", words.env)):
        if any(_TEMPLATE.search(text) for text in texts):
            raise InvalidInput(f"{at}.{field}: templates are not supported")
    grace = words.stop_grace_period
    return ContainerSpec(
        image=words.image,
        labels=words.labels,
        entrypoint=words.command or None,
        args=words.args or None,
        hostname=words.hostname,
        env=environment(words.env),
        env_remove=removed(words.env),
        workdir=words.dir,
        user=words.user,
        groups=words.groups,
        init=words.init,
        tty=words.tty,
        stdin=words.open_stdin,
        read_only=words.read_only,
        mounts=tuple(mount_of(m, f"{at}.Mounts[{index}]") for index, m in enumerate(words.mounts)),
        stop_signal=words.stop_signal,
        stop_grace=10.0 if grace is None else _seconds(grace, f"{at}.StopGracePeriod"),
        health=health_of(words.healthcheck),
        extra_hosts=tuple(_extra_hosts(words.hosts)),
        dns=words.dns.nameservers,
        dns_search=words.dns.search,
        dns_options=words.dns.options,
        sysctls=words.sysctls,
        cap_add=words.capability_add,
        cap_drop=words.capability_drop,
        ulimits=tuple(Ulimit(name=u.name, soft=u.soft, hard=u.hard) for u in words.ulimits),
        **_privileges(words.privileges),
    )


def _privileges(words: Privileges) -> dict[str, Any]:
    at = "TaskTemplate.ContainerSpec.Privileges"
    if words.seccomp.mode not in ("", "default", "unconfined"):
        raise InvalidInput(f"{at}.Seccomp.Mode: {words.seccomp.mode[:40]!r} is not supported")
    if words.app_armor.mode not in ("", "default", "disabled"):
        raise InvalidInput(f"{at}.AppArmor.Mode: {words.app_armor.mode[:40]!r} is not supported")
    if any(value for key, value in words.selinux.items() if key != "Disable"):
        raise InvalidInput(f"{at}.SELinuxContext is not supported: no SELinux labels are set")
    made: dict[str, Any] = {"seccomp": "unconfined"} if words.seccomp.mode == "unconfined" else {}
    return made | ({"no_new_privileges": True} if words.no_new_privileges else {})


def _extra_hosts(entries: Iterable[str]) -> Iterable[str]:
    """`ADDRESS NAME [NAME…]`, as in a hosts file; some clients write `NAME:ADDRESS`."""
    for entry in entries:
        address, *names = entry.split()
        if not names:
            yield entry
        for name in names:
            yield f"{name}:{address}"


def _restart(words: RestartWords) -> RestartPolicy:
    """A condition that is not said is kept open: a service keeps its tasks up then."""
    at = "TaskTemplate.RestartPolicy"
    made: dict[str, Any] = {"max_attempts": words.max_attempts}
    if words.condition:
        made["condition"] = CONDITIONS[words.condition]
    if words.delay:
        made["delay"] = made["max_delay"] = _seconds(words.delay, f"{at}.Delay")
    if words.window:
        made["window"] = _seconds(words.window, f"{at}.Window")
    return RestartPolicy(**made)


def _placement(task: TaskWords) -> Placement:
    reserved = task.resources.reservations
    return Placement(
        constraints=tuple(_constraints(task.placement)),
        max_per_host=task.placement.max_replicas,
        reservations=Reservations(nano_cpus=reserved.nano_cpus, memory=reserved.memory),
    )


def _constraints(words: PlacementWords) -> Iterable[str]:
    for text in words.constraints:
        role = _ROLE.match(text)
        if role is None and not _ENGINE.match(text):
            yield text.strip()
        elif role is None:
            raise InvalidInput(
                f"TaskTemplate.Placement.Constraints: {text[:80]!r} is not supported",
                hint="Labels of a host itself are among node.labels here",
            )
        elif (role[1] == "==") != (role[2].lower() == "worker"):
            raise InvalidInput(
                f"TaskTemplate.Placement.Constraints: {text[:80]!r} fits no node",
                hint="Every node is a worker: the controller is none of them",
            )


def _networks(wishes: Iterable[NetworkWords], named: Named) -> tuple[Attachment, ...]:
    return tuple(Attachment(network=named(w.target), aliases=tuple(w.aliases or ())) for w in wishes)


def _ports(words: EndpointWords) -> tuple[Publish, ...]:
    made = []
    for index, port in enumerate(words.ports):
        at = f"EndpointSpec.Ports[{index}]"
        protocol, mode = port.protocol.lower() or "tcp", port.publish_mode or "ingress"
        if protocol not in ("tcp", "udp", "sctp"):
            raise InvalidInput(f"{at}.Protocol: unknown protocol {port.protocol[:20]!r}")
        if mode not in ("ingress", "host"):
            raise InvalidInput(f"{at}.PublishMode: {port.publish_mode[:20]!r} is neither ingress nor host")
        made.append(
            Publish(
                target=port.target_port,
                published=port.published_port,
                protocol=cast(Any, protocol),
                mode=cast(Any, mode),
            )
        )
    return tuple(made)


def _endpoint_mode(words: EndpointWords) -> Any:
    if words.mode not in ("", "vip", "dnsrr"):
        raise InvalidInput(f"EndpointSpec.Mode: {words.mode[:20]!r} is neither vip nor dnsrr")
    return words.mode or "vip"


def _mode(body: ServiceBody) -> ServiceMode:
    mode = body.mode
    if mode.replicated_job is not None or mode.global_job is not None:
        raise InvalidInput("Mode: jobs are not supported yet")
    if mode.global_ is not None:
        if mode.replicated is not None:
            raise InvalidInput("must specify only one service mode")
        return Global()
    return Replicated(replicas=(mode.replicated or ReplicatedWords()).replicas)


_ACTIONS = ("", "pause", "continue", "rollback")
_ORDERS = ("", "stop-first", "start-first")


def _update(words: UpdateWords | None, at: str) -> UpdatePolicy:
    """Where there are words, none for the parallelism is all at once, as in Docker."""
    if words is None:
        return UpdatePolicy()
    if words.failure_action not in _ACTIONS:
        raise InvalidInput(f"{at}.FailureAction: unknown action {words.failure_action[:40]!r}")
    if words.order not in _ORDERS:
        raise InvalidInput(f"{at}.Order: unknown order {words.order[:40]!r}")
    return UpdatePolicy(
        parallelism=words.parallelism,
        delay=_seconds(words.delay, f"{at}.Delay"),
        failure_action=cast(Any, words.failure_action or "pause"),
        monitor=_seconds(words.monitor, f"{at}.Monitor") if words.monitor else 5.0,
        max_failure_ratio=words.max_failure_ratio,
        order=cast(Any, words.order or "stop-first"),
    )


def _seconds(nanoseconds: int, at: str) -> float:
    if nanoseconds < 0:
        raise InvalidInput(f"{at}: must not be negative")
    return nanoseconds / NANO
