"""Rules that types alone can't express: spec → every problem at once, each with its path. Pure.

Paths are those of the API's JSON (`spec.ports[1].published`). Nothing is stored that has problems here.
Whether a network, image or host exists is asked elsewhere: these rules need the input alone.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from model.addressrules import service_addresses, without_addresses
from model.codec import MAX_INT
from model.devicerules import block_problems, device_problems
from model.dockerwords import said_problems
from model.errors import InvalidInput, Problem
from model.exposed import exposed
from model.healthrules import health_problems
from model.hostports import addresses_overlap
from model.ids import NAME, SERVICE_NAME
from model.namerules import endpoint_problems, resolver_problems
from model.spec import (
    Attachment,
    ContainerSpec,
    EndpointWish,
    Mount,
    Placement,
    Publish,
    Replicated,
    Resources,
    RestartPolicy,
    ServiceSpec,
    UpdatePolicy,
)

MAX_REPLICAS = 100_000
MAX_ENV = 1 << 20
MIN_MEMORY = 6 << 20
"""As in Docker: less does not let a process start."""
MAX_ATTEMPTS = 1_000_000
LEAST_RATE, MOST_RATE = 8_000, 32 * 10**9
"""Bits a second: a full packet takes more than a second below; the kernel counts bytes in 32 bits."""
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,1023}\Z")
_SIGNAL = re.compile(r"(?:SIG)?[A-Z0-9+]{1,12}\Z|\d{1,2}\Z")
_MAC = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}\Z")
_IFNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}\Z")
_IF_SYSCTL = re.compile(r"net\.(?:ipv4|ipv6|mpls)\.(?:conf|neigh)\.IFNAME\.[a-z0-9_]{1,60}\Z")
_LOOPBACK6 = ipaddress.IPv6Address("::1")
_CAP = re.compile(r"(?:CAP_)?[A-Z_]{2,30}\Z|ALL\Z")
_HOSTNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?\Z")
_CONSTRAINT = re.compile(
    r"\s*node\.(?:id|hostname|name|platform\.(?:os|arch)|labels\.[A-Za-z0-9_./-]+)\s*(?:==|!=)\s*\S.*\Z"
)
_FORBIDDEN_TARGETS = ("/", "/proc", "/sys", "/dev")
_NAME_HINT = "use letters, digits, '_', '.' and '-', starting with a letter or digit, 128 at most"


def _p(path: str, message: str) -> Problem:
    return Problem(path=path, message=message)


def validate_name(what: str, name: str, path: str) -> list[Problem]:
    """A name of a container, network, volume or host."""
    if NAME.match(name):
        return []
    return [_p(path, f"invalid {what} name {name[:80]!r}: {_NAME_HINT}")]


def validate_container(spec: ContainerSpec, path: str = "spec", *, of_service: bool = False) -> list[Problem]:
    """Everything wrong with a container."""
    problems = [problem for part in _container(spec, path) for problem in part]
    for index, port in enumerate(() if of_service else spec.ports):
        if port.mode == "ingress":
            message = "only services publish on every host: leave it out, or make a service"
            problems.append(_p(f"{path}.ports[{index}].mode", message))
    return problems


def _container(spec: ContainerSpec, at: str) -> Iterator[Iterable[Problem]]:
    if not _IMAGE.match(spec.image):
        yield [_p(f"{at}.image", f"invalid image reference {spec.image[:80]!r}")]
    yield _env(spec.env, f"{at}.env")
    yield _words(spec, at)
    yield _mounts(spec.mounts, f"{at}.mounts")
    yield _resources(spec.resources, f"{at}.resources")
    yield device_problems(spec, at)
    yield _ports(spec.ports, f"{at}.ports")
    yield _networks(spec, at)
    yield _restart(spec.restart, spec.auto_remove, f"{at}.restart")
    if spec.health is not None:
        yield health_problems(spec.health, f"{at}.health")
    for index, limit in enumerate(spec.ulimits):
        where = f"{at}.ulimits[{index}]"
        if not re.match(r"[a-z]{2,20}\Z", limit.name):
            yield [_p(where, f"unknown limit {limit.name[:40]!r}")]
        if max(limit.soft, limit.hard) > MAX_INT:
            yield [_p(where, f"{max(limit.soft, limit.hard)} is above the largest limit of {MAX_INT}")]
        elif limit.soft < -1 or limit.hard < -1 or (limit.hard != -1 and limit.soft > limit.hard):
            yield [_p(where, f"soft limit {limit.soft} is above hard limit {limit.hard}")]
    for field in ("cap_add", "cap_drop"):
        for index, name in enumerate(getattr(spec, field)):
            if not _CAP.match(name.upper()):
                yield [_p(f"{at}.{field}[{index}]", f"invalid capability {name[:40]!r}")]
    if not 0 <= spec.stop_grace <= 86400:
        yield [_p(f"{at}.stop_grace", "must be 0 to 86400 seconds")]
    if not 0 <= spec.drain <= 86400:
        yield [_p(f"{at}.drain", "must be 0 to 86400 seconds")]
    if spec.stop_signal and not _SIGNAL.match(spec.stop_signal.upper()):
        yield [_p(f"{at}.stop_signal", f"invalid signal {spec.stop_signal[:20]!r}")]
    if not 0 < spec.log.max_files <= 1000 or not 4096 <= spec.log.max_size <= MAX_INT:
        yield [_p(f"{at}.log", "needs 1 to 1000 files of 4 KiB at least")]
    if not 0 <= spec.shm_size <= MAX_INT:
        yield [_p(f"{at}.shm_size", "must not be negative")]


def _words(spec: ContainerSpec, at: str) -> Iterator[Problem]:
    """Texts that end up in argv, files or the kernel: no NUL, sane lengths and forms."""
    lists = {"args": spec.args or (), "entrypoint": spec.entrypoint or (), "groups": spec.groups}
    for field, words in lists.items():
        for index, word in enumerate(words):
            if "\0" in word:
                yield _p(f"{at}.{field}[{index}]", "contains a NUL character")
    if spec.workdir and (not spec.workdir.startswith("/") or "\0" in spec.workdir):
        yield _p(f"{at}.workdir", f"{spec.workdir[:80]!r} is not an absolute path")
    if "\0" in spec.user or "\n" in spec.user or len(spec.user) > 256:
        yield _p(f"{at}.user", "is not a user name or id")
    if spec.hostname and not _HOSTNAME.match(spec.hostname):
        yield _p(f"{at}.hostname", f"invalid host name {spec.hostname[:80]!r}")
    for key in (*spec.labels, *spec.annotations):
        if not key or "\0" in key:
            yield _p(f"{at}.labels", f"invalid label {key[:80]!r}")
    for name, value in spec.sysctls.items():
        if not re.match(r"[a-z0-9_.\-/*]{1,200}\Z", name) or "\0" in value or "\n" in value:
            yield _p(f"{at}.sysctls", f"invalid sysctl {name[:80]!r}")
    if spec.platform and not re.match(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9]+)?\Z", spec.platform):
        yield _p(f"{at}.platform", f"invalid platform {spec.platform[:40]!r}: write for example linux/amd64")
    for index, text in enumerate(spec.expose):
        if not exposed(text):
            yield _p(f"{at}.expose[{index}]", f"{text[:40]!r} is no port: write 80, 53/udp or 3000-3005")
    yield from resolver_problems(spec, at)
    yield from said_problems(spec, at)


def _env(env: Mapping[str, str], at: str) -> Iterator[Problem]:
    total = 0
    for name, value in env.items():
        total += len(name) + len(value)
        if not name or "=" in name or "\0" in name:
            yield _p(at, f"invalid variable name {name[:80]!r}")
        elif "\0" in value:
            yield _p(f"{at}.{name[:80]}", "contains a NUL character")
    if total > MAX_ENV:
        yield _p(at, f"is larger than {MAX_ENV} bytes")


def _mounts(mounts: Iterable[Mount], at: str) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, mount in enumerate(mounts):
        where = f"{at}[{index}]"
        yield from _target(mount.target, f"{where}.target")
        target = posixpath.normpath(mount.target)
        if target in seen:
            yield _p(f"{where}.target", f"{target} is the target of mounts[{seen[target]}] already")
        seen.setdefault(target, index)
        yield from _source(mount, f"{where}.source")
        if not 0 <= mount.tmpfs_size <= MAX_INT or not 0 <= mount.tmpfs_mode <= 0o7777:
            yield _p(where, "has an invalid tmpfs size or mode")


def _target(target: str, at: str) -> Iterator[Problem]:
    if not target.startswith("/") or "\0" in target:
        yield _p(at, f"{target[:80]!r} is not an absolute path")
    elif ".." in target.split("/"):
        yield _p(at, f"{target[:80]!r} must not contain '..'")
    elif re.sub("/+", "/", posixpath.normpath(target)) in _FORBIDDEN_TARGETS:
        yield _p(at, f"{target[:80]} can't be mounted over")


def _source(mount: Mount, at: str) -> Iterator[Problem]:
    source = mount.source
    if mount.type == "bind":
        if not source.startswith("/") or "\0" in source:
            yield _p(at, f"{source[:80]!r} is not an absolute path on the host")
        elif ".." in source.split("/"):
            yield _p(at, f"{source[:80]!r} must not contain '..'")
    elif mount.type == "volume" and source:
        yield from validate_name("volume", source, at)
    elif mount.type == "tmpfs" and source:
        yield _p(at, "a tmpfs has no source")


def _resources(resources: Resources, at: str) -> Iterator[Problem]:
    if not 0 <= resources.nano_cpus <= 10_000 * 10**9:
        yield _p(f"{at}.nano_cpus", "must be 0 to 10000 cpus")
    elif 0 < resources.nano_cpus < 1_000_000:
        yield _p(f"{at}.nano_cpus", "the smallest share is 0.001 cpus")
    if resources.memory and not MIN_MEMORY <= resources.memory <= MAX_INT:
        yield _p(f"{at}.memory", "the smallest limit is 6MiB")
    if resources.memory_swap not in (-1, 0) and resources.memory_swap < max(resources.memory, 1):
        yield _p(f"{at}.memory_swap", "is memory plus swap, so it can't be less than the memory limit")
    elif resources.memory_swap > MAX_INT:
        yield _p(f"{at}.memory_swap", f"is above the largest limit of {MAX_INT}")
    elif resources.memory_swap > 0 and not resources.memory:
        yield _p(f"{at}.memory_swap", "needs a memory limit")
    if not 0 <= resources.pids <= 1 << 22:
        yield _p(f"{at}.pids", "must be 0 to 4194304")
    if resources.cpu_shares and not 2 <= resources.cpu_shares <= 262_144:
        yield _p(f"{at}.cpu_shares", "must be 2 to 262144")
    for field in ("cpuset_cpus", "cpuset_mems"):
        text = getattr(resources, field)
        if text and not re.match(r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*\Z", text):
            yield _p(f"{at}.{field}", f"invalid list {text[:40]!r}: write for example 0-2,4")
    yield from block_problems(resources, at)


def _ports(ports: Iterable[Publish], at: str) -> Iterator[Problem]:
    seen: list[Publish] = []
    for index, port in enumerate(ports):
        where = f"{at}[{index}]"
        if not 1 <= port.target <= 65535:
            yield _p(f"{where}.target", f"{port.target} is not a port (1 to 65535)")
        if not 0 <= port.published <= 65535:
            yield _p(f"{where}.published", f"{port.published} is not a port (1 to 65535)")
        if port.published_to and not port.published < port.published_to <= 65535:
            yield _p(f"{where}.published_to", f"{port.published_to} is not a port above {port.published}")
        if port.host_ip and not is_address(port.host_ip):
            yield _p(f"{where}.host_ip", f"{port.host_ip[:60]!r} is not an IP address")
        elif port.host_ip and not port.proxy_protocol and ipaddress.ip_address(port.host_ip) == _LOOPBACK6:
            hint = "publish on 127.0.0.1, or on an address of the host"
            yield _p(f"{where}.host_ip", f"the kernel routes ::1 to no container: {hint}")
        for range_ in port.allow:
            if range_of(range_) is None:
                yield _p(f"{where}.allow", f"{range_[:60]!r} is not a range such as 10.0.0.0/8")
        if port.host_ip and port.mode == "ingress":
            hint = "use mode=host, or say who may come by allow"
            yield _p(f"{where}.host_ip", f"mode ingress means all addresses of the hosts: {hint}")
        if port.on and port.mode != "ingress":
            yield _p(f"{where}.on", "chooses hosts for mode=ingress only")
        for text in port.on:
            if not _CONSTRAINT.match(text):
                hint = "write for example node.labels.edge==true"
                yield _p(f"{where}.on", f"invalid constraint {text[:80]!r}: {hint}")
        if port.proxy_protocol and port.protocol != "tcp":
            yield _p(f"{where}.proxy_protocol", f"begins a connection of tcp; {port.protocol} has none")
        if port.published and not port.published_to and is_address(port.host_ip or "::"):
            if any(_same_port(port, other) for other in seen):
                yield _p(f"{where}.published", f"{port.published}/{port.protocol} is published twice")
            seen.append(port)


def _same_port(a: Publish, b: Publish) -> bool:
    same = (a.protocol, a.published) == (b.protocol, b.published)
    return same and addresses_overlap(a.host_ip, b.host_ip)


def _networks(spec: ContainerSpec, at: str) -> Iterator[Problem]:
    modes = [a.network for a in spec.networks if is_mode(a.network)]
    names = [a.ifname for a in spec.networks if a.ifname]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield _p(f"{at}.networks", f"two interfaces can't be called {name}")
    if modes and len(spec.networks) > 1:
        yield _p(f"{at}.networks", f"mode {modes[0]} excludes other networks")
    if modes and (modes != ["none"] or any(port.mode == "host" for port in spec.ports)) and spec.ports:
        yield _p(f"{at}.ports", f"ports can't be published with network mode {modes[0]}")
    for index, attachment in enumerate(spec.networks):
        yield from _attachment(attachment, f"{at}.networks[{index}]")


def _attachment(attachment: Attachment, at: str) -> Iterator[Problem]:
    if not is_mode(attachment.network):
        yield from validate_name("network", attachment.network, f"{at}.network")
    elif msgspec.structs.replace(attachment, network="") != Attachment(network=""):
        yield _p(at, f"network mode {attachment.network} takes no addresses, names or options")
    yield from validate_endpoint(attachment, at)


def validate_endpoint(attachment: EndpointWish, at: str) -> Iterator[Problem]:
    """Everything wrong with a wish for an endpoint, whatever its network."""
    if attachment.ipv4 and not is_address(attachment.ipv4, 4):
        yield _p(f"{at}.ipv4", f"{attachment.ipv4[:60]!r} is not an IPv4 address")
    if attachment.ipv6 and not is_address(attachment.ipv6, 6):
        yield _p(f"{at}.ipv6", f"{attachment.ipv6[:60]!r} is not an IPv6 address")
    if attachment.keep_address:
        yield _p(f"{at}.keep_address", "only replicas of a service can keep addresses: name one instead")
    if attachment.mac and (not _MAC.match(attachment.mac) or int(attachment.mac[:2], 16) & 1):
        yield _p(f"{at}.mac", f"{attachment.mac[:40]!r} is not a unicast MAC address")
    yield from endpoint_problems(attachment, at)
    if attachment.ifname and (not _IFNAME.match(attachment.ifname) or attachment.ifname == "lo"):
        yield _p(f"{at}.ifname", f"{attachment.ifname[:40]!r} is no interface name (15 characters at most)")
    for name, value in attachment.sysctls.items():
        if not _IF_SYSCTL.match(name) or not 0 < len(value) <= 200 or "\n" in value or "\0" in value:
            hint = "write for example net.ipv4.conf.IFNAME.log_martians=1"
            yield _p(f"{at}.sysctls", f"{name[:80]!r} is no setting of an interface: {hint}")
    for field in ("bandwidth_in", "bandwidth_out"):
        if (rate := getattr(attachment, field)) and not LEAST_RATE <= rate <= MOST_RATE:
            yield _p(f"{at}.{field}", f"{rate} bits a second are not from 8kbit to 32gbit")
    if not -(1 << 31) <= attachment.priority < 1 << 31:
        yield _p(f"{at}.priority", "is out of range")


def is_mode(network: str) -> bool:
    return network in ("host", "none") or network.startswith("container:")


def _restart(policy: RestartPolicy, auto_remove: bool, at: str) -> Iterator[Problem]:
    if not 0 <= policy.max_attempts <= MAX_ATTEMPTS:
        yield _p(f"{at}.max_attempts", f"must be 0 to {MAX_ATTEMPTS}")
    if not 0 < policy.delay <= policy.max_delay <= 86400 or policy.window < 0:
        yield _p(at, "needs 0 < delay <= max_delay <= 86400 and a window that is not negative")
    if auto_remove and policy.condition != "no":
        yield _p(at, "a container that is removed when it ends can't have a restart policy")


def validate_placement(placement: Placement, container: ContainerSpec, path: str) -> list[Problem]:
    """Constraints, and reservations against limits."""
    problems: list[Problem] = []
    for index, text in enumerate(placement.constraints):
        if not _CONSTRAINT.match(text):
            hint = "write for example node.labels.zone==a"
            problems.append(_p(f"{path}.constraints[{index}]", f"invalid constraint {text[:80]!r}: {hint}"))
    if not 0 <= placement.max_per_host <= MAX_REPLICAS:
        problems.append(_p(f"{path}.max_per_host", "must not be negative"))
    for field, limit in (
        ("nano_cpus", container.resources.nano_cpus),
        ("memory", container.resources.memory),
    ):
        reserved = getattr(placement.reservations, field)
        if not 0 <= reserved <= MAX_INT:
            problems.append(_p(f"{path}.reservations.{field}", "must not be negative"))
        elif limit and reserved > limit:
            problems.append(_p(f"{path}.reservations.{field}", f"{reserved} is above the limit of {limit}"))
    return problems


def validate_service(spec: ServiceSpec, path: str = "spec") -> list[Problem]:
    """Everything wrong with a service."""
    container = without_addresses(spec.container)
    problems = validate_container(container, f"{path}.container", of_service=True)
    if not SERVICE_NAME.match(spec.name):
        message = f"invalid service name {spec.name[:80]!r}: a-z, 0-9, '-' and '_' within, 63 at most"
        problems.append(_p(f"{path}.name", message))
    if isinstance(spec.mode, Replicated) and not 0 <= spec.mode.replicas <= MAX_REPLICAS:
        problems.append(_p(f"{path}.mode.replicas", f"must be 0 to {MAX_REPLICAS}"))
    problems += _policy(spec.update, f"{path}.update") + _policy(spec.rollback, f"{path}.rollback")
    if spec.rollback.failure_action == "rollback":
        problems.append(_p(f"{path}.rollback.failure_action", "must be pause or continue"))
    if spec.container.auto_remove:
        problems.append(_p(f"{path}.container.auto_remove", "a service keeps its instances itself"))
    if spec.may_end and spec.container.restart.condition != "no":
        problems.append(_p(f"{path}.may_end", "contradicts a restart policy other than no"))
    if any(a.network.startswith("container:") for a in spec.container.networks):
        problems.append(_p(f"{path}.container.networks", "a service can't share a container's network"))
    problems += service_addresses(spec, path)
    if any(p.published and p.mode == "host" for p in spec.container.ports):
        for field, policy in (("update", spec.update), ("rollback", spec.rollback)):
            if policy.order == "start-first":
                message = "start-first needs host ports that two can't share"
                problems.append(_p(f"{path}.{field}.order", message))
    return problems + validate_placement(spec.placement, spec.container, f"{path}.placement")


def _policy(policy: UpdatePolicy, at: str) -> list[Problem]:
    problems: list[Problem] = []
    if not 0 <= policy.parallelism <= MAX_REPLICAS:
        problems.append(_p(f"{at}.parallelism", f"must be 0 to {MAX_REPLICAS}"))
    if not 0 <= policy.delay <= 86400:
        problems.append(_p(f"{at}.delay", "must be 0 to 86400 seconds"))
    if not 0 <= policy.monitor <= 86400:
        problems.append(_p(f"{at}.monitor", "must be 0 to 86400 seconds"))
    if not 0 <= policy.max_failure_ratio <= 1:
        problems.append(_p(f"{at}.max_failure_ratio", "must be 0 to 1"))
    return problems


def range_of(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return None if "%" in text else ipaddress.ip_network(text)
    except ValueError:
        return None


def is_address(text: str, version: int = 0) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return version in (0, address.version) and "%" not in text


def check(what: str, problems: Iterable[Problem]) -> None:
    """Raise InvalidInput with all problems, if there are any."""
    found = tuple(problems)
    if found:
        raise InvalidInput.of(what, found)
