"""Images made of containers, against Docker Engine: what changed is the same, the base is the same."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.http import Api
from bench.peers import IMAGE
from bench.stage import Stage
from bench.table import Figure, Samples

FILES, LARGE = 5000, 200
SMALL = f"n=0; mkdir /m; while [ $((n+=1)) -le {FILES} ]; do echo $n >/m/$n; done"
BIG = f"dd if=/dev/urandom of=/big bs=1M count={LARGE} 2>/dev/null"
FLOTA = str(Path(sys.executable).with_name("flota"))


def _commit_flota(api: Api, name: str) -> None:
    api.call("POST", f"/v1/instances/{name}/commit", {"ref": f"{name}:1"})


def _commit_docker(api: Api, name: str) -> None:
    api.call("POST", f"/v1.41/commit?container={name}&repo={name}&tag=1", {})


def _measure(change: str) -> Callable[[Stage, int], Samples]:
    def measure(stage: Stage, runs: int) -> Samples:
        ours, theirs = stage.api(), stage.docker.api()
        sides = {
            "flota": [FLOTA, "--host", f"unix://{stage.fleet.socket()}"],
            "docker": ["docker", "-H", f"unix://{stage.docker.socket()}"],
        }
        kept: dict[str, list[float]] = {side: [] for side in sides}
        for turn in range(-1, runs):
            name = f"commit{turn + 1}"
            for side, words in sides.items():
                where = ["--node", "n1"] if side == "flota" else []
                _run(
                    *words,
                    "run",
                    "-d",
                    "--name",
                    name,
                    *where,
                    IMAGE,
                    "sh",
                    "-c",
                    f"{change}; exec sleep 1000",
                )
                _run(*words, "exec", name, "sh", "-c", "until pidof sleep; do usleep 10000; done; sync")
                began = time.perf_counter()
                _commit_flota(ours, name) if side == "flota" else _commit_docker(theirs, name)
                if turn >= 0:
                    kept[side].append((time.perf_counter() - began) * 1000)
                _run(*words, "rm", "-f", name)
                _run(*words, "rmi", f"{name}:1")
        return Samples(ours=tuple(kept["flota"]), peer=tuple(kept["docker"]))

    return measure


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


FIGURES = (
    (
        Figure(
            name="commit.files",
            what=f"commit of a running container with {FILES} new small files",
            unit="ms",
            goal=1.0,
            better="less",
            peer="docker API",
            runs=6,
        ),
        _measure(SMALL),
    ),
    (
        Figure(
            name="commit.large",
            what=f"commit of a running container with one new file of {LARGE} MiB",
            unit="ms",
            goal=1.0,
            better="less",
            peer="docker API",
            runs=6,
        ),
        _measure(BIG),
    ),
)
