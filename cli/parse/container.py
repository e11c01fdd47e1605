"""The flags of `run`, `create` and `service create` to a ContainerSpec. Pure.

`flags` is what click collected, by parameter name; files (`--env-file`) and the environment are handed in
read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from cli.parse.devices import block_devices, parse_device
from cli.parse.health import health_check
from cli.parse.networks import attachments
from cli.parse.ports import parse_publish
from model.codec import convert_strict
from model.errors import InvalidInput
from model.limits import UpdateLimits
from model.mountwords import parse_mount, parse_tmpfs, parse_volume
from model.quantity import parse_bytes, parse_cpus
from model.securitywords import security_options
from model.spec import ContainerSpec, LogOptions, Mount, Resources, RestartPolicy, Ulimit


def container_spec(
    flags: Mapping[str, Any], image: str, args: Sequence[str], *, environ: Mapping[str, str], cwd: str
) -> ContainerSpec:
    """Raises InvalidInput naming the flag's value."""
    stop_timeout = flags.get("stop_timeout")
    return ContainerSpec(
        image=image,
        args=tuple(args) if args else None,
        entrypoint=_entrypoint(flags.get("entrypoint")),
        env=environment(flags.get("env") or (), flags.get("env_file") or (), environ),
        workdir=flags.get("workdir") or "",
        user=flags.get("user") or "",
        groups=tuple(flags.get("group_add") or ()),
        hostname=flags.get("hostname") or "",
        domainname=flags.get("domainname") or "",
        labels=labels(flags),
        annotations=pairs(flags.get("annotation") or ()),
        tty=bool(flags.get("tty")),
        stdin=bool(flags.get("interactive")),
        stdin_once=bool(flags.get("interactive")) and not flags.get("detach"),
        mounts=_mounts(flags, cwd),
        read_only=bool(flags.get("read_only")),
        sysctls=pairs(flags.get("sysctl") or ()),
        init=bool(flags.get("init")),
        shm_size=parse_bytes(flags["shm_size"]) if flags.get("shm_size") else 64 << 20,
        networks=attachments(flags),
        ports=tuple(p for text in flags.get("publish") or () for p in parse_publish(text)),
        publish_all=bool(flags.get("publish_all")),
        expose=tuple(flags.get("expose") or ()),
        extra_hosts=tuple(flags.get("add_host") or ()),
        dns=tuple(flags.get("dns") or ()),
        dns_search=tuple(flags.get("dns_search") or ()),
        dns_options=tuple(flags.get("dns_option") or ()),
        restart=parse_restart(flags.get("restart") or "no"),
        stop_signal=flags.get("stop_signal") or "",
        stop_grace=10.0 if stop_timeout is None else float(stop_timeout),
        auto_remove=bool(flags.get("rm")),
        log=log_options(flags.get("log_opt") or ()),
        health=health_check(flags, None),
        pull=flags.get("pull") or "missing",
        platform=flags.get("platform") or "",
        **_isolation(flags),
        **security_options(flags.get("security_opt") or (), "--security-opt"),
    )


def _isolation(flags: Mapping[str, Any]) -> dict[str, Any]:
    """What it may use and see of its host. Raises InvalidInput."""
    return {
        "resources": resources(flags),
        "oom_score_adj": int(flags.get("oom_score_adj") or 0),
        "devices": tuple(parse_device(text) for text in flags.get("device") or ()),
        "device_rules": tuple(flags.get("device_cgroup_rule") or ()),
        "uts_mode": "host" if flags.get("uts") == "host" else "",
        "cgroup_namespace": "host" if flags.get("cgroupns") == "host" else "",
        "pid_mode": flags.get("pid") or "",
        "ipc_mode": "host" if flags.get("ipc") == "host" else "",
        "ulimits": tuple(parse_ulimit(u) for u in flags.get("ulimit") or ()),
        "privileged": bool(flags.get("privileged")),
        "cap_add": tuple(flags.get("cap_add") or ()),
        "cap_drop": tuple(flags.get("cap_drop") or ()),
    }


def _mounts(flags: Mapping[str, Any], cwd: str) -> tuple[Mount, ...]:
    return (
        *(parse_volume(text, cwd) for text in flags.get("volume") or ()),
        *(parse_mount(text) for text in flags.get("mount") or ()),
        *(parse_tmpfs(text) for text in flags.get("tmpfs") or ()),
    )


