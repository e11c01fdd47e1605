"""The daemons as systemd's units: kept alive, watched, reloaded, heard; containers live on through it."""

from __future__ import annotations

import pytest

from deploy.vmfleet import VmFleet
from tests.support.waiting import wait_until
from tests.vm.support import PATIENCE, container, on, status, tried, wait_states

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]
MAIN_PID = "systemctl show -p MainPID --value flota-agent"


@pytest.mark.slow
def test_a_restart_by_systemd_keeps_containers(fleet: VmFleet) -> None:
    container(fleet, "kept", "n2")
    pid = status(fleet, "kept")["pid"]
    before = on(fleet.rig, "n2", MAIN_PID)
    on(fleet.rig, "n2", "systemctl restart flota-agent")
    assert on(fleet.rig, "n2", MAIN_PID) != before
    wait_states(fleet, n2="ready")
    wait_until(lambda: status(fleet, "kept").get("phase") == "running", deadline=PATIENCE, what="it runs")
    assert status(fleet, "kept")["pid"] == pid


@pytest.mark.slow
def test_an_agent_that_hangs_is_ended_by_the_watchdog_and_its_containers_live_on(fleet: VmFleet) -> None:
    container(fleet, "kept", "n3")
    pid = status(fleet, "kept")["pid"]
    before = on(fleet.rig, "n3", MAIN_PID).strip()
    on(fleet.rig, "n3", f"kill -STOP {before}")
    wait_until(
        lambda: on(fleet.rig, "n3", MAIN_PID).strip() not in ("0", before),
        deadline=PATIENCE,
        what="another agent",
        pause=1,
    )
    assert "watchdog" in on(fleet.rig, "n3", "journalctl -u flota-agent -o cat --no-pager").lower()
    wait_states(fleet, n3="ready")
    on(fleet.rig, "n3", f"kill -0 {pid}")
    wait_until(lambda: status(fleet, "kept").get("phase") == "running", deadline=PATIENCE, what="it runs")
    assert status(fleet, "kept")["pid"] == pid


def test_a_reload_keeps_the_process_and_the_journal_has_its_words(fleet: VmFleet) -> None:
    before = on(fleet.rig, "n1", MAIN_PID)
    on(fleet.rig, "n1", "systemctl reload flota-agent")
    assert on(fleet.rig, "n1", MAIN_PID) == before
    assert "flota" in on(fleet.rig, "n1", "journalctl -u flota-agent -o cat --no-pager")
    assert tried(fleet.rig, "n1", "systemctl is-failed flota-agent flota-controller").returncode != 0
