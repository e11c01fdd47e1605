"""A container with one new file over an image of many, committed: the image's size must not matter."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from functools import partial

from bench.figures.images import run
from bench.stage import Stage
from bench.table import Figure, Samples
from deploy.busybox import root_tar

MANY, FEW, PER_FOLDER = 50_000, 500, 100
COMMAND = ["sh", "-c", "echo new >/one; exec sleep 1000"]
Commit = Callable[[int], float]
"""Makes a container for turn N with its new file, and commits it; seconds of the commit."""


def base(count: int) -> bytes:
    """A root file system tar with `count` files of half a kB."""
    return root_tar({f"data/{n // PER_FOLDER}/{n}": b"%0512d" % n for n in range(count)})


class Flota:
    def __init__(self, stage: Stage, count: int) -> None:
        self._api, self._fleet, self._image = stage.api(), stage.fleet, f"base{count}:1"
        known = {name for image in self._fleet.json("images") for name in image.get("names", ())}
        if not any(self._image in name for name in known):
            self._fleet.flota(
                "n1", "import", "--node", "n1", "-", self._image, stdin=base(count), timeout=600
            )

    def __call__(self, turn: int) -> float:
        name = f"one{turn}"
        spec = {"image": self._image, "args": COMMAND}
        self._api.call("POST", "/v1/instances", {"name": name, "host": "n1", "start": True, "spec": spec})
        self._api.call("POST", f"/v1/instances/{name}/wait?condition=running")
        self._fleet.flota("n1", "exec", name, "sh", "-c", "until pidof sleep; do usleep 10000; done; sync")
        began = time.perf_counter()
        self._api.call("POST", f"/v1/instances/{name}/commit", {"ref": f"{name}:1"})
        took = time.perf_counter() - began
        self._api.call("DELETE", f"/v1/instances/{name}?force=true")
        self._fleet.flota("n1", "rmi", f"{name}:1")
        return took


class Docker:
    def __init__(self, stage: Stage, count: int) -> None:
        self._docker, self._api, self._image = stage.docker, stage.docker.api(), f"base{count}:1"
        if self._docker.run("n1", "image", "inspect", self._image, check=False).returncode:
            self._docker.run("n1", "import", "-", self._image, stdin=base(count))

    def __call__(self, turn: int) -> float:
        name = f"one{turn}"
        self._docker.run("n1", "run", "-d", "--name", name, self._image, *COMMAND)
        self._docker.run("n1", "exec", name, "sh", "-c", "until pidof sleep; do usleep 10000; done; sync")
        began = time.perf_counter()
        self._api.call("POST", f"/v1.41/commit?container={name}&repo={name}&tag=1", {})
        took = time.perf_counter() - began
        self._docker.run("n1", "rm", "-f", name)
        self._docker.run("n1", "rmi", f"{name}:1")
        return took


class Buildah:
    """Its working container is a mounted directory; there is no process in it."""

    def __init__(self, stage: Stage, count: int) -> None:
        roots = ["--root", "/var/lib/flota/containers", "--runroot", "/run/containers"]
        self._enter = stage.docker.rig.enter("n1")
        self._words, self._image = [*self._enter, "buildah", *roots], f"base{count}"
        words = [*self._enter, "podman", *roots, "import", "-q", "-", self._image]
        subprocess.run(words, input=base(count), check=True, capture_output=True)

    def __call__(self, turn: int) -> float:
        name = f"one{turn}"
        run(*self._words, "from", "--name", name, f"localhost/{self._image}")
        words = [*self._words, "mount", name]
        place = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
        run(*self._enter, "sh", "-c", f"echo new >{place}/one; sync")
        began = time.perf_counter()
        run(*self._words, "commit", "-q", name, f"localhost/{name}:1")
        took = time.perf_counter() - began
        run(*self._words, "rm", name)
        return took


def against(
    ours: Callable[[Stage], Commit], peer: Callable[[Stage], Commit], stage: Stage, runs: int
) -> Samples:
    one, other = ours(stage), peer(stage)
    pairs = [(one(turn), other(turn + 1000)) for turn in range(-1, runs)][1:]
    return Samples(ours=tuple(a * 1000 for a, _ in pairs), peer=tuple(b * 1000 for _, b in pairs))


def many(side: Callable[[Stage, int], Commit]) -> Callable[[Stage], Commit]:
    return partial(lambda make, stage: make(stage, MANY), side)


WHAT = f"commit of one new file over an image of {MANY:,} files"
FIGURES = (
    (Figure(name="commit.one.docker", what=WHAT, unit="ms", goal=0.5, better="less", peer="docker API",
            runs=6), partial(against, many(Flota), many(Docker))),
    (Figure(name="commit.one.buildah", what=WHAT, unit="ms", goal=0.1, better="less",
            peer="buildah commit", runs=6), partial(against, many(Flota), many(Buildah))),
    (Figure(name="commit.one.flat", what=f"{WHAT}; the peer is ours over {FEW}", unit="ms", goal=1.2,
            better="less", peer=f"flota over {FEW} files", runs=6),
     partial(against, many(Flota), lambda stage: Flota(stage, FEW))),
)  # fmt: skip
