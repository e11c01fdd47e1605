"""Hosts that get an image's layers from each other: what leaves Debian's docker-registry is counted."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.busybox import root_tar
from deploy.fleet import Fleet
from tests.rig.support import AT_ONCE, replicas, told, wait_replicas
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.rig, pytest.mark.timeout(300)]
MIB = 1 << 20
SIZE = 48 * MIB
RATE = 16 * MIB
"""Bytes a second by which each host reaches the registry."""
NAME = "127.0.0.1:5200/big"
CONFIG = """\
version: 0.1
storage:
  filesystem:
    rootdirectory: {folder}/data
http:
  addr: 0.0.0.0:5201
"""


class Outside:
    """docker-registry on n1, and each host's counted way to it."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self._fleet, self._folder = fleet, folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "config.yml").write_text(CONFIG.format(folder=folder))

    def start(self) -> None:
        command = ["docker-registry", "serve", str(self._folder / "config.yml")]
        log = str(self._folder / "log")
        self._processes["registry"] = self._fleet.rig.spawn("n1", command, log=log)
        address = next(h.address for h in self._fleet.rig.hosts if h.name == "n1")
        for host in self._hosts():
            words = ["5200", address, "5201", str(RATE), str(self._folder / host)]
            command = [sys.executable, "-m", "tests.support.countedway", *words]
            self._processes[host] = self._fleet.rig.spawn(host, command, log=log + host)
        for host in self._hosts():
            ask = ["skopeo", "list-tags", "--tls-verify=false", f"docker://{NAME}"]
            wait_until(
                lambda h=host, ask=ask: b"refused" not in self._fleet.rig.exec(h, ask, check=False).stderr,
                deadline=20,
                what=f"the registry, from {host}",
            )

    def _hosts(self) -> list[str]:
        return [host.name for host in self._fleet.rig.hosts]

    def sent(self) -> int:
        """Bytes to all hosts, since the start."""
        return sum(int((self._folder / host).read_text()) for host in self._hosts())

    def end(self, *names: str) -> None:
        for name in names or list(self._processes):
            process = self._processes.pop(name)
            process.terminate()
            process.wait(10)


