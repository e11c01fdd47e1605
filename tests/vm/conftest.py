"""One rig of three guests for all: kept as they boot (`bare`), and once they are a fleet (`fleet`).

Each test begins from one of the two, whatever those before did to it. FLOTA_VM_RIG names the driver (qemu,
vagrant), FLOTA_RIG the rig. FLOTA_VM_STANDING=FOLDER, for who writes tests: the rig is left standing, with
the operator's settings in that folder, and the next run with it goes on there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.busybox import root_tar
from deploy.fleet import FLOTA
from deploy.rig import qemu, vagrant
from deploy.rig.base import KeepingRig
from deploy.rig.image import Image, kept, runtime_packages
from deploy.vmfleet import VmFleet
from tests.support import census
from tests.vm.support import IMAGE, PATIENCE, wait_states

HOSTS = ("n1", "n2", "n3")
RIG = os.environ.get("FLOTA_RIG", "rt")
DRIVER = os.environ.get("FLOTA_VM_RIG", "qemu")
BOX = Path(os.environ.get("FLOTA_VM_BOX", "/var/cache/flota-rig/flota-rig.box"))
FLEET = "fleet"
LOST_AFTER = 20.0
"""Seconds: an emulated host on a busy machine may well say nothing for three."""
STANDING = os.environ.get("FLOTA_VM_STANDING", "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those on bare guests first: then nothing is made that they don't need."""
    items.sort(key=lambda item: FLEET in getattr(item, "fixturenames", ()))


def rig_of(image: Image | None) -> KeepingRig:
    """Without an image it can only be taken down."""
    if DRIVER == "qemu":
        return qemu.QemuRig(RIG, image=image)
    if DRIVER == "vagrant":
        return vagrant.VagrantRig(RIG, image=image, box=BOX if image else None)
    raise ValueError(f"FLOTA_VM_RIG is {DRIVER!r}: qemu or vagrant")


@pytest.fixture(scope="session")
def image() -> Image:
    return kept(runtime_packages())


@pytest.fixture(scope="session")
def guests(image: Image) -> Iterator[KeepingRig]:
    rig = rig_of(image)
    if STANDING:
        if not rig.hosts:
            rig.up(len(HOSTS))
        yield rig
        return
    rig.down()
    with census.unchanged():
        try:
            rig.up(len(HOSTS))
            yield rig
        finally:
            rig.down()


@pytest.fixture
def bare(guests: KeepingRig) -> KeepingRig:
    """Three guests as they booted, without flota."""
    guests.reset()
    return guests


@pytest.fixture(scope="session")
def provisioned(guests: KeepingRig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VmFleet]:
    folder = Path(STANDING) if STANDING else tmp_path_factory.mktemp("operator")
    made = VmFleet(guests, folder=folder)
    done = folder / "provisioned"
    if not done.exists():
        guests.reset()
        made.patient(LOST_AFTER)
        if isinstance(guests, vagrant.VagrantRig):
            made.bundle()
            guests.members({**made.environment(), "FLOTA": FLOTA})
        else:
            made.provision(HOSTS)
        wait_states(made, **dict.fromkeys(HOSTS, "ready"))
        made.load_everywhere(IMAGE, root_tar())
        guests.keep(FLEET)
        done.touch()
    yield made


@pytest.fixture
def fleet(provisioned: VmFleet) -> VmFleet:
    """Three hosts that are a fleet, with the image, and nothing else."""
    provisioned.rig.back_to(FLEET)
    wait_states(provisioned, PATIENCE, **dict.fromkeys(HOSTS, "ready"))
    return provisioned
