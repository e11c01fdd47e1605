"""The options that the commands of daemons have in common, each once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from model.errors import InvalidInput

ROOT, RUN, PORT = "/var/lib/flota", "/run/flota", 7420
PEER_PORT = 7421
LEVELS = ("debug", "info", "warning", "error")
F = Callable[..., Any]


def _absolute(_context: click.Context, _option: click.Parameter, value: str) -> str:
    """Daemons work in a folder of their own."""
    return os.path.abspath(value)


def _plain_address(_context: click.Context, _option: click.Parameter, value: str) -> str:
    """As other hosts write it: they compare addresses by their text."""
    if not value:
        return ""
    import ipaddress

    try:
        found = ipaddress.ip_address(value)
    except ValueError:
        found = None
    if found is None or "%" in value:
        raise InvalidInput(
            f"--address {value}: that is no IP address",
            hint="Give one of this host's, as `ip address` lists them",
        )
    return str(found)


PLACES = (
    click.option("--root", default=ROOT, show_default=True, callback=_absolute, help="Folder of all state"),
    click.option("--run", "run_", default=RUN, callback=_absolute, help="Folder of sockets, on a tmpfs"),
)
AGENT = (
    click.option("--name", default="", help="This host's name in the fleet; its host name without"),
    click.option(
        "--address", default="", callback=_plain_address, help="Address at which other hosts reach this one"
    ),
    click.option(
        "--behind-nat/--no-behind-nat", default=False, help="Others can't begin to speak with this host"
    ),
    click.option("--label", multiple=True, help="KEY=VALUE of this host, for constraints"),
    click.option("--cgroup-parent", default="", help="Cgroup or slice of all containers; /flota without"),
    click.option(
        "--cgroup-driver", default="", help="systemd or cgroupfs; systemd without, where it runs cgroup v2"
    ),
    click.option(
        "--storage-driver", default="", help="overlay2, btrfs or vfs; the best that works here without"
    ),
    click.option(
        "--peer-port", default="", metavar="PORT",
        help=f"TCP port where other hosts get layers; {PEER_PORT} without, 0: they get none",
    ),
    click.option("--peer-rate", default="", metavar="RATE", help="How fast they get them, as 500mbit"),
    click.option("--insecure-registry", multiple=True, help="Registry host to speak plain HTTP to"),
    click.option(
        "--registry-mirror", multiple=True, help="[REGISTRY=]URL to pull from first; docker.io's without"
    ),
)  # fmt: skip
LOG = (
    click.option(
        "--log-level", default="", type=click.Choice(("", *LEVELS)), metavar="LEVEL",
        help=f"What daemons write to their log: {', '.join(LEVELS)}; info without",
    ),
)  # fmt: skip
DRIVERS = (click.option("--network-driver", multiple=True, help="A third party's, installed beside flota"),)
CONTROLLER = (
    click.option("--port", default=0, type=click.IntRange(0, 65535), help=f"TCP port; {PORT} without"),
    click.option("--listen", default="", help="Address to listen on; all without"),
    click.option("--registry", default="", metavar="[ADDRESS:]PORT", help="Serve the fleet's registry"),
    click.option(
        "--registry-replicas",
        type=click.IntRange(0, 16),
        default=2,
        show_default=True,
        help="Other hosts that keep a copy of what the registry holds",
    ),
    click.option(
        "--registry-anonymous-pull/--no-registry-anonymous-pull",
        default=False,
        help="Whoever can connect may pull from it",
    ),
    click.option(
        "--lost-after",
        default=0.0,
        type=click.FloatRange(0, 3600),
        metavar="SECONDS",
        help="A host silent for so long is lost: its services are replaced; 3 without",
    ),
)


def options(*groups: tuple[F, ...]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for group in reversed(groups):
            for option in reversed(group):
                command = option(command)
        return command

    return decorate
