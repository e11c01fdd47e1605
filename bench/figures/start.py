"""Container starts against Docker Engine and raw runc; images warm, default network, rigs of one kind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench.http import Api
from bench.peers import IMAGE
from bench.rawrunc import RawRunc
from bench.stage import Stage
from bench.table import Figure, Samples

BURST = 30
COMMAND = ["sleep", "1000"]


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _start_flota(api: Api, name: str) -> None:
    """Created, placed, started, seen running: what the API answers when the container runs."""
    spec = {"image": IMAGE, "args": COMMAND}
    api.call("POST", "/v1/instances", {"name": name, "host": "n1", "start": True, "spec": spec})
    api.call("POST", f"/v1/instances/{name}/wait?condition=running")


def _remove_flota(api: Api, name: str) -> None:
    api.call("DELETE", f"/v1/instances/{name}?force=true")
    api.call("POST", f"/v1/instances/{name}/wait?condition=removed")


def _start_docker(api: Api, name: str) -> None:
    api.call("POST", f"/v1.41/containers/create?name={name}", {"Image": IMAGE, "Cmd": COMMAND})
    api.call("POST", f"/v1.41/containers/{name}/start")


def _remove_docker(api: Api, name: str) -> None:
    api.call("DELETE", f"/v1.41/containers/{name}?force=true")


def by_api(stage: Stage, runs: int) -> Samples:
    ours, theirs = stage.api(), stage.docker.api()
    raw = RawRunc(stage.folder / "raw", stage.tar)
    mine, peer, limit = [], [], []
    for turn in range(-1, runs):
        name = f"a{turn + 1}"
        a = _timed(partial(_start_flota, ours, name))
        b = _timed(partial(_start_docker, theirs, name))
        c = _timed(partial(raw.start, name))
        _remove_flota(ours, name)
        _remove_docker(theirs, name)
        raw.remove(name)
        if turn >= 0:
            mine.append(a)
            peer.append(b)
            limit.append(c)
    raw.close()
    return Samples(ours=tuple(mine), peer=tuple(peer), limit=tuple(limit))


def by_command(stage: Stage, runs: int) -> Samples:
    flota = str(Path(sys.executable).with_name("flota"))
    ours = [flota, "--host", f"unix://{stage.fleet.socket()}", "run", "--rm", "--node", "n1", IMAGE, "true"]
    theirs = ["docker", "-H", f"unix://{stage.docker.socket()}", "run", "--rm", IMAGE, "true"]
    mine, peer = [], []
    for turn in range(-1, runs):
        a = _timed(lambda: subprocess.run(ours, check=True, capture_output=True))
        b = _timed(lambda: subprocess.run(theirs, check=True, capture_output=True))
        if turn >= 0:
            mine.append(a)
            peer.append(b)
    return Samples(ours=tuple(mine), peer=tuple(peer))


def burst(stage: Stage, runs: int) -> Samples:
    """Starts per second, `BURST` asked for at once by eight clients."""
    raw = RawRunc(stage.folder / "rawburst", stage.tar)
    fleet, docker = stage.fleet.socket(), stage.docker.socket()
    kept: tuple[list[float], ...] = ([], [], [])
    for turn in range(-1, runs):
        rates = [
            _rate(lambda n: _on(fleet, _start_flota, n), turn),
            _rate(lambda n: _on(docker, _start_docker, n), turn),
            _rate(raw.start, turn),
        ]
        for name in _names(turn):
            _on(fleet, _remove_flota, name)
            _on(docker, _remove_docker, name)
            raw.remove(name)
        if turn >= 0:
            for side, rate in zip(kept, rates, strict=True):
                side.append(rate)
    raw.close()
    mine, peer, limit = map(tuple, kept)
    return Samples(ours=mine, peer=peer, limit=limit)


def _names(turn: int) -> list[str]:
    return [f"b{turn + 1}x{i}" for i in range(BURST)]


def _on(socket: str, call: Callable[[Api, str], None], name: str) -> None:
    api = Api(socket)
    call(api, name)
    api.close()


def _rate(start: Callable[[str], None], turn: int) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, _names(turn)))
    return BURST / (time.perf_counter() - began)


FIGURES = (
    (
        Figure(
            name="start.api",
            what="one container created and started through the API, to running",
            unit="ms",
            goal=0.4,
            better="less",
            peer="docker API",
            limit="runc and an overlay mount",
        ),
        by_api,
    ),
    (
        Figure(
            name="start.cli",
            what="`run --rm IMAGE true`, the whole command",
            unit="ms",
            goal=0.8,
            better="less",
            peer="docker run",
        ),
        by_command,
    ),
    (
        Figure(
            name="start.burst",
            what=f"{BURST} containers asked for at once, until all run",
            unit="starts/s",
            goal=3.0,
            better="more",
            peer="docker API",
            limit="runc and overlay mounts",
            runs=10,
        ),
        burst,
    ),
)
