"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container, as Docker makes them. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from model.errors import InvalidInput
from model.spec import ContainerSpec
from model.status import Endpoint
from net.names import NAMELESS

FALLBACK = ("1.1.1.1", "8.8.8.8")
"""Name servers for a container when the host has none but its own loopback."""
_LOCAL = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})\Z")


def hosts(spec: ContainerSpec, hostname: str, endpoints: Sequence[Endpoint], *, host_gateway: str) -> str:
    """`--add-host` lines, then the container's own. Raises InvalidInput for a bad `--add-host`."""
    lines = [_extra(entry, host_gateway) for entry in spec.extra_hosts]
    lines += _own(spec, hostname, endpoints)
    return _LOCAL + "".join(f"{line}\n" for line in lines)


def moved(text: str, spec: ContainerSpec, hostname: str, endpoints: Sequence[Endpoint]) -> str:
    """What there is, with the container's own lines as they should be now: those that name it as `hosts`
    does, whichever endpoint they are of, are ours. Idempotent."""
    own = _name(spec, hostname)
    asked = {_extra(entry, "") for entry in spec.extra_hosts if not entry.endswith("host-gateway")}
    lines = text.splitlines()
    kept = [line for line in lines if line in asked or line.partition("\t")[2] != own]
    return "".join(f"{line}\n" for line in [*kept, *_own(spec, hostname, endpoints)])


def _name(spec: ContainerSpec, hostname: str) -> str:
    return f"{hostname}.{spec.domainname} {hostname}" if spec.domainname else hostname


def _own(spec: ContainerSpec, hostname: str, endpoints: Sequence[Endpoint]) -> list[str]:
    name = _name(spec, hostname)
    addresses = [address for e in endpoints for address in (e.ipv4, e.ipv6) if address]
    return [f"{address}\t{name}" for address in addresses]


def _extra(entry: str, host_gateway: str) -> str:
    name, colon, address = entry.partition("=") if "=" in entry else entry.partition(":")
    if address == "host-gateway":
        address = host_gateway
    address = address.strip("[]")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise InvalidInput(f"--add-host {entry[:80]!r}: {address[:60]!r} is no IP address") from None
    if not colon or not _NAME.match(name):
        raise InvalidInput(f"--add-host {entry[:80]!r}: {name[:60]!r} is no host name")
    return f"{address}\t{name}"


def resolver_of(endpoints: Sequence[Endpoint]) -> str:
    """Where a container asks for names: the gateway of its first network that has names, or the host's own
    address where the gateway is the site's; empty when none has, for the predefined `bridge` gives what
    Docker's does."""
    asked = ((e.gateway if e.resolver is None else e.resolver, e.network) for e in endpoints)
    return next((address for address, network in asked if network not in NAMELESS and address), "")


def resolv_conf(spec: ContainerSpec, host: str, resolver: str = "") -> str:
    """The host's resolv.conf without resolvers that only its own loopback reaches, overridden by `--dns*`.
    With a `resolver` of ours that one alone (it asks those of `--dns`, or the host's), and as in Docker
    `ndots:0`: a name of ours is asked for as it is before it is looked for in any search domain."""
    servers, search, options = [], [], []
    for line in host.splitlines():
        words = line.split("#")[0].split()
        if words[:1] == ["nameserver"] and len(words) > 1 and not _loopback(words[1]):
            servers.append(words[1])
        elif words[:1] in (["search"], ["domain"]):
            search = words[1:]
        elif words[:1] == ["options"]:
            options += words[1:]
    servers = [resolver] if resolver else list(spec.dns) or servers or list(FALLBACK)
    search = [s for s in spec.dns_search if s != "."] if spec.dns_search else search
    options = list(spec.dns_options) or options
    if resolver and not any(option.startswith("ndots:") for option in options):
        options.append("ndots:0")
    lines = [f"nameserver {server}" for server in servers]
    lines += [f"search {' '.join(search)}"] if search else []
    lines += [f"options {' '.join(options)}"] if options else []
    return "\n".join(lines) + "\n"


def resolved_anew(
    text: str, spec: ContainerSpec, host: str, old: Sequence[Endpoint], new: Sequence[Endpoint]
) -> str:
    """The container's resolv.conf as its networks are now; one that it wrote itself stays, but that it names
    a resolver of ours which it leaves."""
    before, after = resolver_of(old), resolver_of(new)
    if before == after:
        return text
    if text == resolv_conf(spec, host, before):
        return resolv_conf(spec, host, after)
    if before and after:
        lines = (
            f"nameserver {after}" if line.split() == ["nameserver", before] else line
            for line in text.splitlines()
        )
        return "".join(f"{line}\n" for line in lines)
    return text


def _loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return True
