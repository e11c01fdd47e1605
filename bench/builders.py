"""Builders side by side: a folder in, an image out. flota on n1 of its fleet, the others on the peers' host.

All start from the same root file system and keep their caches on the same disk.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.peers import IMAGE
from bench.stage import Stage
from deploy.fleet import FLOTA

Side = Callable[..., object]
"""Builds the Dockerfile of a folder, with further flags."""
DOCKER = "/usr/bin/docker"
"""20.10's own command: later ones have no BuildKit in them."""
PATIENCE = 600.0


def flota(stage: Stage, socket: str = "") -> Side:
    """`socket`: instead of the controller's own."""
    words = [FLOTA, "--host", f"unix://{socket or stage.fleet.socket()}", "build", "--host", "n1"]
    return lambda folder, *flags: run(*words, "--progress", "plain", "-t", "made:1", *flags, str(folder))


def classic(stage: Stage) -> Side:
    return _docker(stage, "0")


def buildkit(stage: Stage) -> Side:
    return _docker(stage, "1")


def _docker(stage: Stage, buildkit: str) -> Side:
    words = [DOCKER, "-H", f"unix://{stage.docker.socket()}", "build", "-t", "made:1"]
    env = {"DOCKER_BUILDKIT": buildkit}
    return lambda folder, *flags: run(*words, *flags, str(folder), env=env)


def buildah(stage: Stage) -> Side:
    """With `--layers`: without, it has no cache."""
    roots = ["--root", "/var/lib/flota/buildah", "--runroot", "/run/buildah", "--storage-driver", "overlay"]
    words = [*stage.docker.rig.enter("n1"), "buildah", *roots]
    tar = stage.folder / "root.tar"
    if not tar.exists():
        tar.write_bytes(stage.tar)
        made = run(*words, "from", "--name", "bench", "scratch").strip()
        run(*words, "add", made, str(tar), "/")
        run(*words, "commit", "-q", "--rm", made, f"localhost/{IMAGE}")
    bud = [*words, "bud", "--layers", "--pull-never", "-t", "made:1"]
    return lambda folder, *flags: run(*bud, *flags, str(folder))


def run(*words: str, env: Mapping[str, str] | None = None) -> str:
    """Raises RuntimeError with the last that it said."""
    done = subprocess.run(
        ["env", *(f"{k}={v}" for k, v in (env or {}).items()), *words],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{words[0]} … {words[-1]}: {(done.stdout + done.stderr)[-800:]}")
    return done.stdout


def many_files(folder: Path, count: int, size: int) -> int:
    """Files in folders of a hundred; all their bytes."""
    for number in range(count):
        path = folder / "src" / f"{number // 100:03}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        line = f"line of file {number}\n".encode()
        path.write_bytes((line * (size // len(line) + 1))[:size])
    return count * size
