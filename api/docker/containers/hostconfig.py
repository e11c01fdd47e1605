"""Docker's Config and HostConfig to a ContainerSpec. Pure; `inspection` is the reverse.

What the image says is merged where Docker merges it: labels, and the command that an empty entrypoint leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from api.docker.containers.body import CreateBody, Health, HostConfig, Words
from api.docker.containers.devices import block_devices_of, devices_of
from api.docker.containers.mounts import mounts_of
from api.docker.containers.networks import attachments_of
from api.docker.containers.ports import exposed, published
from api.docker.versions import Version
from model.dockerwords import said_of
from model.errors import InvalidInput
from model.image import ImageConfig
from model.quantity import NANO, parse_bytes
from model.securitywords import security_options
from model.spec import (
    ContainerSpec,
    ExecProbe,
    HealthCheck,
    LogOptions,
    Mount,
    Probe,
    Resources,
    RestartPolicy,
    ShellProbe,
    Ulimit,
)

MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/devices/virtual/powercap", "/sys/firmware"),
)
"""Paths that a container without privileges can't see into, as Docker shows them."""
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
DEFAULT_PERIOD = 100_000
"""Of the CPU quota, microseconds (kernel, sched-bwc)."""
_LOGS = ("", "json-file", "local", "none")
_OTHER_LOGS = ("awslogs", "fluentd", "gcplogs", "gelf", "journald", "splunk", "syslog")
"""Docker's own that are not done here; any other name is nobody's."""
_RESTARTS = ("", "no", "always", "unless-stopped", "on-failure")
_LEAST_HEALTH = 1_000_000
"""Nanoseconds; as in Docker."""


def spec_of(body: CreateBody, image: ImageConfig, version: Version, platform: str = "") -> ContainerSpec:
    """Raises InvalidInput for what is wrong or can't be done."""
    host = body.host_config
    _unsupported(host)
    entrypoint, args = _command(body, image)
    return ContainerSpec(
        image=body.image,
        args=args,
        entrypoint=entrypoint,
        env=environment(body.env),
        env_remove=removed(body.env),
        workdir=body.working_dir,
        user=body.user,
        groups=host.group_add,
        hostname=body.hostname,
        domainname=body.domainname,
        labels={**image.labels, **body.labels},
        annotations=host.annotations,
        said=said_of(_said(host)),
        tty=body.tty,
        stdin=body.open_stdin,
        stdin_once=body.open_stdin and body.stdin_once and not body.tty,  # as in Docker, terminals stay
        mounts=_mounts(body, image),
        read_only=host.readonly_rootfs,
        cap_add=words(host.cap_add),
        cap_drop=words(host.cap_drop),
        privileged=host.privileged,
        sysctls=host.sysctls,
        init=host.init,
        shm_size=host.shm_size or 64 << 20,
        networks=attachments_of(body, version),
        ports=published(host.port_bindings),
        publish_all=host.publish_all_ports,
        expose=exposed(body.exposed_ports),
        extra_hosts=host.extra_hosts,
        dns=host.dns,
        dns_search=host.dns_search,
        dns_options=host.dns_options,
        restart=restart_of(host),
        stop_signal=body.stop_signal,
        stop_grace=10.0 if body.stop_timeout is None else _grace(body.stop_timeout),
        auto_remove=host.auto_remove,
        log=log_options(host.log_config.type, host.log_config.config, "HostConfig.LogConfig.Type"),
        health=health_of(body.healthcheck),
        platform=platform,
        **_isolation(host),
        **security_options(host.security_opt, "HostConfig.SecurityOpt", usual=True),
    )


def _said(host: HostConfig) -> dict[str, Any]:
    """What is shown as it was said, as ours has another form or none."""
    words = {
        "Isolation": host.isolation,
        "Tmpfs": host.tmpfs,
        "VolumeDriver": host.volume_driver,
        "VolumesFrom": host.volumes_from,
    }
    log = {"Type": host.log_config.type or _LOGS[1], "Config": host.log_config.config}
    return {"LogConfig": log, **{name: value for name, value in words.items() if value}}


