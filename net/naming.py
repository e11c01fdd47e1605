"""Names and addresses derived from identities, alike on every host, never stored. Pure.

Invariant: equal input gives the equal name on every host and after every restart; two identities share a name
with probability 2^-48.
"""

from __future__ import annotations

import hashlib
import ipaddress

OURS = "fl"
"""How the names of all links of ours begin."""
BRIDGE, VXLAN, VETH = "flb", "flx", "flv"
WIREGUARD = "flw"
"""A tunnel of an encrypted network, one per generation of its keys."""
SPEAKER, SPEAKER_PORT = "fls", "flt"
"""A host's own foot on a bridged overlay: its end, and its port of the bridge."""
LIMIT = "fli"
"""A link that holds back what an endpoint sends."""
SITE_BRIDGE = "fln"
"""A bridge with a link of the host as its port: what the host has on it is the host's own."""
SHIM, TAGGED = "flm", "fle"
"""A host's own foot on a network of the site's, and a VLAN of one of its links."""
PREFIXES = (BRIDGE, VXLAN, WIREGUARD, VETH, SPEAKER, SPEAKER_PORT, LIMIT, SHIM, TAGGED, SITE_BRIDGE)
PRIVATE = tuple(prefix for prefix in PREFIXES if prefix != SITE_BRIDGE)
"""Of links on which all is ours."""
ALIAS = "flota:"
"""Start of the alias (IFLA_IFALIAS) of each link of ours; with the name it marks ownership."""


def bridge_name(network: str) -> str:
    return _link_name(BRIDGE, network)


def vxlan_name(network: str) -> str:
    return _link_name(VXLAN, network)


def wireguard_name(network: str, generation: int) -> str:
    """Two generations that stand at one time differ in the last digit."""
    return f"{wireguard_stem(network)}{generation % 10}"


def wireguard_stem(network: str) -> str:
    """How the names of all of a network's encrypted tunnels begin."""
    return WIREGUARD + network[:11]


def speaker_name(network: str) -> str:
    return _link_name(SPEAKER, network)


def speaker_port_name(network: str) -> str:
    return _link_name(SPEAKER_PORT, network)


def site_bridge_name(network: str) -> str:
    return _link_name(SITE_BRIDGE, network)


def shim_name(network: str) -> str:
    return _link_name(SHIM, network)


def vlan_name(parent: str) -> str:
    """Of `eth1.20`, for all networks that stand on it."""
    return TAGGED + _digest("vlan", parent).hex()[:12]


def vlan_alias(parent: str) -> str:
    return f"{ALIAS}vlan:{parent}"


def veth_name(instance: str, network: str) -> str:
    """Host side of an endpoint; its alias tells people which instance and network that is."""
    return VETH + _digest("veth", instance, network).hex()[:12]


def limit_name(instance: str, network: str) -> str:
    """Of the link that holds back what this endpoint sends."""
    return LIMIT + _digest("limit", instance, network).hex()[:12]


def limit_alias(instance: str, network: str) -> str:
    return f"{ALIAS}limit:{instance}:{network}"


def network_alias(network: str) -> str:
    return f"{ALIAS}network:{network}"


def endpoint_alias(instance: str, network: str) -> str:
    return f"{ALIAS}endpoint:{instance}:{network}"


def endpoint_mac(instance: str, network: str) -> str:
    """Of the instance, not of its address: a reused address comes with a new MAC, which ends stale caches."""
    return _mac(_digest("endpoint", instance, network))


def gateway_mac(network: str) -> str:
    """One for all hosts: a container that asks for its gateway gets the same answer wherever it runs."""
    return _mac(_digest("gateway", network))


def vtep_mac(host: str, vni: int) -> str:
    return _mac(_digest("vtep", host, str(vni)))


def speaker_mac(host: str, vni: int) -> str:
    return _mac(_digest("speaker", host, str(vni)))


def shim_mac(host: str, network: str) -> str:
    return _mac(_digest("shim", host, network))


def answer_table(network: str) -> int:
    """Of the routes inside a container by which its answers leave by that network; apart from small numbers
    that people choose."""
    return 0xF7000000 | int.from_bytes(_digest("answers", network)[:3], "big")


def link_local(mac: str) -> str:
    """The modified EUI-64 address of a MAC (RFC 4291, appendix A)."""
    raw = bytearray.fromhex(mac.replace(":", ""))
    raw[0] ^= 0x02
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes(raw[:3]) + b"\xff\xfe" + bytes(raw[3:])))


def _link_name(prefix: str, network: str) -> str:
    """IFNAMSIZ leaves 15 bytes: three for the prefix, twelve of the id."""
    return prefix + network[:12]


def _mac(digest: bytes) -> str:
    """Locally administered, unicast (IEEE 802, bits 1 and 0 of the first octet)."""
    return ":".join(f"{byte:02x}" for byte in (digest[0] & 0xFC | 0x02, *digest[1:6]))


def _digest(*words: str) -> bytes:
    return hashlib.sha256("\0".join(("flota", *words)).encode()).digest()
