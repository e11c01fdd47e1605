"""Containers on cgroup v2 with all its controllers, by both drivers: limits kept, use counted, frozen.

What the other tiers can't see: their machine may have the controllers elsewhere.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.vmfleet import VmFleet
from tests.support.waiting import wait_until
from tests.vm.support import PATIENCE, container, on

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(1800)]
BUSY = ("sh", "-c", "while :; do :; done")


def made(fleet: VmFleet, name: str, *words: str, command: tuple[str, ...] = ()) -> tuple[str, str]:
    """A container on n2: its id, and its cgroup's folder there."""
    ident = container(fleet, name, "n2", *words, command=command)
    place = on(fleet.rig, "n2", f"find /sys/fs/cgroup -type d -name '*{ident}*'").split()
    assert len(place) == 1, place
    return ident, place[0]


def value(fleet: VmFleet, folder: str, name: str) -> str:
    return on(fleet.rig, "n2", f"cat {folder}/{name}").strip()


def test_limits_stand_in_the_scope_whatever_systemd_reads_anew(fleet: VmFleet) -> None:
    memory, processor = ("--memory", "64m", "--memory-swap", "128m"), ("--cpus", "0.5", "--cpu-shares", "512")
    ident, folder = made(fleet, "tight", *memory, *processor, "--pids-limit", "70")
    assert folder == f"/sys/fs/cgroup/flota.slice/flota-{ident}.scope"
    wanted = {
        "memory.max": str(64 << 20),
        "memory.swap.max": str(64 << 20),
        "cpu.max": "50000 100000",
        "pids.max": "70",
    }
    assert {name: value(fleet, folder, name) for name in wanted} == wanted
    assert int(value(fleet, folder, "cpu.weight")) < 100
    on(fleet.rig, "n2", "systemctl daemon-reload; systemctl restart flota-agent")
    assert {name: value(fleet, folder, name) for name in wanted} == wanted


def test_use_is_counted_and_a_frozen_container_uses_nothing(fleet: VmFleet) -> None:
    _, folder = made(fleet, "busy", command=BUSY)

    def sample() -> dict[str, Any]:
        said = fleet.ask("stats", "--no-stream", "--format", "json", "busy")
        found: dict[str, Any] = json.loads(said.splitlines()[0])
        return found

    first = sample()
    assert first["memory"] > 0 and first["pids"] >= 1 and first["memory_limit"] > 0
    wait_until(lambda: sample()["cpu_ns"] > first["cpu_ns"], deadline=PATIENCE, what="more processor time")
    fleet.ask("pause", "busy")
    assert "frozen 1" in value(fleet, folder, "cgroup.events")
    usage = value(fleet, folder, "cpu.stat").split()[1]
    assert value(fleet, folder, "cpu.stat").split()[1] == usage
    fleet.ask("rm", "-f", "busy")
    wait_until(
        lambda: on(fleet.rig, "n2", f"ls -d {folder} 2>&1 || true").endswith("directory\n"), deadline=PATIENCE
    )


def test_cgroupfs_keeps_limits_beside_systemd_too(fleet: VmFleet) -> None:
    on(fleet.rig, "n2", "flota agent --detach --cgroup-driver cgroupfs && systemctl restart flota-agent")
    facts = fleet.ask("node", "inspect", "n2")
    wait_until(
        lambda: '"cgroup_driver": "cgroupfs"' in fleet.ask("node", "inspect", "n2"),
        deadline=PATIENCE,
        what=f"the other driver, in {facts[:500]}",
    )
    ident, folder = made(fleet, "plain", "--memory", "64m", "--pids-limit", "50")
    assert folder == f"/sys/fs/cgroup/flota/{ident}"
    assert [value(fleet, folder, name) for name in ("memory.max", "pids.max")] == [str(64 << 20), "50"]
    fleet.ask("rm", "-f", "plain")
    assert on(fleet.rig, "n2", "ls -d /sys/fs/cgroup/flota/*/ 2>/dev/null || true") == ""