@pytest.fixture
def outside(clean: Fleet, tmp_path: Path) -> Iterator[Outside]:
    made = Outside(clean, tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.end()


def noisy_tar(size: int) -> bytes:
    """A root with busybox and so many bytes that nothing compresses."""
    buffer = io.BytesIO(root_tar())
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        info = tarfile.TarInfo("noise")
        info.size = size
        archive.addfile(info, io.BytesIO(os.urandom(size)))
    return buffer.getvalue()


@pytest.fixture
def big(clean: Fleet, outside: Outside, request: pytest.FixtureRequest) -> Iterator[str]:
    """An image at the registry, and on no host."""
    name = f"{NAME}:{abs(hash(request.node.name)) % 100000}"
    clean.flota("n1", "import", "--node", "n1", "-", name, stdin=noisy_tar(SIZE))
    clean.flota("n1", "push", "--node", "n1", name)
    clean.flota("n1", "rmi", "--node", "n1", name)
    yield name
    clean.attempt("n1", "rmi", "-f", name)


def holders(fleet: Fleet, name: str) -> list[str]:
    return sorted(i["host"] for i in told(fleet, "/v1/images") if name in i["image"].get("names", ()))


def test_hosts_that_pull_together_take_an_image_once_from_outside(
    clean: Fleet, outside: Outside, big: str
) -> None:
    before, began = outside.sent(), time.monotonic()
    clean.flota("n1", "pull", "--node", "n1", big)
    one = time.monotonic() - began
    alone = outside.sent() - before
    assert alone > SIZE
    clean.flota("n1", "rmi", "--node", "n1", big)
    before, began = outside.sent(), time.monotonic()
    clean.flota("n1", "pull", big)
    assert holders(clean, big) == ["n1", "n2", "n3"]
    assert outside.sent() - before <= 1.2 * alone
    assert time.monotonic() - began <= 2 * one + 2


def test_a_host_gets_what_another_has_and_asks_the_registry_for_documents_alone(
    clean: Fleet, outside: Outside, big: str
) -> None:
    clean.flota("n1", "pull", "--node", "n1", big)
    before = outside.sent()
    clean.flota("n1", "pull", "--node", "n2", big)
    assert outside.sent() - before < MIB
    assert holders(clean, big) == ["n1", "n2"]


def test_a_pinned_image_starts_elsewhere_while_its_registry_is_down(
    clean: Fleet, outside: Outside, big: str
) -> None:
    clean.flota("n1", "pull", "--node", "n1", big)
    found = told(clean, "/v1/images")
    digest = next(i["image"]["digests"][-1] for i in found if big in i["image"].get("names", ()))
    outside.end("registry")
    assert clean.attempt("n1", "pull", "--node", "n2", big).returncode == 1
    said = clean.flota("n1", "run", "--rm", "--node", "n2", digest, "echo", "by its digest")
    assert said.strip() == "by its digest"


def test_a_host_that_dies_while_it_fetches_for_all_is_replaced(
    clean: Fleet, outside: Outside, big: str
) -> None:
    before = outside.sent()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(clean.attempt, "n1", "pull", "--node", "n2", big)
        wait_until(lambda: outside.sent() - before > SIZE // 4, deadline=20, what="a part of it")
        second = pool.submit(clean.flota, "n1", "pull", "--node", "n3", big)
        wait_until(lambda: outside.sent() - before > SIZE // 2, deadline=20, what="half of it")
        os.kill(clean.pid("n2", "agent"), 9)
        assert big in second.result()
        assert first.result().returncode != 0
    clean.flota("n2", "agent", "--detach")
    clean.wait_ready(3)
    assert holders(clean, big) == ["n3"]


def test_an_image_made_on_one_host_is_copied_to_others_without_a_registry(
    clean: Fleet, outside: Outside
) -> None:
    tar = noisy_tar(SIZE)
    clean.flota("n1", "import", "--node", "n2", "--change", 'CMD ["true"]', "-", "own:1", stdin=tar)
    before = outside.sent()
    assert "own:1" in clean.flota("n1", "image", "copy", "--to", "n3", "own:1")
    assert "own:1" in clean.flota("n1", "image", "copy", "--all", "own:1")
    found = [i for i in told(clean, "/v1/images") if "docker.io/library/own:1" in i["image"].get("names", ())]
    assert sorted(i["host"] for i in found) == ["n1", "n2", "n3"]
    assert len({i["image"]["id"] for i in found}) == 1
    assert not any("digests" in i["image"] for i in found)
    assert clean.flota("n1", "run", "--rm", "--node", "n3", "own:1", "echo", "here").strip() == "here"
    assert outside.sent() == before
    clean.flota("n1", "rmi", "own:1")


def test_a_roll_stops_nothing_before_the_new_image_is_there(clean: Fleet, outside: Outside, big: str) -> None:
    create = ("service", "create", "--name", "web", "--mode", "global", "--update-parallelism", "0")
    clean.flota("n1", *create, *AT_ONCE, "box:1", "sleep", "3600")
    wait_replicas(clean, "web", 3)
    before = outside.sent()
    clean.flota("n1", "service", "update", "--image", big, "web")

    def old() -> set[str]:
        """Hosts whose old replica serves."""
        return {r["host_name"] for r in replicas(clean, "web") if NAME not in r["instance"]["spec"]["image"]}

    def lacking() -> set[str]:
        having = {i["host"] for i in told(clean, "/v1/images") if NAME in str(i["image"].get("digests"))}
        return {"n1", "n2", "n3"} - having

    wait_until(lambda: outside.sent() - before > SIZE // 4, deadline=30, what="the pulls")
    looks = 0
    while True:
        serving = old()
        if not (still := lacking()):
            break
        looks += 1
        assert still <= serving
    assert looks
    wait_until(lambda: not old() and len(replicas(clean, "web")) == 3, deadline=60, what="the roll")
    assert outside.sent() - before < 1.3 * SIZE
    clean.flota("n1", "service", "rm", "web")


def test_an_image_that_hosts_cannot_get_pauses_the_update_and_stops_nothing(
    clean: Fleet, outside: Outside, big: str
) -> None:
    clean.flota("n1", "service", "create", "--name", "web", *AT_ONCE, "box:1", "sleep", "3600")
    [before] = wait_replicas(clean, "web", 1)
    lost = f"{NAME}@sha256:{'0' * 64}"
    clean.flota("n1", "service", "update", "--no-resolve-image", "--image", lost, "web")

    def rollout() -> dict[str, str]:
        found: dict[str, str] = told(clean, "/v1/services/web")["service"]["rollout"]
        return found

    wait_until(lambda: rollout().get("state") == "paused", deadline=60, what="the pause")
    assert "can't get the image" in rollout()["message"]
    assert replicas(clean, "web") == [before]
    clean.flota("n1", "service", "rm", "web")
