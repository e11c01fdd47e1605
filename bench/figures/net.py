"""Giving a container its network, against what other engines do for it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

from bench.http import Api
from bench.namespaces import Program, namespaces, run
from bench.peers import IMAGE
from bench.stage import Stage
from bench.table import Figure, Samples

STANDING = 20
"""Containers that are there before."""
MOST = 10.0
"""Milliseconds that an attachment may take."""
HOST, PEER = "flnt-host", "flnt-peer"


def attach(stage: Stage, runs: int) -> Samples:
    """By turns on two hosts, each first every other time."""
    folder = Path(tempfile.mkdtemp(prefix="flota-net-", dir="/run"))
    mine, theirs, least = list[float](), list[float](), list[float]()
    try:
        with namespaces(HOST, PEER):
            _uplink(HOST)
            (folder / "peer").mkdir()
            with (
                Program(HOST, "bench.attachhost", str(folder / "host")) as ours,
                Program(PEER, "bench.peerhost", str(folder / "peer")) as peer,
            ):
                ours.ask(f"fill {STANDING}")
                for turn in range(-1, runs):
                    sides: list[Callable[[], list[float]]] = [
                        lambda: ours.ask("attach"),
                        lambda: peer.ask("cni"),
                    ]
                    if turn % 2:
                        (b,), (a,) = sides[1](), sides[0]()
                    else:
                        (a,), (b,) = sides[0](), sides[1]()
                    (c,) = peer.ask("bare")
                    if turn >= 0:
                        for kept, seconds in ((mine, a), (theirs, b), (least, c)):
                            kept.append(seconds * 1000)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    verdict = "within" if median(mine) <= MOST else "beyond"
    note = (
        f"p99 {quantiles(mine, n=100)[98]:.3g} ms; the median is {verdict} the {MOST:g} ms that it may take"
    )
    return Samples(ours=tuple(mine), peer=tuple(theirs), limit=tuple(least), note=note)


def connect(stage: Stage, runs: int) -> Samples:
    """By the API, until the process has the interface; taking it off again is not counted."""
    ours, theirs = stage.api(), stage.docker.api()
    spec = {"image": IMAGE, "args": ["sleep", "100000"]}
    ours.call("POST", "/v1/networks", {"name": "benchnc", "driver": "bridge"})
    ours.call("POST", "/v1/instances", {"name": "nc", "host": "n1", "start": True, "spec": spec})
    ours.call("POST", "/v1/instances/nc/wait?condition=running")
    theirs.call("POST", "/v1.41/networks/create", {"Name": "benchnc", "Driver": "bridge"})
    stage.docker.run("n1", "run", "-d", "--name", "nc", IMAGE, "sleep", "100000")
    mine, peer = [], []
    try:
        for turn in range(-1, runs):
            a, b = _connect_flota(ours), _connect_docker(theirs)
            if turn >= 0:
                mine.append(a)
                peer.append(b)
    finally:
        ours.call("DELETE", "/v1/instances/nc?force=true")
        ours.call("POST", "/v1/instances/nc/wait?condition=removed")
        ours.call("DELETE", "/v1/networks/benchnc")
        stage.docker.run("n1", "rm", "-f", "nc")
        stage.docker.run("n1", "network", "rm", "benchnc")
    return Samples(ours=tuple(mine), peer=tuple(peer))


def _connect_flota(api: Api) -> float:
    began = time.perf_counter()
    api.call("POST", "/v1/networks/benchnc/connect", {"container": "nc"})
    reply = api.call("POST", "/v1/instances/nc/wait?condition=wired")
    took = (time.perf_counter() - began) * 1000
    if reply.get("message"):
        raise RuntimeError(reply["message"])
    api.call("POST", "/v1/networks/benchnc/disconnect", {"container": "nc"})
    api.call("POST", "/v1/instances/nc/wait?condition=wired")
    return took


def _connect_docker(api: Api) -> float:
    began = time.perf_counter()
    api.call("POST", "/v1.41/networks/benchnc/connect", {"Container": "nc"})
    took = (time.perf_counter() - began) * 1000
    api.call("POST", "/v1.41/networks/benchnc/disconnect", {"Container": "nc"})
    return took


def _uplink(host: str) -> None:
    """The link that its tunnels go by."""
    run("ip", "-n", host, "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    for name in ("up0", "up1"):
        run("ip", "-n", host, "link", "set", name, "up")
    run("ip", "-n", host, "address", "add", "192.0.2.1/24", "dev", "up0")


FIGURES = (
    (
        Figure(
            name="net.attach",
            what="a container's network from nothing, to where its names are served",
            unit="ms",
            goal=0.4,
            better="less",
            peer="CNI bridge plugin",
            limit="namespace and pair alone",
            runs=100,
        ),
        attach,
    ),
    (
        Figure(
            name="net.connect",
            what="a running container put on another network, through the API",
            unit="ms",
            goal=0.5,
            better="less",
            peer="docker API",
            runs=20,
        ),
        connect,
    ),
)
