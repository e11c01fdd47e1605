"""Builds of a Dockerfile against Docker Engine 20.10 (classic, BuildKit) and buildah, and against themselves.

Caches are filled before anything is measured, or are not used at all; turns alternate.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench import builders
from bench.builders import Side, many_files
from bench.counted import counted
from bench.peers import IMAGE
from bench.stage import Stage
from bench.table import Figure, Samples

FILES, SIZE = 10_000, 2_000
STEPS = 20
SLEEP = 3
COPYING = f'FROM {IMAGE}\nWORKDIR /app\nCOPY . .\nRUN find . -type f | wc -l >/count\nCMD ["sh"]\n'


@contextmanager
def folder(stage: Stage, dockerfile: str, files: int = 0) -> Iterator[Path]:
    path = stage.folder / "context"
    path.mkdir()
    try:
        (path / "Dockerfile").write_text(dockerfile)
        many_files(path, files, SIZE)
        yield path
    finally:
        shutil.rmtree(path)


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def cached(peer: Callable[[Stage], Side]) -> Callable[[Stage, int], Samples]:
    """Nothing has changed since the last build."""

    def measure(stage: Stage, runs: int) -> Samples:
        kept: tuple[list[float], list[float]] = ([], [])
        with folder(stage, COPYING, FILES) as path:
            sides = (builders.flota(stage), peer(stage))
            for side in sides:
                side(path)
            for _ in range(runs):
                for side, times in zip(sides, kept, strict=True):
                    times.append(seconds(partial(side, path)))
        return Samples(ours=tuple(kept[0]), peer=tuple(kept[1]))

    return measure


def stages(count: int, turn: int) -> str:
    """`count` stages that need nothing of each other, and one that needs them all."""
    each = [f"FROM {IMAGE} AS s{n}\nRUN sleep {SLEEP} && echo {turn} >/made\n" for n in range(count)]
    copies = [f"COPY --from=s{n} /made /{n}\n" for n in range(count)]
    return "".join((*each, "FROM scratch\n", *copies))


def parallel(stage: Stage, runs: int) -> Samples:
    kept: tuple[list[float], list[float]] = ([], [])
    side = builders.flota(stage)
    with folder(stage, "") as path:
        for turn in range(2 * runs):
            count, times = ((4, kept[0]), (1, kept[1]))[turn % 2]
            (path / "Dockerfile").write_text(stages(count, turn))
            times.append(seconds(partial(side, path)))
    return Samples(ours=tuple(kept[0]), peer=tuple(kept[1]))


def steps(instruction: str) -> Callable[[Stage, int], Samples]:
    """`{n}` in it counts; seconds of one of `STEPS` alike, what a build without them takes taken off."""

    def measure(stage: Stage, runs: int) -> Samples:
        kept: tuple[list[float], list[float]] = ([], [])
        with folder(stage, f"FROM {IMAGE}\n", 100 * STEPS) as path:
            sides = (builders.flota(stage), builders.buildkit(stage))
            for side in sides:
                side(path)
            for _ in range(runs):
                for side, times in zip(sides, kept, strict=True):
                    spent = []
                    for count in (0, STEPS):
                        lines = (instruction.format(n=n) for n in range(count))
                        (path / "Dockerfile").write_text("\n".join((f"FROM {IMAGE}", *lines, "")))
                        spent.append(seconds(partial(side, path, "--no-cache")))
                    times.append(1000 * (spent[1] - spent[0]) / STEPS)
        return Samples(ours=tuple(kept[0]), peer=tuple(kept[1]))

    return measure


def sent(stage: Stage, runs: int) -> Samples:
    """Bytes that the client sends after one line of one file has changed, of those of the context."""
    ours: list[float] = []
    with folder(stage, COPYING, FILES) as path:
        builders.flota(stage)(path)
        for turn in range(runs):
            with open(path / "src" / "042" / "4242.txt", "a") as file:
                file.write(f"one more line {turn}\n")
            way = stage.folder / "counted.sock"
            with counted(way, stage.fleet.socket()) as count:
                builders.flota(stage, str(way))(path)
            ours.append(count.sent / 1000)
    return Samples(ours=tuple(ours), peer=(FILES * SIZE / 1000,) * runs)


CACHED = f"build again with nothing changed, a context of {FILES:,} files"
FIGURES = (
    (Figure(name="build.cached.classic", what=CACHED, unit="s", goal=0.1, better="less",
            peer="docker build, classic", runs=6), cached(builders.classic)),
    (Figure(name="build.cached.buildkit", what=CACHED, unit="s", goal=1 / 3, better="less",
            peer="docker build, BuildKit", runs=6), cached(builders.buildkit)),
    (Figure(name="build.cached.buildah", what=CACHED, unit="s", goal=0.1, better="less",
            peer="buildah bud --layers", runs=6), cached(builders.buildah)),
    (Figure(name="build.parallel", what=f"four stages that sleep {SLEEP} s each, beside one", unit="s",
            goal=1.15, better="less", peer="one stage", runs=6), parallel),
    (Figure(name="build.run", what=f"a RUN step, of {STEPS}", unit="ms", goal=1.0, better="less",
            peer="docker build, BuildKit", runs=6), steps("RUN echo {n} >/made{n}")),
    (Figure(name="build.copy", what=f"a COPY step of a hundred files, of {STEPS}", unit="ms", goal=1.0,
            better="less", peer="docker build, BuildKit", runs=6), steps("COPY src/{n:03} /src{n}/")),
    (Figure(name="build.sent", what=f"sent for one changed line, a context of {FILES:,} files", unit="kB",
            goal=0.01, better="less", peer="its size", runs=3), sent),
)  # fmt: skip
