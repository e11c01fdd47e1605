"""Ends the hosts that a stopped run of the tests left, of every rig: `python -m tests.rig.leftovers`."""

from __future__ import annotations

from pathlib import Path

from deploy.rig.netns import NetnsRig
from deploy.rig.qemu import QemuRig
from deploy.rig.vagrant import VagrantRig
from tests.provision.conftest import RIG as BARE_RIG
from tests.rig.conftest import RIG
from tests.support.systemdhost import end_left

if __name__ == "__main__":
    end_left(RIG)  # first: its init keeps a cgroup of the rig's
    for name in {RIG, BARE_RIG}:
        run = Path(f"/run/flota-{name}")
        NetnsRig(name, disk=run / "no-disk", run=run).down()
    QemuRig(RIG, image=None).down()
    VagrantRig(RIG, image=None, box=None).down()
