"""Bare hosts for tests of provisioning; the bundle of this tree is made once, before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.bundle import Bundle, Target, build, default_cache
from deploy.rig.netns import NetnsRig
from tests.provision.barehosts import BareHosts
from tests.support import census

RIG = os.environ.get("FLOTA_RIG", "pv")


@contextmanager
def bare(folder: Path, count: int, name: str = "") -> Iterator[BareHosts]:
    """`name` sets one apart from another that stands at the same time."""
    run = Path(f"/run/flota-{RIG}{name}")
    rig = NetnsRig(f"{RIG}{name}", disk=folder / "disk", run=run)
    rig.down()
    home = folder / "operator"
    home.mkdir()
    hosts = BareHosts(rig, home)
    with census.unchanged():
        try:
            hosts.up(count)
            yield hosts
        finally:
            hosts.down()


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return build(Target(), default_cache())


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Iterator[BareHosts]:
    """A fleet of one, n1, which was bare; tests boot hosts of their own beside it (`another`)."""
    with bare(tmp_path_factory.mktemp("hosts"), 1) as hosts:
        hosts.bereave("n1")
        hosts.ok("host", "add", "--controller", hosts.root("n1"))
        yield hosts