def environment(env: Sequence[str], files: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """`files` are contents of `--env-file`s; `-e NAME` takes the value of this environment, if it has one."""
    found: dict[str, str] = {}
    lines = [line.lstrip() for text in files for line in text.splitlines()]
    for entry in [line for line in lines if line and not line.startswith("#")] + list(env):
        key, equals, value = entry.partition("=")
        if not key or "\0" in entry:
            raise InvalidInput(f"environment {entry[:60]!r}: the name is empty or holds a NUL")
        if equals:
            found[key] = value
        elif key in environ:
            found[key] = environ[key]
    return found


def labels(flags: Mapping[str, Any]) -> dict[str, str]:
    """Those of `--label-file`s, then those of `--label`."""
    lines = [line.lstrip() for text in flags.get("label_file") or () for line in text.splitlines()]
    return pairs(
        [*(line for line in lines if line and not line.startswith("#")), *(flags.get("label") or ())]
    )


def pairs(entries: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` or `KEY`."""
    found = dict(entry.partition("=")[::2] for entry in entries)
    if "" in found:
        raise InvalidInput("a label or option has an empty name")
    return found


def resources(flags: Mapping[str, Any]) -> Resources:
    swap = flags.get("memory_swap")
    return Resources(
        nano_cpus=parse_cpus(flags["cpus"]) if flags.get("cpus") else 0,
        memory=parse_bytes(flags["memory"]) if flags.get("memory") else 0,
        memory_swap=0 if not swap else -1 if swap == "-1" else parse_bytes(swap),
        pids=max(0, int(flags.get("pids_limit") or 0)),
        cpu_shares=int(flags.get("cpu_shares") or 0),
        cpuset_cpus=flags.get("cpuset_cpus") or "",
        cpuset_mems=flags.get("cpuset_mems") or "",
        memory_swappiness=-1 if flags.get("memory_swappiness") is None else flags["memory_swappiness"],
        oom_kill_disable=bool(flags.get("oom_kill_disable")),
        blkio_weight=int(flags.get("blkio_weight") or 0),
        blkio_devices=block_devices(flags),
    )


_UPDATED = ("memory", "memory_swap", "cpu_shares", "cpuset_cpus", "cpuset_mems", "blkio_weight")


def limits_of(flags: Mapping[str, Any]) -> UpdateLimits:
    """Those flags of `update` that were given. Raises InvalidInput."""
    wish = resources(flags)
    given = {name: getattr(wish, name) for name in _UPDATED if flags.get(name) is not None}
    if flags.get("cpus") is not None:
        given["nano_cpus"] = wish.nano_cpus
    if flags.get("pids_limit") is not None:
        given["pids"] = wish.pids
    if flags.get("restart"):
        given["restart"] = parse_restart(flags["restart"])
    return UpdateLimits(**given)


def parse_restart(text: str) -> RestartPolicy:
    """`no`, `always`, `unless-stopped`, `on-failure[:N]`."""
    condition, colon, count = text.partition(":")
    known = ("no", "always", "unless-stopped", "on-failure")
    if condition not in known or (colon and (condition != "on-failure" or not count.isdecimal())):
        raise InvalidInput(
            f"restart policy {text[:40]!r}", hint="Write no, always, unless-stopped or on-failure:5"
        )
    return convert_strict({"condition": condition, "max_attempts": int(count or 0)}, RestartPolicy)


def parse_ulimit(text: str) -> Ulimit:
    """`nofile=1024:2048`."""
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    try:
        return Ulimit(name=name, soft=int(soft), hard=int(hard or soft))
    except ValueError:
        raise InvalidInput(f"ulimit {text[:40]!r}", hint="Write for example nofile=1024:2048") from None


def log_options(entries: Sequence[str]) -> LogOptions:
    """`max-size=10m`, `max-file=3`."""
    values = pairs(entries)
    made = LogOptions()
    for key, value in values.items():
        if key == "max-size":
            made = replace(made, max_size=parse_bytes(value))
        elif key == "max-file" and value.isdecimal():
            made = replace(made, max_files=int(value))
        else:
            raise InvalidInput(f"log option {key}={value[:20]}", hint="Known are max-size and max-file")
    return made


def _entrypoint(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    return (text,) if text else ()