def _mounts(body: CreateBody, image: ImageConfig) -> tuple[Mount, ...]:
    """Raises InvalidInput, also for a volume of another driver than ours."""
    mounts, driver = mounts_of(body), body.host_config.volume_driver
    if driver not in ("", "local") and (image.volumes or any(mount.type == "volume" for mount in mounts)):
        raise InvalidInput(f"HostConfig.VolumeDriver: {driver[:60]!r} is not supported", hint="Known: local")
    return mounts


def _isolation(host: HostConfig) -> dict[str, Any]:
    """What it may use and see of its host. Raises InvalidInput."""
    return {
        "resources": _resources(host),
        "oom_score_adj": host.oom_score_adj,
        "devices": devices_of(host),
        "device_rules": host.device_cgroup_rules,
        "masked_paths": _paths(host.masked_paths, MASKED, privileged=host.privileged),
        "readonly_paths": _paths(host.readonly_paths, READ_ONLY, privileged=host.privileged),
        "uts_mode": "host" if host.uts_mode == "host" else "",
        "cgroup_namespace": "host" if host.cgroupns_mode == "host" else "",
        "pid_mode": "host" if host.pid_mode == "host" else "",
        "ipc_mode": "host" if host.ipc_mode == "host" else "",
        "ulimits": tuple(Ulimit(name=u.name, soft=u.soft, hard=u.hard) for u in host.ulimits),
    }


def _command(body: CreateBody, image: ImageConfig) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """(entrypoint, args) as Docker merges them (moby, daemon/commit.go): an empty entrypoint keeps the
    image's command, `[""]` keeps nothing. Raises InvalidInput where nothing is left to run."""
    cmd = words(body.cmd) if body.cmd is not None else ()
    if body.entrypoint is None:
        entrypoint, args = None, cmd or None
        whole = (*(image.entrypoint or ()), *(cmd or image.cmd or ()))
    else:
        entrypoint = words(body.entrypoint)
        args = cmd or (image.cmd if not entrypoint else None)
        entrypoint = () if entrypoint == ("",) else entrypoint
        whole = (*entrypoint, *(args or ()))
    if not whole:
        raise InvalidInput("No command specified")
    return entrypoint, args


def words(said: Words) -> tuple[str, ...]:
    """Of a StrSlice."""
    return (said,) if isinstance(said, str) else said


def environment(entries: Iterable[str]) -> dict[str, str]:
    """A name without a value takes it away. Raises InvalidInput."""
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not name:
            raise InvalidInput(f"invalid environment variable: {entry[:80]}")
        if not equals:
            found.pop(name, None)
            continue
        found[name] = value
    return found


def removed(entries: Iterable[str]) -> tuple[str, ...]:
    """Variables that are taken away: those without a value, unless they get one later."""
    found: dict[str, None] = {}
    for entry in entries:
        name, equals, _ = entry.partition("=")
        if equals:
            found.pop(name, None)
        else:
            found[name] = None
    return tuple(found)


def health_of(words: Health | None) -> HealthCheck | None:
    """Raises InvalidInput."""
    if words is None:
        return None
    for name in ("interval", "timeout", "start_period", "start_interval"):
        if (value := getattr(words, name)) and value < _LEAST_HEALTH:
            raise InvalidInput(f"{name} in Healthcheck cannot be less than 1ms")
    if words.retries < 0:
        raise InvalidInput("Retries in Healthcheck cannot be negative")
    probe, disabled = _probe(words.test)
    made = HealthCheck(
        probe=probe,
        disabled=disabled,
        interval=words.interval / NANO,
        timeout=words.timeout / NANO,
        retries=words.retries,
        start_period=words.start_period / NANO,
        start_interval=words.start_interval / NANO,
    )
    return None if made == HealthCheck() else made


def _probe(test: Sequence[str]) -> tuple[Probe | None, bool]:
    kind, *rest = test or ("",)
    if kind == "":
        return None, False
    if kind == "NONE" and not rest:
        return None, True
    if kind == "CMD" and rest:
        return ExecProbe(args=tuple(rest)), False
    if kind == "CMD-SHELL" and len(rest) == 1:
        return ShellProbe(command=rest[0]), False
    raise InvalidInput(f"Unknown Type '{kind[:40]}' in HEALTHCHECK (try CMD)")


