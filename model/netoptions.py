"""The options of networks (`--opt KEY=VALUE`): which there are, per driver, and what they may say. Pure.

Docker's names for what we have too are taken and stored under ours. An option that does nothing here is
refused, so that nobody relies on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from model.errors import InvalidInput, Problem
from model.parents import is_parent
from model.quantity import BOOLS, parse_duration

SITE_DRIVERS = frozenset({"macvlan", "ipvlan", "nic"})
"""Their subnet is the site's own, with the site's router: containers stand among its machines."""
COMMON = ("mtu", "icc")
KNOWN: Mapping[str, tuple[str, ...]] = {
    "overlay": (*COMMON, "mode", "vni", "rps", "direct", "shortcuts", "encrypted", "rekey"),
    "host-gw": (*COMMON, "rps", "shortcuts"),
    "bridge": COMMON,
    "macvlan": ("mtu", "parent", "mode"),
    "ipvlan": ("mtu", "parent", "mode", "flag"),
    "nic": ("mtu", "parent"),
}
"""mtu: of the containers' interfaces. icc: `off` keeps containers of the network apart but for published
ports. mode: routed or bridged. vni: the VXLAN's number. rps: `off` keeps a stream on one processor. direct:
`on` does without the tunnel between hosts that share a link. shortcuts: `off` leads packets between hosts
through the whole of the hosts' network stack.
encrypted: `on` sends what goes to other hosts by WireGuard.
rekey: how often the keys of that are changed, or `off`.
parent: the host's link that containers stand on (`model.parents`). mode and flag: the kernel's own."""
MODES: Mapping[str, tuple[str, ...]] = {
    "overlay": ("routed", "bridged"),
    "macvlan": ("bridge", "private", "vepa", "passthru"),
    "ipvlan": ("l2", "l3", "l3s"),
}
"""The first is the one without an option (ip-link(8))."""
FLAGS = ("bridge", "private", "vepa")

_DOCKERS: Mapping[str, str] = {
    "com.docker.network.driver.mtu": "mtu",
    "com.docker.network.bridge.enable_icc": "icc",
    "macvlan_mode": "mode",
    "ipvlan_mode": "mode",
    "ipvlan_flag": "flag",
}
_SWITCHES: Mapping[str, str] = {word: "on" if value else "off" for word, value in BOOLS.items()}
_REFUSED: Mapping[str, str] = {
    "com.docker.network.bridge.name": "a bridge's name comes of the network's id, alike on every host",
    "com.docker.network.bridge.host_binding_ipv4": "give the address with each port: -p ADDRESS:8080:80",
}


def canonical(options: Mapping[str, str]) -> dict[str, str]:
    """With our names for docker's. The order is kept."""
    found = {_DOCKERS.get(key, key): value for key, value in options.items()}
    for switch in ("icc", "encrypted", "direct", "rps", "shortcuts"):
        if switch in found:
            found[switch] = _SWITCHES.get(found[switch], found[switch])
    if found.get("encrypted") == "":  # docker's way to say it
        found["encrypted"] = "on"
    return found


def apart(options: Mapping[str, str]) -> bool:
    """Whether containers of the network may not talk to each other."""
    return options.get("icc", "on") == "off"


def encrypted(options: Mapping[str, str]) -> bool:
    """Whether what goes to other hosts is encrypted."""
    return options.get("encrypted", "off") == "on"


REKEY, LEAST_REKEY = 24 * 3600.0, 60.0
"""Seconds. WireGuard itself changes what it encrypts with every two minutes; this is for the keys behind
that."""


def rekey_after(options: Mapping[str, str]) -> float:
    """Seconds after which an encrypted network's keys are changed; 0: never."""
    text = options.get("rekey", "")
    if text == "off":
        return 0.0
    return parse_duration(text) if text else REKEY


def _rekey(text: str) -> bool:
    try:
        return text == "off" or parse_duration(text) >= LEAST_REKEY
    except InvalidInput:
        return False


def problems(driver: str, options: Mapping[str, str], path: str, *, ipv6: bool) -> list[Problem]:
    """Everything wrong with a network's canonical options; a driver that is not known has none to be
    wrong."""
    found: list[Problem] = []
    for key, value in options.items():
        if driver in KNOWN and key not in KNOWN[driver]:
            known = f"a {driver} network has {', '.join(KNOWN[driver])}"
            found.append(_p(f"{path}.{key[:80]}", _REFUSED.get(key, f"unknown option: {known}")))
        elif key == "mode" and driver in MODES and value not in MODES[driver]:
            found.append(_p(f"{path}.mode", f"{value[:40]!r} is not {_either(MODES[driver])}"))
        elif key in _CHECKS and not _CHECKS[key](value):
            found.append(_p(f"{path}.{key}", f"{value[:40]!r} is not {_WORDS[key]}"))
        elif key == "mtu" and ipv6 and int(value) < LEAST_MTU_IPV6:
            found.append(_p(f"{path}.mtu", f"{value} is less than the {LEAST_MTU_IPV6} that IPv6 needs"))
    if driver in SITE_DRIVERS and not options.get("parent"):
        found.append(
            _p(f"{path}.parent", f"a {driver} network needs the hosts' link it stands on: parent=eth1")
        )
    if "rekey" in options and not encrypted(options):
        found.append(_p(f"{path}.rekey", "only an encrypted network has keys"))
    if encrypted(options) and options.get("mode") == "bridged":
        found.append(_p(f"{path}.encrypted", "a bridged overlay can't be encrypted: leave mode out"))
    if options.get("direct") == "on" and options.get("mode") == "bridged":
        found.append(_p(f"{path}.direct", "a bridged overlay is one segment over all hosts: leave one out"))
    if options.get("direct") == "on" and encrypted(options):
        found.append(_p(f"{path}.direct", "an encrypted network is never without its tunnel: leave one out"))
    return found


def mode(driver: str, options: Mapping[str, str]) -> str:
    """Of a network whose driver has modes."""
    return options.get("mode") or MODES[driver][0]


def _either(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


LEAST_MTU, MOST_MTU = 576, 65535
LEAST_MTU_IPV6 = 1280
"""RFC 8200, section 5."""
MOST_VNI = (1 << 24) - 1


def _number(least: int, most: int) -> Callable[[str], bool]:
    return lambda text: text.isascii() and text.isdigit() and least <= int(text[:12]) <= most


_CHECKS: Mapping[str, Callable[[str], bool]] = {
    "mtu": _number(LEAST_MTU, MOST_MTU),
    "vni": _number(1, MOST_VNI),
    "flag": lambda text: text in FLAGS,
    "parent": is_parent,
    "rps": lambda text: text in ("on", "off"),
    "shortcuts": lambda text: text in ("on", "off"),
    "icc": lambda text: text in ("on", "off"),
    "encrypted": lambda text: text in ("on", "off"),
    "rekey": _rekey,
    "direct": lambda text: text in ("on", "off"),
}
_WORDS: Mapping[str, str] = {
    "mtu": f"{LEAST_MTU} to {MOST_MTU}",
    "vni": f"1 to {MOST_VNI}",
    "flag": _either(FLAGS),
    "parent": "a link's name (eth1, eth1.20, en*) or label:KEY",
    "rps": "on or off",
    "shortcuts": "on or off",
    "icc": "on or off",
    "encrypted": "on or off",
    "rekey": "a time of a minute or more such as 24h, or off",
    "direct": "on or off",
}


def _p(path: str, message: str) -> Problem:
    return Problem(path=path, message=message)
