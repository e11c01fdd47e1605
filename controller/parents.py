"""Which link of a host a network on the site's own stands on, and which hosts can't carry which networks.
Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model.netoptions import SITE_DRIVERS, encrypted
from model.parents import Parent, parent_of
from model.records import Host, Network


def site_parent(network: Network, host: Host) -> Parent:
    """Labels that were given to the host go before those that it has by itself."""
    spec, labels = network.spec, {**host.facts.labels, **host.spec.labels}
    return parent_of(spec.driver, spec.options.get("parent", ""), host.facts, labels)


def lacking(networks: Iterable[Network], host: Host) -> Mapping[str, str]:
    """The networks that this host can't carry, by id and by name, and why."""
    found: dict[str, str] = {}
    for network in networks:
        refusal = _refusal(network, host)
        if refusal:
            found[network.id] = found[network.spec.name] = f"{refusal} (network {network.spec.name})"
    return found


def choosy(network: Network, hosts: Iterable[Host]) -> bool:
    """Whether some of these hosts may be unable to carry it."""
    overlay = network.spec.driver == "overlay"
    behind = overlay and any(host.facts.behind_nat for host in hosts)
    return network.spec.driver in SITE_DRIVERS or behind or encrypted(network.spec.options)


def _refusal(network: Network, host: Host) -> str:
    if network.spec.driver in SITE_DRIVERS:
        return site_parent(network, host).refusal
    if encrypted(network.spec.options):
        return "" if host.facts.wireguard else "without WireGuard and wireguard-go"
    if network.spec.driver == "overlay" and host.facts.behind_nat:
        return "behind NAT, where encrypted networks alone reach"
    return ""
