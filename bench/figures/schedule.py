"""From `service create` to a replica that runs, or is known to be well, against Swarm on three hosts; and
what it costs the controller to give many replicas their fixed addresses."""

from __future__ import annotations

import time
from itertools import count
from typing import Any

from msgspec.structs import replace

from bench.http import Api
from bench.peers import IMAGE
from bench.stage import Stage
from bench.table import Figure, Samples
from controller.placing import World
from controller.reconcile.service import plan_service
from controller.snapshot import Cluster
from model.ids import HostId, InstanceId, NetworkId, ServiceId
from model.records import Block, Host, Instance, Network, Record, ResolvedAttachment, Service
from model.spec import Attachment, ContainerSpec, HostSpec, NetworkSpec, Replicated, ServiceSpec, Subnet
from model.status import HostFacts, HostState

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


REPLICAS, OTHERS, HOSTS = 1000, 5000, 100


def fixed_addresses(stage: Stage, runs: int) -> Samples:
    """One plan for a service of 1,000 replicas on a network with 5,000 containers, on 100 hosts."""
    listed, drawn = Attachment(network="blue", ipv4="10.8.0.0-10.8.15.255"), Attachment(network="blue")
    pairs = [(_planned(listed), _planned(drawn)) for _ in range(runs)]
    return Samples(ours=tuple(ours for ours, _ in pairs), peer=tuple(peer for _, peer in pairs))


def _planned(wish: Attachment) -> float:
    service = Service(
        id=ServiceId("web"),
        spec=ServiceSpec(
            name="web",
            container=ContainerSpec(image=IMAGE, networks=(wish,)),
            mode=Replicated(replicas=REPLICAS),
        ),
    )
    network = NetworkSpec(name="blue", subnets=(Subnet(cidr="10.0.0.0/12"),))
    records: list[Record] = [service, Network(id=NetworkId("blue"), spec=network, vni=4096)]
    for number in range(HOSTS):
        host = HostId(f"h{number}")
        facts = HostFacts(hostname=host, address=f"192.0.2.{number}", nano_cpus=1 << 40, memory=1 << 50)
        records.append(Host(id=host, spec=HostSpec(name=host), facts=facts, state=HostState.READY))
        records.append(Block(network=NetworkId("blue"), cidr=f"10.1.{number}.0/24", host=host))
    for number in range(OTHERS):
        made = Instance(id=InstanceId(f"i{number}"), name=f"i{number}", spec=ContainerSpec(image=IMAGE))
        attached = (ResolvedAttachment(network=NetworkId("blue")),)
        records.append(replace(made, host=HostId(f"h{number % HOSTS}"), attachments=attached))
    cluster, ids = Cluster().apply(records, (), 1)[0], count()
    began = time.perf_counter()
    plan_service(cluster, service.id, World(), 0.0, lambda: f"{next(ids):064x}")
    return (time.perf_counter() - began) * 1000


FIGURES = (
    (
        Figure(
            name="schedule.fixed_addresses",
            what="plan for 1,000 replicas with listed addresses on a network with 5,000 containers",
            unit="ms",
            goal=2.0,
            better="less",
            peer="without fixed addresses",
            runs=4,
        ),
        fixed_addresses,
    ),
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
