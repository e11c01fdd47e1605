"""Probes that rig tests aim at a fleet: replicas, addresses, a steady stream of requests."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, TypeVar

from bench.http import Api
from cli.context import whole
from deploy.fleet import Fleet
from model.api import InstanceInfo
from tests.support.waiting import wait_until

T = TypeVar("T")


AT_ONCE = ("--stop-signal", "KILL")
"""Of containers whose first program hears no signal that asks: their end is not what is waited for."""


def told(fleet: Fleet, path: str) -> Any:
    """What the controller answers to GET, without a command's time: for looks that are not about one. Fields
    that have their default are left out. Raises RuntimeError, as a command that fails does."""
    api = Api(fleet.socket())
    try:
        return api.call("GET", path)
    except (OSError, HTTPException) as error:
        raise RuntimeError(f"GET {path}: {error}") from error
    finally:
        api.close()


def replicas(fleet: Fleet, service: str, phase: str = "running") -> list[dict[str, Any]]:
    """As `flota service ps` says them."""
    found = whole(told(fleet, f"/v1/services/{service}").get("instances", ()), InstanceInfo)
    return [r for r in found if r["status"].get("phase") == phase]


def wait_replicas(fleet: Fleet, service: str, count: int, deadline: float = 30) -> list[dict[str, Any]]:
    return wait_until(
        lambda: found if len(found := replicas(fleet, service)) == count else None,
        deadline=deadline,
        what=f"{count} running replicas of {service}",
    )


def settled(look: Callable[[], T], *, what: str, pause: float = 0.5) -> T:
    """What a look finds twice in a row: what is told after a command's end has come to an end too."""
    seen: list[T] = []

    def again() -> bool:
        seen.append(look())
        return len(seen) > 1 and seen[-1] == seen[-2]

    wait_until(again, deadline=15, what=f"{what} to settle", pause=pause)
    return seen[-1]


def address(info: dict[str, Any], network: str) -> str:
    """The instance's IPv4 address on a network."""
    found: str = next(e["ipv4"] for e in info["status"]["endpoints"] if e["network_name"] == network)
    return found


def on_host(fleet: Fleet, host: str, *words: str) -> str:
    return fleet.rig.exec(host, list(words)).stdout.decode()


def local_pid(fleet: Fleet, host: str, pid: int) -> int:
    """This machine's pid of a process that a host knows by `pid`."""
    for candidate in fleet.rig.processes(host):
        try:
            with open(f"/proc/{candidate}/status") as file:
                chain = next(line for line in file if line.startswith("NSpid:")).split()[1:]
        except OSError:
            continue
        if len(chain) >= 2 and chain[1] == str(pid):
            return candidate
    raise AssertionError(f"no process {pid} of {host} is seen from outside")


def background(fleet: Fleet, host: str, *words: str) -> subprocess.Popen[bytes]:
    """A program on a host that runs beside the test, and ends with the process returned; its output is
    kept."""
    return subprocess.Popen(
        # nsenter(1) waits for the program, and would leave it behind
        [*fleet.rig.enter(host), "setpriv", "--pdeathsig", "KILL", "--", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
