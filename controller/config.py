"""What a controller is started with: one frozen value."""

from __future__ import annotations

import os

from controller.liveness import Policy
from model.errors import InvalidInput
from model.spec import Struct
from model.whereabouts import parted

DEFAULT_STATE = "/var/lib/flota/controller"
DEFAULT_SOCKET = "/run/flota/flota.sock"
DOCKER_SOCKET = "docker.sock"
DEFAULT_PORT = 7420


class ControllerConfig(Struct):
    """`store` empty: `sqlite:` in the state folder. `port` 0: only the unix socket."""

    state_dir: str = DEFAULT_STATE
    socket: str = DEFAULT_SOCKET
    socket_group: str = ""
    """Group that may use the socket; empty: its owner's."""
    listen: str = ""
    """Address for agents of other hosts, which come with certificates; empty: all, IPv4 and IPv6."""
    port: int = DEFAULT_PORT
    advertise: str = ""
    """Host name or address under which hosts reach this controller."""
    names: tuple[str, ...] = ()
    """More names and addresses for its certificate."""
    store: str = ""
    name: str = "flota"
    address_pools: tuple[str, ...] = ()
    ping_every: float = 0.5
    liveness: Policy = Policy()
    registry: str = ""
    """Serve the fleet's registry: `PORT`, or `ADDRESS:PORT` to listen on one address. Empty: none."""
    registry_replicas: int = 2
    """Hosts, besides the controller's, that keep a copy of what the registry holds."""
    registry_anonymous_pull: bool = False
    """Whoever can connect to the registry may pull."""
    network_drivers: tuple[str, ...] = ()
    """Third parties' (docs/drivers.md)."""
    log_level: str = ""
    """Of `aio.service.LEVELS`; empty: info."""


def docker_socket(config: ControllerConfig) -> str:
    """Where Docker's clients find the fleet: beside the native socket."""
    return os.path.join(os.path.dirname(config.socket), DOCKER_SOCKET)


def check_config(config: ControllerConfig) -> ControllerConfig:
    """Raises InvalidInput naming the first setting that can't be."""
    if not 0 <= config.port <= 65535:
        raise InvalidInput(f"port {config.port} is not a port")
    if not 0.05 <= config.ping_every <= config.liveness.unknown_after / 2:
        raise InvalidInput("ping_every must be 0.05 s to half of liveness.unknown_after")
    if not config.liveness.unknown_after <= config.liveness.lost_after:
        raise InvalidInput("liveness.lost_after can't be less than unknown_after")
    if config.store and config.store.partition(":")[0] not in ("sqlite", "memory"):
        raise InvalidInput(f"unknown store {config.store!r}", hint="Use sqlite:FOLDER or memory:")
    if config.registry:
        registry_place(config.registry)
    if not os.path.isabs(config.state_dir) or not os.path.isabs(config.socket):
        raise InvalidInput("state_dir and socket must be absolute paths")
    return config


def registry_place(text: str) -> tuple[str, int]:
    """(address to listen on, empty: all; port) of `PORT` or `ADDRESS:PORT`. Raises InvalidInput."""
    try:
        address, port = parted(f"any:{text}" if text.isascii() and text.isdecimal() else text, 0)
    except InvalidInput:
        address, port = "", 0
    if not port:
        hint = "Write for example 5000, 192.0.2.10:5000 or [fd00::1]:5000"
        raise InvalidInput(f"registry {text[:80]!r}: that is no port and no ADDRESS:PORT", hint=hint)
    return "" if text.isdecimal() else address, port
