"""An image of 14 layers and 700 MB pulled and pushed by one host, against Docker Engine and Podman.

All take the same image from the same program's registry on their own host, each time one of which nobody has
any layer. Before each turn everything is written back, and what the registry sends read once. Nothing is
deleted in between: a file system is slow where much went just before.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from bench.bigimage import make, variant
from bench.registry import PORT, Registry
from bench.stage import Stage
from bench.table import Figure, Samples
from deploy.fleet import FLOTA

Side = Callable[[str], object]
"""Pulls a reference."""
ELSEWHERE = 5001
"""Port of the registry that is pushed to."""
PATIENCE = 600.0


class Scene:
    """Images that nobody has seen, in registries on the first hosts of both rigs."""

    def __init__(self, stage: Stage, folder: Path, stack: ExitStack) -> None:
        self._folder, self._base = folder, folder / "base"
        make(self._base)
        rigs = (stage.fleet.rig, stage.docker.rig)
        stores = ((folder / "from", PORT), (folder / "to", ELSEWHERE))
        self._registry, *_ = [
            stack.enter_context(closing(Registry(rig, "n1", store, port=port)))
            for rig in rigs
            for store, port in stores
        ]

    def fresh(self, tag: str) -> str:
        """The reference of an image that nobody has seen."""
        layout = variant(self._folder / tag, self._base, tag)
        reference = self._registry.fill(layout, tag, "big")
        shutil.rmtree(layout)
        return reference

    def settle(self) -> None:
        """Nothing of an earlier turn is left to write, and what the registry sends is at hand."""
        os.sync()
        for blob in (self._folder / "from").rglob("data"):
            blob.read_bytes()


@contextmanager
def scene(stage: Stage) -> Iterator[Scene]:
    folder = stage.folder / "images"
    folder.mkdir()
    try:
        with ExitStack() as stack:
            yield Scene(stage, folder, stack)
    finally:
        shutil.rmtree(folder)


def flota(stage: Stage) -> Side:
    words = [FLOTA, "--host", f"unix://{stage.fleet.socket()}", "pull", "-q", "--node", "n1"]
    return lambda reference: run(*words, reference)


def docker(stage: Stage) -> Side:
    return lambda reference: stage.docker.run("n1", "pull", "-q", reference)


def podman(stage: Stage) -> Side:
    words = [*stage.docker.rig.enter("n1"), "podman", "--root", "/var/lib/flota/podman"]
    words += ["--runroot", "/run/podman", "pull", "-q", "--tls-verify=false"]
    return lambda reference: run(*words, reference)


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=PATIENCE)


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def pull(peer: Callable[[Stage], Side]) -> Callable[[Stage, int], Samples]:
    def measure(stage: Stage, runs: int) -> Samples:
        kept: tuple[list[float], list[float]] = ([], [])
        with scene(stage) as images:
            sides = (flota(stage), peer(stage))
            for turn in range(runs):
                reference = images.fresh(f"{peer.__name__}{turn}")
                for side, times in zip(sides, kept, strict=True):
                    images.settle()
                    times.append(seconds(partial(side, reference)))
        return Samples(ours=tuple(kept[0]), peer=tuple(kept[1]))

    return measure


def push(stage: Stage, runs: int) -> Samples:
    """To a registry that has none of it, by a host that has pulled it."""
    ours = [FLOTA, "--host", f"unix://{stage.fleet.socket()}"]
    theirs = ["docker", "-H", f"unix://{stage.docker.socket()}"]
    kept: tuple[list[float], list[float]] = ([], [])
    with scene(stage) as images:
        for turn in range(runs):
            reference = images.fresh(f"push{turn}")
            flota(stage)(reference)
            docker(stage)(reference)
            for words, side, times in zip((ours, theirs), ("flota", "docker"), kept, strict=True):
                there = f"127.0.0.1:{ELSEWHERE}/{side}{turn}:1"
                run(*words, "tag", reference, there)
                images.settle()
                node = ("--node", "n1") if words is ours else ()
                times.append(seconds(partial(run, *words, "push", "-q", *node, there)))
    return Samples(ours=tuple(kept[0]), peer=tuple(kept[1]))


WHAT = "pull and unpack an image of 14 layers, 700 MB, from a registry on the host"
FIGURES = (
    (Figure(name="pull.docker", what=WHAT, unit="s", goal=0.6, better="less", peer="docker pull", runs=3),
     pull(docker)),
    (Figure(name="pull.podman", what=WHAT, unit="s", goal=0.6, better="less", peer="podman pull", runs=3),
     pull(podman)),
    (Figure(name="push.docker", what="push the same image to a registry that has none of it", unit="s",
            goal=1.0, better="less", peer="docker push", runs=3), push),
)  # fmt: skip