def cpus_of(host: HostConfig) -> int:
    """Nano-cpus, however they were said; 0: no limit. Raises InvalidInput."""
    if host.nano_cpus and (host.cpu_quota or host.cpu_period):
        raise InvalidInput("Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set")
    if host.cpu_quota > 0:
        return host.cpu_quota * NANO // (host.cpu_period or DEFAULT_PERIOD)
    return host.nano_cpus


def _resources(host: HostConfig) -> Resources:
    return Resources(
        nano_cpus=cpus_of(host),
        memory=host.memory,
        memory_swap=host.memory_swap,
        pids=max(0, host.pids_limit),
        cpu_shares=host.cpu_shares,
        cpuset_cpus=host.cpuset_cpus,
        cpuset_mems=host.cpuset_mems,
        memory_swappiness=-1 if host.memory_swappiness is None else host.memory_swappiness,
        oom_kill_disable=host.oom_kill_disable,
        blkio_weight=host.blkio_weight,
        blkio_devices=block_devices_of(host),
    )


def restart_of(host: HostConfig) -> RestartPolicy:
    """Raises InvalidInput."""
    name, count = host.restart_policy.name, host.restart_policy.maximum_retry_count
    if name not in _RESTARTS:
        raise InvalidInput(
            f"invalid restart policy: unknown policy '{name[:40]}'; use one of {_RESTARTS[1:]}"
        )
    if count and name != "on-failure":
        raise InvalidInput("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if count < 0:
        raise InvalidInput("invalid restart policy: maximum retry count cannot be negative")
    if host.auto_remove and name not in ("", "no"):
        raise InvalidInput("can't create 'AutoRemove' container with restart policy")
    return RestartPolicy(condition=cast(Any, name or "no"), max_attempts=count)


def _grace(seconds: int) -> float:
    """Docker waits for ever with -1: a day is as long as ours goes."""
    return 86400.0 if seconds < 0 else float(seconds)


def log_options(kind: str, config: Mapping[str, str], at: str) -> LogOptions:
    """`kind` is the driver, named in the field `at`. Raises InvalidInput."""
    made = LogOptions()
    if kind not in (*_LOGS, *_OTHER_LOGS):
        raise InvalidInput(f"logger: no log driver named '{kind[:40]}' is registered")
    if kind not in _LOGS:
        raise InvalidInput(
            f"{at}: logging driver {kind[:40]!r} is not supported", hint="json-file and none are"
        )
    values: dict[str, int] = {}
    for key, value in config.items():
        if key == "max-size":
            values["max_size"] = parse_bytes(value) if value != "-1" else made.max_size
        elif key == "max-file" and value.isascii() and value.isdecimal():
            values["max_files"] = int(value)
        else:
            raise InvalidInput(f"unknown log opt '{key[:40]}' for {kind or 'json-file'} log driver")
    return LogOptions(driver="none" if kind == "none" else made.driver, **values)


_MODES: Mapping[str, tuple[str, ...]] = {
    "cgroupns_mode": ("", "private", "host"),
    "ipc_mode": ("", "private", "host"),
    "pid_mode": ("", "host"),
    "uts_mode": ("", "host"),
    "userns_mode": ("", "host"),
    "isolation": ("", "default"),
    "runtime": ("", "runc", "io.containerd.runc.v2"),
}
_NAMES = {"uts_mode": "UTSMode"}


def _unsupported(host: HostConfig) -> None:
    """Raises InvalidInput for a value that is not done, of a field that is done for others."""
    for field, known in _MODES.items():
        value = getattr(host, field)
        if value not in known:
            name = _NAMES.get(field) or "".join(word.title() for word in field.split("_"))
            others = ", ".join(word for word in known if word) or "none"
            raise InvalidInput(f"HostConfig.{name}: {value[:60]!r} is not supported", hint=f"Known: {others}")


def _paths(
    said: tuple[str, ...] | None, usual: tuple[str, ...], *, privileged: bool
) -> tuple[str, ...] | None:
    """Those that Docker has without a word are ours without one."""
    return None if said is None or privileged or set(said) == set(usual) else said
