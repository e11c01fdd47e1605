"""A fleet for public suites: its Docker socket where clients look for it, a mirror of docker.io with seeds.

Suites run on n1, in a mount namespace below its own: there /run/docker.sock is the fleet's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.fleet import Fleet
from deploy.rig.netns import NetnsRig, address_of
from tests.conformance import seeds
from tests.rig.conftest import RIG
from tests.support import census

FIRST = "n1"
MIRROR = f"http://{address_of(FIRST)}:{seeds.PORT}"
INTO = ["unshare", "--mount", "--propagation", "private", "--"]


@dataclass(frozen=True)
class Ground:
    """What a suite runs against: a fleet whose hosts have the seeds, and a folder that all of them see."""

    fleet: Fleet
    folder: Path

    @property
    def socket(self) -> Path:
        """As this machine sees it."""
        return self.fleet.rig.run_folder(FIRST) / "docker.sock"

    def run(
        self, words: Sequence[str], *, cwd: Path, timeout: float, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """On n1, with a home of its own, as a person there would."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        inherited = {key: os.environ[key] for key in os.environ if key.startswith(("LANG", "LC_", "TZ"))}
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return subprocess.run(
            [*self.fleet.rig.enter(FIRST), *INTO, "env", "-C", str(cwd), *words],
            env={**inherited, "PATH": path, "HOME": str(home), **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )


@contextmanager
def ground(folder: Path, count: int, wanted: Sequence[seeds.Seed] = seeds.SMALL) -> Iterator[Ground]:
    """Of `count` hosts; what they leave behind is a failure."""
    rig = NetnsRig(RIG, disk=folder / "disk", run=Path(f"/run/flota-{RIG}"))
    rig.down()
    with census.unchanged(), ExitStack() as stack:
        fleet = Fleet(rig, "--registry-mirror", MIRROR)
        stack.callback(fleet.stop)
        fleet.start(count)
        fleet.flota(FIRST, "fleet", "update", "--image-gc-high", "100")  # whatever this machine's disk
        registry = rig.spawn(FIRST, seeds.serve(folder / "registry"), log=str(folder / "registry.log"))
        stack.callback(registry.wait, 30)
        stack.callback(registry.terminate)
        made = Ground(fleet, folder)
        rig.exec(FIRST, ["ln", "-s", "/run/flota/docker.sock", "/run/docker.sock"])
        seeds.push(rig.enter(FIRST), wanted, folder)
        seeds.pull(made.socket, wanted)
        yield made


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """One host."""
    with ground(tmp_path_factory.mktemp("alone"), 1) as made:
        yield made


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Three hosts; one fleet stands at a time."""
    with ground(tmp_path_factory.mktemp("three"), 3) as made:
        yield made
