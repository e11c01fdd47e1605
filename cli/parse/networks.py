"""`--network` in its short and long forms, and what belongs to an endpoint. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from model.errors import InvalidInput
from model.quantity import parse_rate
from model.spec import Attachment, EndpointWish

_ENDPOINT = "com.docker.network.endpoint."
_HINT = (
    "Write NAME or name=NAME,ip=…,ip6=…,alias=…,mac-address=…,gw-priority=…,bandwidth-in=…,bandwidth-out=…,"
    "driver-opt=KEY=VALUE"
)
_FIRST: Mapping[str, tuple[str, str]] = {
    "network_alias": ("aliases", "--network-alias"),
    "ip": ("ipv4", "--ip"),
    "ip6": ("ipv6", "--ip6"),
    "mac_address": ("mac", "--mac-address"),
}


def attachments(flags: Mapping[str, Any]) -> tuple[Attachment, ...]:
    """`--network` (repeatable); `--network-alias`, `--ip`, `--ip6` and `--mac-address` belong to the
    first."""
    found = [parse_network(text) for text in flags.get("network") or ()]
    given = {flag: value for flag in _FIRST if (value := flags.get(flag))}
    if not given:
        return tuple(found)
    first = found[0] if found else Attachment(network="bridge")
    for flag, value in given.items():
        field, words = _FIRST[flag]
        if getattr(first, field):
            raise InvalidInput(f"{words} and the same in --network can't both be given")
        first = replace(first, **{field: tuple(value) if field == "aliases" else value})
    return (first, *found[1:])


def parse_network(text: str) -> Attachment:
    """`NAME`, `name=NAME,ip=…`, or `NAME:ip=…`. Raises InvalidInput."""
    name, colon, rest = text.partition(":")
    if colon and "=" not in name and name != "container":
        return Attachment(network=name, **_fields(rest, text))
    if "=" not in text:
        return Attachment(network=text)
    words = dict(word.partition("=")[::2] for word in _split(text))
    if not words.get("name"):
        raise InvalidInput(f"network {text[:80]!r}: name is missing", hint=_HINT)
    return Attachment(network=words["name"], **_fields(text, text))


def endpoint(flags: Mapping[str, Any]) -> EndpointWish:
    """The flags of `network connect`."""
    made: dict[str, Any] = {
        "aliases": tuple(flags.get("alias") or ()),
        "ipv4": flags.get("ip") or "",
        "ipv6": flags.get("ip6") or "",
        "mac": flags.get("mac_address") or "",
        "priority": flags.get("gw_priority") or 0,
        "bandwidth_in": parse_rate(flags.get("bandwidth_in") or "0"),
        "bandwidth_out": parse_rate(flags.get("bandwidth_out") or "0"),
    }
    for option in flags.get("driver_opt") or ():
        _driver_option(made, option)
    return EndpointWish(**made)


def _fields(text: str, whole: str) -> dict[str, Any]:
    made: dict[str, Any] = {"aliases": ()}
    for word in _split(text):
        key, equals, value = word.partition("=")
        if key == "name":
            continue
        act = _KEYS.get(key)
        if act is None or not equals:
            raise InvalidInput(f"network {whole[:80]!r}: unknown word {key[:40]!r}", hint=_HINT)
        act(made, value)
    return made


def _split(text: str) -> Iterator[str]:
    """Words between commas; one in double quotes may hold commas itself."""
    while text:
        if text.startswith('"') and (end := text.find('"', 1)) > 0:
            yield text[1:end]
            text = text[end + 1 :].removeprefix(",")
        else:
            word, _, text = text.partition(",")
            if word:
                yield word


def _setting(field: str) -> Callable[[dict[str, Any], str], None]:
    def act(made: dict[str, Any], value: str) -> None:
        made[field] = value

    return act


def _address(field: str) -> Callable[[dict[str, Any], str], None]:
    """Several of a service's replicas are told one by one, or as ranges."""

    def act(made: dict[str, Any], value: str) -> None:
        if value == "keep":
            made["keep_address"] = True
        else:
            made[field] = ",".join(filter(None, (made.get(field, ""), value)))

    return act


def _alias(made: dict[str, Any], value: str) -> None:
    made["aliases"] = (*made["aliases"], value)


def _priority(made: dict[str, Any], value: str) -> None:
    try:
        made["priority"] = int(value)
    except ValueError:
        raise InvalidInput(f"gw-priority {value[:40]!r} is not a number") from None


def _bandwidth(field: str) -> Callable[[dict[str, Any], str], None]:
    def act(made: dict[str, Any], value: str) -> None:
        made[field] = parse_rate(value)

    return act


def bandwidth(text: str) -> tuple[str, dict[str, int]]:
    """`[name=NETWORK,]in=100mbit,out=20mbit` → network (empty: the only one) and what is to change."""
    name, made = "", dict[str, int]()
    for word in _split(text):
        key, equals, value = word.partition("=")
        if key == "name" and value:
            name = value
        elif key in ("in", "out") and equals:
            made[key] = parse_rate(value)
        else:
            hint = "Write [name=NETWORK,]in=100mbit,out=20mbit; 0 is no limit"
            raise InvalidInput(f"bandwidth {text[:80]!r}: unknown word {key[:40]!r}", hint=hint)
    if not made:
        raise InvalidInput(f"bandwidth {text[:80]!r} changes nothing", hint="Give in= or out=")
    return name, made


def _driver_option(made: dict[str, Any], option: str) -> None:
    """`com.docker.network.endpoint.ifname=eth7` and `….sysctls=NAME=VALUE[,NAME=VALUE]`."""
    key, _, value = option.partition("=")
    if key == f"{_ENDPOINT}ifname" and value:
        made["ifname"] = value
    elif key == f"{_ENDPOINT}sysctls" and value:
        pairs = [pair.partition("=")[::2] for pair in value.split(",")]
        made["sysctls"] = {**made.get("sysctls", {}), **dict(pairs)}
    else:
        known = f"{_ENDPOINT}ifname=NAME and {_ENDPOINT}sysctls=NAME=VALUE"
        raise InvalidInput(f"driver option {option[:80]!r} is not known", hint=f"There are {known}")


_KEYS: Mapping[str, Callable[[dict[str, Any], str], None]] = {
    "ip": _address("ipv4"),
    "ip6": _address("ipv6"),
    "mac": _setting("mac"),
    "mac-address": _setting("mac"),
    "interface_name": _setting("ifname"),
    "alias": _alias,
    "gw-priority": _priority,
    "bandwidth-in": _bandwidth("bandwidth_in"),
    "bandwidth-out": _bandwidth("bandwidth_out"),
    "driver-opt": _driver_option,
}


def aux_addresses(cidrs: Sequence[str], entries: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """`--aux-address NAME=ADDRESS` to subnet → its addresses. Raises InvalidInput for one in no subnet."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        address = entry.rpartition("=")[2]
        try:
            wanted = ipaddress.ip_address(address)
            home = next((c for c in cidrs if wanted in ipaddress.ip_network(c, strict=False)), None)
        except ValueError as error:
            raise InvalidInput(f"aux address {entry[:60]!r}: {error}") from None
        if home is None:
            raise InvalidInput(
                f"aux address {address} is in none of the subnets given", hint="Give its --subnet"
            )
        found[home] = (*found.get(home, ()), address)
    return found
