"""The builders: Debian's Docker Engine 20.10 (classic and BuildKit) and buildah 1.28, and flota, on one host.

Each has the same base images, gets the same folder, and gives a Docker archive of what it made.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy.rig.base import Rig
from tests.differential import trees
from tests.differential.case import BUILDAH, BUILDKIT, CLASSIC, FLOTA, THEN, Case
from tests.differential.trees import Image

PATIENCE = 120.0
DOCKER_SOCKET = "/run/flota/engine.sock"
TAG = "made:1"
ENDED = ("the docker daemon", "connection refused", "error during connect", "eof")
"""What its command says when Docker Engine is not there, or has just ended."""


@dataclass(frozen=True)
class Outcome:
    """An image, or why there is none."""

    image: Image | None = None
    said: str = ""


@dataclass(frozen=True)
class Order:
    """A build with everything filled in: `flags` are ready to be given to a command."""

    name: str
    folder: str
    file: str
    flags: tuple[str, ...] = ()


class Builder(Protocol):
    name: str
    turn: AbstractContextManager[object]
    """Held while a case is built: builders of one daemon share its images' names."""

    def load(self, archive: str) -> None:
        """A Docker archive, by path."""
        ...

    def build(self, order: Order) -> str:
        """Why it failed; empty: it did not."""
        ...

    def save(self, name: str) -> bytes: ...

    def forget(self, names: Sequence[str]) -> None: ...


class _Commands:
    """A builder that is a command on a host."""

    name = ""
    turn: AbstractContextManager[object] = contextlib.nullcontext()
    _words: tuple[str, ...] = ()
    _env: Mapping[str, str] = {}

    def __init__(self, rig: Rig, host: str) -> None:
        self._rig, self._host = rig, host

    def _run(self, *words: str, stdin: bytes | None = None) -> bytes:
        argv = [*self._words, *words]
        return self._rig.exec(self._host, argv, timeout=PATIENCE, env=self._env, stdin=stdin).stdout

    def _why(self, *words: str) -> str:
        argv = [*self._words, *words]
        done = self._rig.exec(self._host, argv, timeout=PATIENCE, env=self._env, check=False)
        said = (done.stdout + done.stderr).decode(errors="replace")
        return (said or f"exit code {done.returncode}") if done.returncode else ""


class Docker(_Commands):
    """20.10's own command: later ones have no BuildKit in them."""

    _turn = threading.Lock()

    def __init__(self, rig: Rig, host: str, folder: Path, *, buildkit: bool) -> None:
        super().__init__(rig, host)
        self.turn = self._turn
        self.name = BUILDKIT if buildkit else CLASSIC
        self._words = ("/usr/bin/docker", "--config", str(folder), "-H", f"unix://{DOCKER_SOCKET}")
        self._env = {"DOCKER_BUILDKIT": "1" if buildkit else "0"}
        self._form = ("--progress", "plain") if buildkit else ("--rm",)

    def load(self, archive: str) -> None:
        self._run("load", "-i", archive)

    def build(self, order: Order) -> str:
        words = (
            "--no-cache",
            *self._form,
            "-t",
            order.name,
            "-f",
            f"{order.folder}/{order.file}",
            *order.flags,
        )
        return self._why("build", *words, order.folder)

    def save(self, name: str) -> bytes:
        return self._run("save", name)

    def forget(self, names: Sequence[str]) -> None:
        self._why("rmi", "-f", *names)


class Buildah(_Commands):
    name = BUILDAH

    def __init__(self, rig: Rig, host: str, folder: Path) -> None:
        super().__init__(rig, host)
        self._folder = folder
        self._words = (
            *("buildah", "--root", f"{folder}/storage", "--runroot", f"{folder}/run"),
            *("--storage-driver", "overlay"),
        )

    def load(self, archive: str) -> None:
        self._run("pull", "-q", f"docker-archive:{archive}")

    def build(self, order: Order) -> str:
        words = ("--isolation", "chroot", "--format", "docker", "--pull-never", "--no-cache", "--layers=true")
        flags = [*words, "-t", order.name, "-f", f"{order.folder}/{order.file}", *order.flags]
        return self._why("bud", *flags, order.folder)

    def save(self, name: str) -> bytes:
        target = self._folder / "saved.tar"
        target.unlink(missing_ok=True)
        self._run("push", "-q", "--format", "v2s2", f"localhost/{name}", f"docker-archive:{target}:{name}")
        return target.read_bytes()

    def forget(self, names: Sequence[str]) -> None:
        self._why("rmi", "-f", *(f"localhost/{name}" for name in names))
        self._why("rm", "-a")


class Flota(_Commands):
    name = FLOTA

    def __init__(self, rig: Rig, host: str, program: str) -> None:
        super().__init__(rig, host)
        self._words = (program,)

    def load(self, archive: str) -> None:
        self._run("load", "-i", archive)

    def build(self, order: Order) -> str:
        words = ("--no-cache", "--private-addresses", "--progress", "plain", "-t", order.name)
        file = f"{order.folder}/{order.file}"
        return self._why("build", *words, "-f", file, *order.flags, order.folder)

    def save(self, name: str) -> bytes:
        return self._run("save", name)

    def forget(self, names: Sequence[str]) -> None:
        self._why("rmi", "-f", *names)


def outcome(builder: Builder, case: Case, folder: Path, places: Mapping[str, str]) -> Outcome:
    """What a builder makes of a case whose context stands in `folder`. `places` fills `{name}` in flags and
    Dockerfiles."""
    made = [*case.before, TAG]
    empty = folder.with_name(f"{folder.name}.before")
    try:
        for name, text in case.before.items():
            why = builder.build(_order(name, "Dockerfile", text, (), empty, places))
            assert not why, f"{builder.name}: {name}: {why}"
        why = builder.build(_order(TAG, case.file, case.dockerfile, case.flags, folder, places))
        if why:
            return Outcome(said=why)
        return Outcome(image=trees.read(builder.save(TAG)))
    finally:
        builder.forget(made)


def _order(
    name: str, file: str, text: str, flags: Sequence[str], folder: Path, places: Mapping[str, str]
) -> Order:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(filled(text, places), encoding="utf-8", newline="")
    os.utime(path, (THEN, THEN))
    return Order(name, str(folder), file, tuple(filled(flag, places) for flag in flags))


def filled(text: str, places: Mapping[str, str]) -> str:
    """`{{name}}` is replaced; what else is in braces belongs to the Dockerfile."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: places[found[1]], text)
