"""A fleet of three hosts, which modules hand on to each other; the census is compared after it is gone.

A module leaves it as it found it: it is cleared of services, containers and networks behind each. One in
which a test failed, a host was lost or others were made, leaves the next a new one. Modules whose hosts are
of another kind come first, with fleets of their own (`running`): one stands at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from deploy.busybox import root_tar
from deploy.fleet import Fleet
from deploy.rig.netns import NetnsRig
from tests.rig.dockercommand import Docker
from tests.rig.support import told
from tests.support import census
from tests.support.waiting import wait_until

IMAGE = "box:1"
CONTAINERS = "/v1/instances?all=true"
RIG = os.environ.get("FLOTA_RIG", "rt")
"""Runs side by side on one machine need names of their own, and take no census."""


@contextmanager
def running(
    disk: Path,
    count: int = 3,
    remote: tuple[str, ...] = (),
    family: int = 4,
    nat: tuple[str, ...] = (),
    *,
    site: bool = False,
) -> Iterator[Fleet]:
    """A fleet whose hosts have the image; what it leaves behind is a failure."""
    run = Path(f"/run/flota-{RIG}")
    rig = NetnsRig(RIG, disk=disk, run=run, remote=remote, family=family, nat=nat, site=site)
    rig.down()
    with census.unchanged():
        made = Fleet(rig)
        try:
            made.start(count)
            made.flota("n1", "fleet", "update", "--image-gc-high", "100")  # whatever this machine's disk
            made.load_everywhere(IMAGE, root_tar())
            yield made
        finally:
            made.stop()


class Standing:
    """The fleet that stands, if one does."""

    def __init__(self, disks: pytest.TempPathFactory) -> None:
        self._disks = disks
        self._stack = ExitStack()
        self._fleet: Fleet | None = None

    def fleet(self) -> Fleet:
        if self._fleet is None:
            self._fleet = self._stack.enter_context(running(self._disks.mktemp("disk")))
        return self._fleet

    def end(self) -> None:
        self._fleet = None
        self._stack.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "standing" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    made = Standing(tmp_path_factory)
    yield made
    made.end()


@pytest.fixture(scope="module")
def fleet(standing: Standing, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    failed = request.session.testsfailed
    made = standing.fleet()
    hosts = [host.name for host in made.rig.hosts]
    yield made
    if request.session.testsfailed > failed or [host.name for host in made.rig.hosts] != hosts:
        standing.end()
        return
    try:
        cleared(made)
        made.wait_ready(len(hosts))
        marred = _lost_one(made)
    except BaseException:
        standing.end()
        raise
    if marred:
        standing.end()


def _lost_one(fleet: Fleet) -> bool:
    """Whether a host was lost: a second loss within ten minutes would bar it from new work for a while."""
    lost = ("events", "--since", "1h", "--until", "0s", "-f", "type=node", "-f", "event=lost")
    return bool(fleet.json(*lost))


@pytest.fixture
def clean(fleet: Fleet) -> Iterator[Fleet]:
    """The module's fleet; what a test made of services, containers and networks goes after it."""
    yield fleet
    cleared(fleet)


@pytest.fixture
def docker(clean: Fleet) -> Docker:
    """The stock command at the fleet's socket."""
    return Docker(clean)


def cleared(fleet: Fleet) -> None:
    """Services, containers and networks are gone."""
    services = [one["service"]["spec"]["name"] for one in told(fleet, "/v1/services")]
    if services and fleet.attempt("n1", "service", "rm", *services).returncode:
        wait_until(lambda: not told(fleet, "/v1/services"), deadline=30, what="those that went by themselves")
    containers = [one["instance"]["id"] for one in told(fleet, CONTAINERS)]
    if containers and fleet.attempt("n1", "rm", "-f", "-v", *containers).returncode:
        wait_until(lambda: not told(fleet, CONTAINERS), deadline=30, what="those that went by themselves")
    wait_until(lambda: _unnetworked(fleet), deadline=10, what="no network")


def _unnetworked(fleet: Fleet) -> bool:
    """Whether no network is left but the predefined; if not, those that are get removed."""
    known = [one["network"] for one in told(fleet, "/v1/networks")]
    networks = [one["spec"]["name"] for one in known if not one.get("predefined")]
    return not networks or fleet.attempt("n1", "network", "rm", *networks).returncode == 0
