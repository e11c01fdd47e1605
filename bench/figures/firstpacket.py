"""From a container's running stamp to the first answer that another host's container gets of it.

All hosts of a rig have one clock, so the agent's stamp and the prober's are comparable. The bound is the
promise itself: the peer is no program but 20 ms.
"""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from bench.figures.overlay import container_pid
from bench.http import Api
from bench.namespaces import ROOT
from bench.peers import IMAGE
from bench.stage import Stage
from bench.table import Figure, Samples
from deploy.fleet import Fleet

STARTS = 200
BOUND = 20.0
"""Milliseconds, of the 99th of a hundred."""
COMMAND = ["sleep", "100000"]
TOGETHER = 50
"""Containers that stand at once."""
LEAST = 20
"""Below, a 99th percentile would mean nothing."""


def routed(stage: Stage, runs: int) -> Samples:
    return _measured(stage, runs, {})


def bridged(stage: Stage, runs: int) -> Samples:
    return _measured(stage, runs, {"mode": "bridged"})


def _measured(stage: Stage, runs: int, options: dict[str, str]) -> Samples:
    """`runs` starts, one after the other."""
    found = sorted(_waits(stage, max(runs, LEAST), options))
    p99 = found[(len(found) * 99 - 1) // 100]
    note = f"{len(found)} starts, median {median(found):.2g} ms, longest {found[-1]:.3g} ms"
    return Samples(ours=(p99,), peer=(BOUND,), note=note)


def _waits(stage: Stage, count: int, options: dict[str, str]) -> list[float]:
    """Milliseconds of each start."""
    fleet, api = stage.fleet, stage.api()
    words = [word for key, value in options.items() for word in ("--opt", f"{key}={value}")]
    fleet.flota("n1", "network", "create", *words, "firstnet")
    found: list[float] = []
    try:
        for host in ("n1", "n2"):
            words = ["--name", f"first{host}", "--network", "firstnet", "--node", host]
            fleet.flota("n1", "run", "-d", *words, IMAGE, *COMMAND)
        (foot,) = fleet.json("inspect", "firstn2")[0]["status"]["endpoints"]
        with _prober(container_pid(stage, "firstn1", "n1")) as ask:
            standing: list[str] = []
            for address in _beside(foot["ipv4"], count):
                name = f"first-{len(found)}"
                ask(f"aim {address}")
                began = float(_started(api, name, address)["started_at"])
                standing.append(name)
                taken = float(ask(f"since {began!r}"))
                if taken < 0:
                    raise RuntimeError(f"{name} never answered")
                found.append(taken * 1000)
                if len(standing) == TOGETHER:
                    _remove(fleet, standing)
            _remove(fleet, standing)
    finally:
        for host in ("n1", "n2"):
            fleet.attempt("n1", "rm", "-f", f"first{host}")
        fleet.flota("n1", "network", "rm", "firstnet")
        api.close()
    return found


def _beside(address: str, count: int) -> list[str]:
    """So many addresses of the same /24, highest first: those that nobody was given meanwhile."""
    hosts = list(ipaddress.ip_network(f"{address}/24", strict=False).hosts())
    return [str(one) for one in reversed(hosts) if str(one) != address][:count]


def _started(api: Api, name: str, address: str) -> dict[str, Any]:
    """Its status, once it runs. The answer to the wait comes by the controller; the stamp is the agent's."""
    networks = [{"network": "firstnet", "ipv4": address}]
    spec = {"image": IMAGE, "args": COMMAND, "stop_grace": 0.1, "networks": networks}
    api.call("POST", "/v1/instances", {"name": name, "host": "n2", "start": True, "spec": spec})
    api.call("POST", f"/v1/instances/{name}/wait?condition=running")
    status: dict[str, Any] = api.call("GET", f"/v1/instances/{name}")["status"]
    return status


def _remove(fleet: Fleet, names: list[str]) -> None:
    if names:
        fleet.flota("n1", "rm", "-f", *names, timeout=120)
    names.clear()


@contextmanager
def _prober(pid: int) -> Iterator[Any]:
    """`bench.prober` beside a container's process: say a line, wait for its answer."""
    argv = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-m", "bench.prober"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        assert process.stdin is not None and process.stdout is not None
        out, into = process.stdout, process.stdin

        def ask(line: str) -> str:
            into.write(line + "\n")
            into.flush()
            return out.readline().strip()

        if out.readline().strip() != "ready":
            raise RuntimeError("the prober did not start")
        yield ask
        into.close()


FIGURES = tuple(
    (
        Figure(
            name=f"overlay.first.{measure.__name__}",
            what=f"99 of 100 starts: from its running stamp to a container's first answer to another host's, "
            f"{measure.__name__} overlay",
            unit="ms",
            goal=1.0,
            better="less",
            peer="the bound",
            runs=STARTS,
        ),
        measure,
    )
    for measure in (routed, bridged)
)
