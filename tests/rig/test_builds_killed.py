"""A build whose client or agent is killed at any line of its progress: the next is right, nothing is left.

In short three lines of each, chosen by a seed; with FLOTA_FULL=1 every line. What each change of a disk and
each piece of work in a thread leaves is tested by itself (kernel/test_build_killed.py, kernel/build).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.fleet import Fleet
from tests.conftest import FULL
from tests.rig.conftest import IMAGE
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.rig, pytest.mark.timeout(1200 if FULL else 300)]
FILES = 400
DOCKERFILE = f"""\
FROM {IMAGE} AS one
COPY . /all
RUN --network=none --mount=type=cache,target=/cache cp /all/turn /turn; date >/cache/now; sleep 0.2
FROM {IMAGE}
COPY --from=one /turn /copied
RUN --network=none cat /copied >/turn; ls /copied | wc -l >/count
CMD ["cat", "/turn"]
"""
AT = "n2"
SEED = 20_261_127


def context(folder: Path) -> Path:
    made = folder / "context"
    (made / "many").mkdir(parents=True)
    for number in range(FILES):
        (made / f"many/{number}").write_bytes(random.Random(number).randbytes(2000))
    (made / "Dockerfile").write_text(DOCKERFILE)
    return made


def left(fleet: Fleet) -> list[str]:
    """Of builds, on their host: bundles, containers, namespaces, cgroups, snapshots, mounts."""
    run = fleet.rig.run_folder(AT) / "agent"
    builds = "/var/lib/flota/images/builds"
    listed = f"""
for place in {run}/build {run}/runc {run}/ns {builds}; do ls -A $place 2>/dev/null; done
grep -oE '({run}/build|{builds})[^ ]*' /proc/mounts
find /sys/fs/cgroup -type d -path '*{fleet.rig.name}-{AT}*' -name '*build*' 2>/dev/null
"""
    return sorted(fleet.rig.exec(AT, ["sh", "-c", listed], check=False).stdout.decode().split())


class Builds:
    """Of one context, in turns that each change it."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self._folder = folder
        self._context = context(folder)
        self._turn = 0

    def change(self) -> None:
        self._turn += 1
        (self._context / "turn").write_text(f"{self._turn}\n")
        for number in range(self._turn, FILES, 7):
            (self._context / f"many/{number}").write_text(f"{self._turn}\n")

    def begin(self) -> tuple[subprocess.Popen[bytes], Path]:
        """The client, and what it says."""
        log = self._folder / f"log{self._turn}"
        words = [self.fleet._program, "build", "--host", AT, "--progress", "plain", "-t", "killed:1"]
        return self.fleet.rig.spawn("n1", [*words, str(self._context)], log=str(log)), log

    def right(self) -> None:
        """Built again it holds what it has to."""
        self.fleet.flota("n1", "build", "-q", "--host", AT, "-t", "killed:1", str(self._context))
        said = self.fleet.flota("n1", "run", "--rm", "--node", AT, "killed:1")
        assert said == f"{self._turn}\n"


def killed_at(builds: Builds, line: int, kill: Callable[[subprocess.Popen[bytes]], None]) -> bool:
    """Whether it was still at it when it had said so many lines."""
    builds.change()
    process, log = builds.begin()
    wait_until(
        lambda: process.poll() is not None or log.read_bytes().count(b"\n") >= line,
        deadline=60,
        what=f"line {line}",
        pause=0.002,
    )
    running = process.poll() is None
    if running:
        kill(process)
    process.wait(60)
    return running


def lines_of(builds: Builds) -> int:
    builds.change()
    process, log = builds.begin()
    assert process.wait(60) == 0, log.read_text()
    return log.read_bytes().count(b"\n")


@pytest.mark.parametrize("victim", ["client", "agent"])
def test_build_killed_at_any_line_leaves_nothing_and_the_next_is_right(
    clean: Fleet, tmp_path: Path, victim: str
) -> None:
    builds = Builds(clean, tmp_path)
    every = range(lines_of(builds))
    before = left(clean)

    def kill(process: subprocess.Popen[bytes]) -> None:
        if victim == "client":
            process.kill()
        else:
            os.kill(clean.pid(AT, "agent"), signal.SIGKILL)

    chosen = every if FULL else random.Random(f"{SEED}{victim}").sample(every, 3)
    cut = 0
    for line in chosen:
        running = killed_at(builds, line, kill)
        cut += running
        if running and victim == "agent":
            clean.flota(AT, "agent", "--detach")
            clean.wait_ready(3)
        wait_until(lambda: left(clean) == before, deadline=30, what=f"nothing left of line {line}")
        builds.right()
        assert left(clean) == before, line
    assert cut >= len(chosen) // 2, "it was too quick to be killed"
