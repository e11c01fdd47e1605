"""From `service create` to a running replica, against Swarm on three hosts."""

from __future__ import annotations

import time

from bench.http import Api
from bench.peers import IMAGE
from bench.stage import Stage
from bench.table import Figure, Samples

COMMAND = ["sleep", "1000"]


def service_create(stage: Stage, runs: int) -> Samples:
    """One replica on an overlay network; both are watched through their own API without a pause."""
    ours, swarm = stage.api(), stage.swarm
    stage.fleet.flota("n1", "network", "create", "benchnet")
    swarm.run("n1", "network", "create", "-d", "overlay", "benchnet")
    theirs = swarm.api()
    mine, peer = [], []
    for turn in range(-1, runs):
        a = _flota(ours, f"s{turn + 1}")
        b = _swarm(theirs, f"s{turn + 1}", swarm.image_id)
        if turn >= 0:
            mine.append(a)
            peer.append(b)
    stage.fleet.flota("n1", "network", "rm", "benchnet")
    return Samples(ours=tuple(mine), peer=tuple(peer))


def _flota(api: Api, name: str) -> float:
    container = {"image": IMAGE, "args": COMMAND, "networks": [{"network": "benchnet"}], "stop_grace": 0.1}
    began = time.perf_counter()
    api.call("POST", "/v1/services", {"name": name, "container": container})
    while not any(
        i["status"].get("phase") == "running"
        for i in api.call("GET", f"/v1/services/{name}").get("instances", [])
    ):
        pass
    took = (time.perf_counter() - began) * 1000
    api.call("DELETE", f"/v1/services/{name}")
    while any(s["service"]["spec"]["name"] == name for s in api.call("GET", "/v1/services")):
        time.sleep(0.05)
    return took


def _swarm(api: Api, name: str, image_id: str) -> float:
    task = {
        "ContainerSpec": {"Image": image_id, "Args": COMMAND, "StopGracePeriod": 100_000_000},
        "Networks": [{"Target": "benchnet"}],
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
)
