"""Eight hosts that pull one image at once from a registry behind a slow line: how long, how many bytes.

The line is what a fleet shares in truth; the hosts of this machine share two processors as well. Bytes are
what the registry's link counts, protocol and all.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from functools import cache, partial
from typing import NamedTuple

from bench.bigimage import make, variant
from bench.figures.images import seconds
from bench.registry import Registry
from bench.stage import REGISTRY, Stage
from bench.table import Figure, Samples
from deploy.fleet import Fleet

LINE = "100mbit"
PATIENCE = 900.0


class Seen(NamedTuple):
    """Seconds of all hosts and of one, megabytes sent and of the image; a value for each turn."""

    all: tuple[float, ...]
    one: tuple[float, ...]
    sent: tuple[float, ...]
    image: tuple[float, ...]


@cache
def seen(stage: Stage, runs: int) -> Seen:
    fleet, folder = stage.eight, stage.folder / "fanout"
    size = make(folder / "base") / 1e6
    turns: list[tuple[float, float, float, float]] = []
    with closing(Registry(fleet.rig, "n9", folder / "store", address=REGISTRY)) as registry:
        for turn in range(runs):
            mine, everyones = [
                registry.fill(variant(folder / tag, folder / "base", tag), tag, "big")
                for tag in (f"one{turn}", f"all{turn}")
            ]
            registry.slow(LINE)
            one = seconds(partial(_pull, fleet, mine, "--node", "n1"))
            before = registry.sent()
            everyone = seconds(partial(_pull, fleet, everyones))
            turns.append((everyone, one, (registry.sent() - before) / 1e6, size))
    shutil.rmtree(folder)
    return Seen(*zip(*turns, strict=True))


def _pull(fleet: Fleet, reference: str, *where: str) -> None:
    fleet.flota("n1", "pull", "-q", *where, reference, timeout=PATIENCE)


def time(stage: Stage, runs: int) -> Samples:
    found = seen(stage, runs)
    return Samples(ours=found.all, peer=found.one)


def egress(stage: Stage, runs: int) -> Samples:
    found = seen(stage, runs)
    return Samples(ours=found.sent, peer=found.image)


WHAT = f"eight hosts pull an image of 14 layers, 700 MB, at once from a registry behind {LINE}/s"
FIGURES = (
    (Figure(name="pull8.time", what=WHAT, unit="s", goal=2.0, better="less", peer="one host", runs=2), time),
    (Figure(name="pull8.egress", what=f"{WHAT}: what it sends", unit="MB", goal=1.2, better="less",
            peer="the image", runs=2), egress),
)  # fmt: skip
