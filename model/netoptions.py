"""The options of networks (`--opt KEY=VALUE`): which there are, per driver, and what they may say. Pure.

Docker's names for what we have too are taken and stored under ours. An option that does nothing here is
refused, so that nobody relies on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from model.errors import Problem

_COMMON = ("mtu", "icc")
KNOWN: Mapping[str, tuple[str, ...]] = {
    "overlay": (*_COMMON, "mode", "vni", "rps"),
    "bridge": _COMMON,
}
"""mtu: of the containers' interfaces. icc: `off` keeps containers of the network apart but for published
ports. mode: routed or bridged. vni: the VXLAN's number. rps: `off` keeps a stream on one processor."""

_DOCKERS: Mapping[str, str] = {
    "com.docker.network.driver.mtu": "mtu",
    "com.docker.network.bridge.enable_icc": "icc",
}
_SWITCHES: Mapping[str, str] = {"true": "on", "1": "on", "false": "off", "0": "off"}
_REFUSED: Mapping[str, str] = {
    "com.docker.network.bridge.name": "a bridge's name comes of the network's id, alike on every host",
    "com.docker.network.bridge.host_binding_ipv4": "give the address with each port: -p ADDRESS:8080:80",
}


def canonical(options: Mapping[str, str]) -> dict[str, str]:
    """With our names for docker's. The order is kept."""
    found = {_DOCKERS.get(key, key): value for key, value in options.items()}
    if "icc" in found:
        found["icc"] = _SWITCHES.get(found["icc"].lower(), found["icc"])
    return found


def apart(options: Mapping[str, str]) -> bool:
    """Whether containers of the network may not talk to each other."""
    return options.get("icc", "on") == "off"


def problems(driver: str, options: Mapping[str, str], path: str, *, ipv6: bool) -> list[Problem]:
    """Everything wrong with a network's canonical options; a driver that is not known has none to be
    wrong."""
    found: list[Problem] = []
    for key, value in options.items():
        if driver in KNOWN and key not in KNOWN[driver]:
            known = f"a {driver} network has {', '.join(KNOWN[driver])}"
            found.append(_p(f"{path}.{key[:80]}", _REFUSED.get(key, f"unknown option: {known}")))
        elif key in _CHECKS and not _CHECKS[key](value):
            found.append(_p(f"{path}.{key}", f"{value[:40]!r} is not {_WORDS[key]}"))
        elif key == "mtu" and ipv6 and int(value) < LEAST_MTU_IPV6:
            found.append(_p(f"{path}.mtu", f"{value} is less than the {LEAST_MTU_IPV6} that IPv6 needs"))
    return found


LEAST_MTU, MOST_MTU = 576, 65535
LEAST_MTU_IPV6 = 1280
"""RFC 8200, section 5."""
MOST_VNI = (1 << 24) - 1


def _number(least: int, most: int) -> Callable[[str], bool]:
    return lambda text: text.isascii() and text.isdigit() and least <= int(text[:12]) <= most


_CHECKS: Mapping[str, Callable[[str], bool]] = {
    "mtu": _number(LEAST_MTU, MOST_MTU),
    "vni": _number(1, MOST_VNI),
    "mode": lambda text: text in ("routed", "bridged"),
    "rps": lambda text: text in ("on", "off"),
    "icc": lambda text: text in ("on", "off"),
}
_WORDS: Mapping[str, str] = {
    "mtu": f"{LEAST_MTU} to {MOST_MTU}",
    "vni": f"1 to {MOST_VNI}",
    "mode": "routed or bridged",
    "rps": "on or off",
    "icc": "on or off",
}


def _p(path: str, message: str) -> Problem:
    return Problem(path=path, message=message)
