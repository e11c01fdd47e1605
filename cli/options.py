"""The flags that `run`, `create` and `service create` share, named as docker names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

F = Callable[..., Any]

CONTAINER = (
    click.option("--env", "-e", multiple=True, help="KEY=VALUE, or KEY to take it from here"),
    click.option("--env-file", type=click.File(), multiple=True, help="A file of KEY=VALUE lines"),
    click.option("--volume", "-v", multiple=True, help="[SOURCE:]TARGET[:ro,nocopy]"),
    click.option("--mount", multiple=True, help="type=bind|volume|tmpfs,source=…,target=…"),
    click.option("--tmpfs", multiple=True, help="PATH[:size=64m,mode=1777]"),
    click.option("--workdir", "-w", help="Working directory"),
    click.option("--user", "-u", help="USER[:GROUP]"),
    click.option("--group-add", multiple=True, help="Further group"),
    click.option("--entrypoint", help="Replace the image's entry point"),
    click.option("--hostname", "-h", help="Its host name"),
    click.option("--domainname", help="Its domain name"),
    click.option("--label", "-l", multiple=True, help="KEY=VALUE"),
    click.option("--label-file", type=click.File(), multiple=True, help="A file of KEY=VALUE lines"),
    click.option("--annotation", multiple=True, help="KEY=VALUE"),
    click.option(
        "--network", "--net", multiple=True, help="NAME, name=NAME,ip=…,alias=…, host, none, container:NAME"
    ),
    click.option("--network-alias", multiple=True, help="Further name on the network"),
    click.option("--ip", help="IPv4 address"),
    click.option("--ip6", help="IPv6 address"),
    click.option("--mac-address", help="MAC address"),
    click.option("--add-host", multiple=True, help="NAME:IP, or NAME:host-gateway"),
    click.option("--dns", multiple=True, help="Name server"),
    click.option("--dns-search", multiple=True, help="Search domain"),
    click.option("--dns-option", multiple=True, help="Resolver option"),
    click.option("--memory", "-m", help="Limit, for example 64m"),
    click.option("--memory-swap", help="Memory and swap together; -1: unlimited"),
    click.option("--cpus", help="Limit, for example 0.5"),
    click.option("--cpu-shares", "-c", type=int, help="Relative weight"),
    click.option("--cpuset-cpus", help="For example 0-1"),
    click.option("--cpuset-mems", help="Memory nodes, for example 0-1"),
    click.option("--memory-swappiness", type=int, help="0 to 100 (cgroup v1)"),
    click.option("--oom-kill-disable", is_flag=True, help="Don't kill when memory ends (cgroup v1)"),
    click.option("--oom-score-adj", type=int, help="-1000 to 1000"),
    click.option("--blkio-weight", type=int, help="Weight of its disk use, 10 to 1000"),
    click.option("--blkio-weight-device", multiple=True, help="DEVICE:WEIGHT"),
    click.option("--device-read-bps", multiple=True, help="DEVICE:RATE, for example /dev/sda:1mb"),
    click.option("--device-write-bps", multiple=True, help="DEVICE:RATE"),
    click.option("--device-read-iops", multiple=True, help="DEVICE:COUNT"),
    click.option("--device-write-iops", multiple=True, help="DEVICE:COUNT"),
    click.option("--device", multiple=True, help="HOST[:CONTAINER][:rwm]"),
    click.option("--device-cgroup-rule", multiple=True, help="For example 'c 10:200 rwm'"),
    click.option("--pids-limit", type=int, help="Processes at most"),
    click.option("--ulimit", multiple=True, help="NAME=SOFT[:HARD]"),
    click.option("--shm-size", help="Size of /dev/shm"),
    click.option("--cap-add", multiple=True, help="Capability"),
    click.option("--cap-drop", multiple=True, help="Capability"),
    click.option("--security-opt", multiple=True, help="seccomp=unconfined, no-new-privileges, profile=…"),
    click.option("--privileged", is_flag=True, help="All capabilities and devices"),
    click.option("--sysctl", multiple=True, help="KEY=VALUE"),
    click.option("--read-only", is_flag=True, help="Read-only root"),
    click.option("--init", is_flag=True, help="An init that reaps processes"),
    click.option("--stop-signal", help="Signal that asks it to stop"),
    click.option("--stop-timeout", type=float, help="Seconds between that and kill"),
    click.option("--log-opt", multiple=True, help="max-size=10m, max-file=3"),
    click.option("--platform", help="os/arch"),
    click.option("--constraint", multiple=True, help="For example node.labels.zone==a"),
)
HEALTH = (
    click.option("--health-cmd", help="Command that exits with 0 when it is well"),
    click.option("--health-tcp", help="PORT that takes a connection when it is well"),
    click.option("--health-http", help="PORT/PATH that answers GET with 200 to 399 when it is well"),
    click.option("--health-interval", help="Time between checks (30s)"),
    click.option("--health-timeout", help="How long one may take (30s)"),
    click.option("--health-retries", type=int, help="Failures in a row until it is unhealthy (3)"),
    click.option("--health-start-period", help="Time to start, in which failures don't count (0s)"),
    click.option("--health-start-interval", help="Longest pause between checks while it starts (5s)"),
    click.option("--no-healthcheck", is_flag=True, help="No check, also if the image has one"),
)
PLAIN = (
    click.option("--name", default="", help="Its name; one is invented without"),
    click.option("--interactive", "-i", is_flag=True, help="Keep stdin open"),
    click.option("--tty", "-t", is_flag=True, help="Give it a terminal"),
    click.option("--rm", is_flag=True, help="Remove it when it ends"),
    click.option(
        "--publish",
        "-p",
        multiple=True,
        help="[IP:][HOST:]CONTAINER[/PROTOCOL], or published=…,target=…,allow=RANGE",
    ),
    click.option("--publish-all", "-P", is_flag=True, help="Publish all exposed ports"),
    click.option("--expose", multiple=True, help="PORT[-PORT][/PROTOCOL], for --publish-all"),
    click.option("--restart", help="no, always, unless-stopped, on-failure[:N]"),
    click.option("--pid", type=click.Choice(["host"]), help="Share the host's processes"),
    click.option("--ipc", type=click.Choice(["host", "private", ""]), help="Share the host's IPC"),
    click.option("--uts", type=click.Choice(["host"]), help="Have the host's name"),
    click.option("--cgroupns", type=click.Choice(["host", "private"]), help="See the host's cgroups"),
    click.option("--pull", type=click.Choice(["missing", "always", "never"]), help="When to pull the image"),
    click.option("--cidfile", type=click.Path(), help="Write its id to this file"),
    click.option("--node", default="", help="Run it on this host"),
)


def container_options(command: F) -> F:
    for option in reversed(CONTAINER + HEALTH):
        command = option(command)
    return command


_LIMITS = (
    click.option("--memory", "-m", help="Limit, for example 64m; 0: none"),
    click.option("--memory-swap", help="Memory and swap together; -1: unlimited"),
    click.option("--cpus", help="Limit, for example 0.5; 0: none"),
    click.option("--cpu-shares", "-c", type=int, help="Relative weight"),
    click.option("--cpuset-cpus", help="For example 0-1"),
    click.option("--cpuset-mems", help="Memory nodes, for example 0-1"),
    click.option("--pids-limit", type=int, help="Processes at most; -1: no limit"),
    click.option("--blkio-weight", type=int, help="Weight of its disk use, 10 to 1000"),
    click.option("--restart", help="no, always, unless-stopped, on-failure[:N]"),
)


def limit_options(command: F) -> F:
    """Of `update`."""
    for option in reversed(_LIMITS):
        command = option(command)
    return command


def _policy(kind: str) -> tuple[Callable[[F], F], ...]:
    actions = ["pause", "continue"] if kind == "rollback" else ["pause", "continue", "rollback"]
    return (
        click.option(f"--{kind}-parallelism", type=int, help="Replaced at a time (1); 0: all"),
        click.option(f"--{kind}-delay", help="Pause between them (0s)"),
        click.option(
            f"--{kind}-order",
            type=click.Choice(["stop-first", "start-first"]),
            help="Whether the old one goes first (stop-first)",
        ),
        click.option(f"--{kind}-failure-action", type=click.Choice(actions), help="If one fails (pause)"),
        click.option(f"--{kind}-monitor", help="How long the last must stay ready until it is done (5s)"),
        click.option(f"--{kind}-max-failure-ratio", help="Share of new ones that may fail (0)"),
    )


def policy_options(command: F) -> F:
    for option in reversed(_policy("update") + _policy("rollback")):
        command = option(command)
    return command


REGISTRY = (
    click.option(
        "--with-registry-auth", is_flag=True, help="Keep your login at the controller, for hosts that pull"
    ),
    click.option(
        "--no-resolve-image", is_flag=True, help="Leave the tag: each host pulls what it then means"
    ),
)
RESTART: tuple[Callable[[F], F], ...] = (
    click.option(
        "--restart-condition",
        type=click.Choice(["none", "on-failure", "any"]),
        help="When a container's end is followed by a start (any)",
    ),
    click.option("--restart-delay", help="First pause before that; it doubles"),
    click.option("--restart-max-attempts", type=int, help="0: without end"),
    click.option("--restart-window", help="A run this long counts as good"),
)


def restart_options(command: F) -> F:
    for option in reversed(RESTART):
        command = option(command)
    return command


def registry_options(command: F) -> F:
    for option in reversed(REGISTRY):
        command = option(command)
    return command


def health_options(command: F) -> F:
    for option in reversed(HEALTH):
        command = option(command)
    return command


def plain_options(command: F) -> F:
    for option in reversed(PLAIN):
        command = option(command)
    return command


def read_files(flags: dict[str, Any]) -> None:
    """Replace the open files of `--env-file` and `--label-file` by what they hold."""
    for name in ("env_file", "label_file"):
        flags[name] = [file.read() for file in flags[name]]
