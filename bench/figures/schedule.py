"""From `service create` to a replica that runs, or is known to be well, against Swarm on three hosts."""

from __future__ import annotations

import time
from typing import Any

from bench.http import Api
from bench.peers import IMAGE
from bench.stage import Stage
from bench.table import Figure, Samples

COMMAND = ["sleep", "1000"]


HEALTH = {"probe": {"type": "shell", "command": "true"}, "interval": 1.0}
SWARM_HEALTH = {"Test": ["CMD-SHELL", "true"], "Interval": 1_000_000_000}


def service_create(stage: Stage, runs: int) -> Samples:
    """One replica on an overlay network; both are watched through their own API without a pause."""
    return _compared(stage, runs, checked=False)


def service_ready(stage: Stage, runs: int) -> Samples:
    """As `service_create`, with a health check every second that always succeeds."""
    return _compared(stage, runs, checked=True)


def _compared(stage: Stage, runs: int, *, checked: bool) -> Samples:
    ours, swarm = stage.api(), stage.swarm
    network = "readynet" if checked else "benchnet"
    stage.fleet.flota("n1", "network", "create", network)
    swarm.run("n1", "network", "create", "-d", "overlay", network)
    theirs = swarm.api()
    mine, peer = [], []
    for turn in range(-1, runs):
        name = f"{network}-{turn + 1}"
        a = _flota(ours, name, network, checked=checked)
        b = _swarm(theirs, name, network, swarm.image_id, checked=checked)
        if turn >= 0:
            mine.append(a)
            peer.append(b)
    stage.fleet.flota("n1", "network", "rm", network)
    return Samples(ours=tuple(mine), peer=tuple(peer))


def _flota(api: Api, name: str, network: str, *, checked: bool) -> float:
    container: dict[str, Any] = {"image": IMAGE, "args": COMMAND, "networks": [{"network": network}]}
    container |= {"stop_grace": 0.1, **({"health": HEALTH} if checked else {})}
    key, wanted = ("health", "healthy") if checked else ("phase", "running")
    began = time.perf_counter()
    api.call("POST", "/v1/services", {"name": name, "container": container})
    while not any(
        i["status"].get(key) == wanted for i in api.call("GET", f"/v1/services/{name}").get("instances", [])
    ):
        pass
    took = (time.perf_counter() - began) * 1000
    api.call("DELETE", f"/v1/services/{name}")
    while any(s["service"]["spec"]["name"] == name for s in api.call("GET", "/v1/services")):
        time.sleep(0.05)
    return took


def _swarm(api: Api, name: str, network: str, image_id: str, *, checked: bool) -> float:
    """A task with a health check is running, in its words, once it is healthy."""
    container = {"Image": image_id, "Args": COMMAND, "StopGracePeriod": 100_000_000}
    task = {
        "ContainerSpec": {**container, **({"HealthCheck": SWARM_HEALTH} if checked else {})},
        "Networks": [{"Target": network}],
        "RestartPolicy": {"Condition": "none"},
    }
    spec = {
        "Name": name,
        "TaskTemplate": task,
        "Mode": {"Replicated": {"Replicas": 1}},
        "EndpointSpec": {"Mode": "dnsrr"},
    }
    began = time.perf_counter()
    ident = api.call("POST", "/v1.41/services/create", spec)["ID"]
    tasks = f'/v1.41/tasks?filters={{"service":{{"{name}":true}}}}'
    while not any(t["Status"]["State"] == "running" for t in api.call("GET", tasks) or []):
        pass
    took = (time.perf_counter() - began) * 1000
    api.call("DELETE", f"/v1.41/services/{ident}")
    while any(name in n for c in api.call("GET", "/v1.41/containers/json?all=true") for n in c["Names"]):
        time.sleep(0.05)
    return took


FIGURES = (
    (
        Figure(
            name="schedule.service_create",
            what="service of one replica on an overlay network, created through the API, to running",
            unit="ms",
            goal=0.3,
            better="less",
            peer="Swarm",
        ),
        service_create,
    ),
    (
        Figure(
            name="schedule.service_ready",
            what="the same with a health check by command every second, to healthy",
            unit="ms",
            goal=0.3,
            better="less",
            peer="Swarm",
        ),
        service_ready,
    ),
)
