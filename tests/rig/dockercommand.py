"""The stock docker command at a socket of a rig's host."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from deploy.fleet import Fleet

DOCKER = "/usr/bin/docker"
PATIENCE = 60


class Docker:
    """The command, aimed at the fleet; by `socket` at a host's own."""

    def __init__(self, fleet: Fleet, host: str = "n1", socket: str = "docker.sock") -> None:
        self.base = [DOCKER, "-H", f"unix://{fleet.rig.run_folder(host)}/{socket}"]

    def attempt(self, *words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.base, *words], input=stdin, capture_output=True, timeout=PATIENCE, check=False
        )

    def __call__(self, *words: str, stdin: bytes | None = None) -> str:
        done = self.attempt(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("inspect", name))[0]
        return found
