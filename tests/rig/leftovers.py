"""Ends the hosts that a stopped run of the rig tests left: `python -m tests.rig.leftovers`."""

from __future__ import annotations

from pathlib import Path

from deploy.rig.netns import NetnsRig
from tests.rig.conftest import RIG
from tests.support.systemdhost import end_left

if __name__ == "__main__":
    run = Path(f"/run/flota-{RIG}")
    NetnsRig(RIG, disk=run / "no-disk", run=run).down()
    end_left(RIG)
