"""A container's networks between Docker's NetworkMode and EndpointsConfig and our attachments. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from api.docker.containers.body import AddressWish, CreateBody, EndpointWords
from api.docker.versions import Version
from model.errors import InvalidInput
from model.records import ResolvedAttachment
from model.spec import Attachment, EndpointWish
from model.status import Endpoint
from model.validate import is_mode

_IFNAME = "com.docker.network.endpoint.ifname"
_SYSCTLS = "com.docker.network.endpoint.sysctls"
_DOCKERS = "com.docker.network."
BRIDGE = "bridge"
SEVERAL: Version = (1, 44)
"""From here on a container may be made on several networks at once."""


def attachments_of(body: CreateBody, version: Version) -> tuple[Attachment, ...]:
    """The one that NetworkMode names first. Raises InvalidInput."""
    wishes = dict(body.networking_config.endpoints_config)
    mode = "none" if body.network_disabled else body.host_config.network_mode
    if mode in ("", "default", BRIDGE):
        mode = BRIDGE
    for known in ("default",):
        if known in wishes:
            wishes.setdefault(BRIDGE, wishes.pop(known))
    if len(wishes) > 1 and version < SEVERAL:
        names = ", ".join(sorted(wishes))
        raise InvalidInput(f"Container cannot be connected to network endpoints: {names}")
    if is_mode(mode):
        return _of_mode(mode, body, {name: wish for name, wish in wishes.items() if name != mode})
    ordered = [mode, *(name for name in wishes if name != mode)]
    if mode == BRIDGE and BRIDGE not in wishes and wishes and not body.host_config.network_mode:
        ordered.remove(BRIDGE)
    made = [Attachment(network=name, **_endpoint(wishes.get(name), name)) for name in ordered]
    if body.mac_address and not made[0].mac:
        made[0] = replace(made[0], mac=body.mac_address)
    if links := links_of(body.host_config.links):
        made[0] = replace(made[0], links={**links, **made[0].links})
    return () if made == [Attachment(network=BRIDGE)] else tuple(made)


def links_of(texts: Iterable[str]) -> dict[str, str]:
    """Names of others by the alias, of `NAME` and `NAME:ALIAS`. Raises InvalidInput."""
    found: dict[str, str] = {}
    for text in texts:
        name, colon, alias = text.partition(":")
        name = name.removeprefix("/")
        alias = alias.rpartition("/")[2] if colon else name  # an inspection of Docker's has /NAME:/ME/ALIAS
        if not name or not alias or ":" in alias:
            raise InvalidInput(f"bad format for links: {text[:120]}")
        found[alias] = name
    return found


def _of_mode(mode: str, body: CreateBody, others: Mapping[str, EndpointWords]) -> tuple[Attachment, ...]:
    if others:
        raise InvalidInput(
            f"conflicting options: network mode {mode[:80]} and networks {', '.join(sorted(others))}"
        )
    if mode.startswith("container:") and body.hostname:
        raise InvalidInput("conflicting options: hostname and the network mode")
    if body.host_config.links:
        raise InvalidInput(f"conflicting options: network mode {mode[:80]} and links")
    return (Attachment(network=mode),)


def _endpoint(words: EndpointWords | None, name: str) -> dict[str, Any]:
    """Fields of an EndpointWish. Raises InvalidInput."""
    if words is None:
        return {}
    address = words.ipam or AddressWish()
    if address.link_local:
        raise InvalidInput(f"EndpointsConfig[{name[:80]}].IPAMConfig.LinkLocalIPs is not supported")
    made: dict[str, Any] = {
        "aliases": tuple(words.aliases or ()),
        "links": links_of(words.links or ()),
        "ipv4": address.ipv4,
        "ipv6": address.ipv6,
        "mac": words.mac_address,
        "priority": words.gw_priority,
    }
    for option, value in (words.driver_opts or {}).items():
        if option == _IFNAME:
            made["ifname"] = value
        elif option == _SYSCTLS:
            made["sysctls"] = dict(pair.partition("=")[::2] for pair in value.split(",") if pair)
        elif not option.startswith(_DOCKERS):
            made.setdefault("driver_opts", {})[option] = value
        else:
            raise InvalidInput(f"EndpointsConfig[{name[:80]}].DriverOpts: {option[:80]} is not supported")
    return made


def wish_of(words: EndpointWords | None, name: str) -> EndpointWish:
    """Of one network, for `network connect`. Raises InvalidInput."""
    return EndpointWish(**_endpoint(words, name))


def mode_of(spec_networks: Iterable[Attachment]) -> str:
    """As HostConfig.NetworkMode shows it."""
    first = next(iter(spec_networks), None)
    return first.network if first is not None else BRIDGE


def endpoints(
    attached: Iterable[ResolvedAttachment],
    feet: Iterable[Endpoint],
    names: Mapping[str, str],
    prefixes: Mapping[str, int],
) -> dict[str, Any]:
    """As NetworkSettings.Networks shows them. `names`: of networks by id; `prefixes`: lengths of the IPv4
    prefixes of those."""
    standing = {foot.network: foot for foot in feet}
    found = {}
    for wish in attached:
        foot = standing.pop(wish.network, None)
        name = foot.network_name if foot else names.get(wish.network, wish.network)
        found[name] = _shown(wish.network, wish, foot, prefixes.get(wish.network, 0))
    for network, foot in standing.items():
        found[foot.network_name] = _shown(network, None, foot, prefixes.get(network, 0))
    return found


def _shown(network: str, wish: EndpointWish | None, foot: Endpoint | None, prefix: int) -> dict[str, Any]:
    asked = {}
    if wish is not None and wish.ipv4:
        asked["IPv4Address"] = wish.ipv4
    if wish is not None and wish.ipv6:
        asked["IPv6Address"] = wish.ipv6
    aliases = list(wish.aliases) if wish is not None else []
    ipv4 = foot.ipv4 if foot else ""
    gateway = foot.gateway if foot else ""
    return {
        "IPAMConfig": asked or None,
        "Links": [f"{name}:{alias}" for alias, name in wish.links.items()] or None if wish else None,
        "Aliases": aliases or None,
        "MacAddress": foot.mac if foot else wish.mac if wish is not None else "",
        "DriverOpts": _driver_opts(wish) or None,
        "GwPriority": wish.priority if wish is not None else 0,
        "NetworkID": network,
        "EndpointID": "" if foot is None else network,
        "Gateway": gateway if ":" not in gateway else "",
        "IPAddress": ipv4,
        "IPPrefixLen": prefix if ipv4 else 0,
        "IPv6Gateway": gateway if ":" in gateway else "",
        "GlobalIPv6Address": foot.ipv6 if foot else "",
        "GlobalIPv6PrefixLen": 64 if foot and foot.ipv6 else 0,
        "DNSNames": aliases or None,
    }


def _driver_opts(wish: EndpointWish | None) -> dict[str, str]:
    """As they were said."""
    if wish is None:
        return {}
    made = {_IFNAME: wish.ifname} if wish.ifname else {}
    if wish.sysctls:
        made[_SYSCTLS] = ",".join(f"{name}={value}" for name, value in wish.sysctls.items())
    return made | dict(wish.driver_opts)


def endpoint_of_mode() -> dict[str, Any]:
    """What Docker shows of a container that has no network of its own."""
    return _shown("", None, None, 0)
