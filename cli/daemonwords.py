"""What the daemons of this host are told when they are started: words of the command line. Pure.

Invariant: a daemon is told all that it can be told, so that nothing is taken from what is remembered instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def controller_words(flags: dict[str, Any]) -> list[str]:
    """All that a controller can be told: what it isn't, it takes from what is remembered."""
    words = ["--port", str(flags["port"]), "--listen", flags["listen"], "--address", advertised(flags)]
    words += ["--log-level", flags["log_level"], "--lost-after", str(flags["lost_after"])]
    words += ["--registry", flags["registry"]]
    words += ["--registry-replicas", str(flags["registry_replicas"])]
    open_ = flags["registry_anonymous_pull"]
    words += ["--registry-anonymous-pull" if open_ else "--no-registry-anonymous-pull"]
    return words + _each("--network-driver", flags["network_driver"])


def agent_words(flags: dict[str, Any]) -> list[str]:
    """All that an agent can be told, as `controller_words`."""
    words = ["--name", flags["name"], "--address", flags["address"]]
    words += ["--cgroup-parent", flags["cgroup_parent"], "--cgroup-driver", flags["cgroup_driver"]]
    words += ["--storage-driver", flags["storage_driver"]]
    words += ["--behind-nat" if flags["behind_nat"] else "--no-behind-nat"]
    words += _each("--label", flags["label"]) + _each("--insecure-registry", flags["insecure_registry"])
    words += _each("--registry-mirror", flags["registry_mirror"])
    words += ["--peer-port", flags["peer_port"], "--peer-rate", flags["peer_rate"]]
    words += ["--log-level", flags["log_level"]]
    return words + _each("--network-driver", flags["network_driver"])


def advertised(flags: dict[str, Any]) -> str:
    """Where hosts reach the controller: as it was told, or else at the address that this host has as one."""
    return str(flags.get("controller_address") or flags.get("address") or "")


def _each(option: str, values: Sequence[str]) -> list[str]:
    """Also that there is none."""
    return [word for value in values or ("",) for word in (option, value)]
