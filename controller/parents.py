"""Which link of a host a network on the site's own stands on, and which hosts have none. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model.netoptions import SITE_DRIVERS
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
        if network.spec.driver not in SITE_DRIVERS:
            continue
        refusal = site_parent(network, host).refusal
        if refusal:
            found[network.id] = found[network.spec.name] = f"{refusal} (network {network.spec.name})"
    return found
