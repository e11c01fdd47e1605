"""Seeded builds by the engine, on a host whose cache is warm of all builds before.

A Dockerfile is changed at random again and again, and so are its context and arguments; builds run side by
side, fail and are cancelled. Always: what comes out is what a host without any cache makes of the same, a
build that is over holds nothing, and every step that began has ended. FLOTA_SIM_SEEDS and FLOTA_SIM_SEED as
in the other simulations.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random

import pytest

from image.build.fake import FakeSession
from model.build import StepBegan, StepEnded
from model.errors import FlotaError
from model.image import ImageConfig
from tests.support.builds import Lab, base

SEEDS = int(os.environ.get("FLOTA_SIM_SEEDS", "1000" if os.environ.get("FLOTA_FULL") == "1" else "60"))
ONE = os.environ.get("FLOTA_SIM_SEED")
ROUNDS = 8
FILES = ("f0", "f1", "f2")
FAILING = "RUN false"


class World:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.contents = dict.fromkeys(FILES, "0")
        self.args: dict[str, str] = {}
        self.stages = [self.stage(n) for n in range(self.random.randint(1, 4))]

    def stage(self, number: int) -> list[str]:
        begin = self.random.choice(["base", "scratch", "s0"]) if number else "base"
        return [f"FROM {begin} AS s{number}", *(self.line(number) for _ in range(self.random.randint(1, 5)))]

    def line(self, number: int) -> str:
        pick, word = self.random.choice, self.random.randint(0, 4)
        lines = [
            f"RUN c{word}",
            f"COPY {pick(FILES)} /d{word}/",
            f"ENV e{word % 2}=v{word}",
            "ARG a0=d",
            f"WORKDIR /w{word}",
            f"USER u{word}",
            f"RUN --mount=target=/m,source={pick(FILES)} m{word}",
        ]
        if number:
            other = self.random.randrange(number)
            lines += [f"COPY --from=s{other} /x /y{word}", f"RUN --mount=from=s{other},target=/m n{word}"]
        return pick(lines)

    def change(self) -> None:
        what = self.random.randrange(4)
        if what == 0:
            self.contents[self.random.choice(FILES)] = str(self.random.randint(0, 3))
        elif what == 1:
            self.args = {"a0": str(self.random.randint(0, 2))} if self.random.random() < 0.7 else {}
        else:
            number = self.random.randrange(len(self.stages))
            stage = self.stages[number]
            stage[self.random.randrange(1, len(stage))] = self.line(number)

    @property
    def text(self) -> str:
        return "\n".join(line for stage in self.stages for line in stage) + "\n"

    @property
    def tree(self) -> str:
        return "tree:" + hashlib.sha256(repr(self.contents).encode()).hexdigest()


async def outcome(lab: Lab, world: World, text: str) -> tuple[tuple[str, ...], ImageConfig] | str:
    """Layers and configuration, or why there is none."""
    lab.runner.contents = dict(world.contents)
    session = FakeSession({"": world.tree})
    try:
        image = await lab.image(text, args=world.args, session=session)
    except FlotaError as error:
        result: tuple[tuple[str, ...], ImageConfig] | str = str(error)
    else:
        result = (image.layers, image.config)
    finally:
        began = [said.step for said in session.heard if isinstance(said, StepBegan)]
        ended = [said.step for said in session.heard if isinstance(said, StepEnded)]
        assert sorted(began) == sorted(ended)
    return result


async def disturbed(lab: Lab, world: World, text: str) -> None:
    """Builds that fail or are cancelled at any time, side by side."""
    broken = text.replace("RUN c0", FAILING)
    tasks = [asyncio.ensure_future(outcome(lab, world, one)) for one in (text, broken, text)]
    for _ in range(world.random.randint(0, 60)):
        await asyncio.sleep(0)
    for task in tasks:
        if world.random.random() < 0.5:
            task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("seed", [int(ONE)] if ONE else range(SEEDS))
async def test_warm_cache_gives_what_no_cache_gives(seed: int) -> None:
    world, warm = World(seed), Lab([base()], slots=2)
    for _ in range(ROUNDS):
        text = world.text
        if world.random.random() < 0.5:
            await disturbed(warm, world, text)
        got = await outcome(warm, world, text)
        assert warm.snapshots.open == 0 and not +warm.snapshots.held
        assert got == await outcome(Lab([base()]), world, text), f"seed {seed}\n{text}"
        done = warm.ran()
        assert await outcome(warm, world, text) == got
        assert not isinstance(got, tuple) or warm.ran() == [], f"seed {seed}: {done}\n{text}"
        world.change()
