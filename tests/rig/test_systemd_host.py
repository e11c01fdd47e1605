"""A fleet of one host whose init is a real systemd: what its units start, keep, reload, stop and start again
after a reboot."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.busybox import root_tar
from deploy.units import AGENT, CONTROLLER, PROCESSES
from tests.rig.conftest import RIG
from tests.support import census
from tests.support.systemdhost import SystemdHost, systemd_host
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.rig, pytest.mark.timeout(300)]
FLOTA = str(Path(sys.executable).with_name("flota"))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdHost]:
    folder = tmp_path_factory.mktemp("systemd")
    with census.unchanged(), systemd_host(RIG, folder) as host:
        host.flota("up", "--name", "sd1")
        tar = folder / "lib" / "root.tar"
        tar.write_bytes(root_tar())
        host.flota("import", "/var/lib/flota/root.tar", "box")
        yield host
        host.flota("down", "--purge", check=False)


@pytest.fixture
def container(host: SystemdHost) -> Iterator[str]:
    host.flota(
        "run", "-d", "--name", "c1", "--restart", "always", "box", "sh", "-c", "while :; do sleep 1; done"
    )
    yield "c1"
    host.flota("rm", "-f", "c1", check=False)


def main_pid(host: SystemdHost, unit: str) -> int:
    return int(host.show(unit, "MainPID"))


def state(host: SystemdHost, name: str = "c1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.flota("inspect", name))[0]["status"]
    return found


def in_session(host: SystemdHost) -> bool:
    return "ready" in host.flota("node", "ls", check=False)


def test_units_run_and_each_is_in_its_own_cgroup(host: SystemdHost) -> None:
    for unit in (AGENT, CONTROLLER, PROCESSES):
        assert host.show(unit, "ActiveState") == "active"
        assert host.cgroup_of(main_pid(host, unit)) == f"/system.slice/{unit}"
    assert host.show(AGENT, "StatusText") == "agent works"
    resolver = host.run("cat", "/run/flota/agent/names/pid").split()[0]
    assert host.cgroup_of(int(resolver)) == f"/system.slice/{PROCESSES}"
    environment = host.run("cat", f"/proc/{resolver}/environ")
    assert "NOTIFY_SOCKET" not in environment and "WATCHDOG" not in environment


def test_container_is_a_scope_of_systemds_that_ends_after_the_agent(
    host: SystemdHost, container: str
) -> None:
    (found,) = json.loads(host.flota("inspect", "c1"))
    scope = f"flota-{found['instance']['id']}.scope"
    assert host.cgroup_of(state(host)["pid"]) == f"/flota.slice/{scope}"
    assert AGENT in host.show(scope, "Before")
    assert host.show(scope, "TimeoutStopUSec") == "10s"
    facts = json.loads(host.flota("node", "inspect", "sd1"))
    assert '"cgroup_driver": "systemd"' in json.dumps(facts)
    assert "c1" in host.flota("stats", "--no-stream")
    assert host.flota("exec", "c1", "cat", "/proc/self/comm").strip() == "cat"
    host.flota("pause", "c1")
    assert "frozen 1" in host.run("cat", f"/sys/fs/cgroup/flota.slice/{scope}/cgroup.events")
    host.flota("unpause", "c1")
    host.flota("rm", "-f", "c1")
    assert host.show(scope, "LoadState") == "not-found"
    assert scope not in host.run("ls", "/sys/fs/cgroup/flota.slice")


def test_hosts_end_stops_the_agent_first_and_then_containers_within_their_grace(host: SystemdHost) -> None:
    """As shutdown.target does, but that here one job comes first into the queue. A shell that is process 1
    ignores SIGTERM; systemd's own patience is 90 s."""
    stubborn = ("--restart", "always", "--stop-timeout", "1", "box", "sh", "-c", "while :; do sleep 1; done")
    host.flota("run", "-d", "--name", "last", *stubborn)
    scope = f"flota-{json.loads(host.flota('inspect', 'last'))[0]['instance']['id']}.scope"
    began = time.monotonic()
    host.run("systemctl", "stop", AGENT, scope)
    assert time.monotonic() - began < 30
    lines = host.journal("*").splitlines()
    agent = max(at for at, line in enumerate(lines) if f"Stopped {AGENT}" in line)
    stopping = max(at for at, line in enumerate(lines) if f"Stopping {scope}" in line)
    assert agent < stopping, "\n".join(lines[-20:])
    host.run("systemctl", "start", AGENT)
    wait_until(
        lambda: in_session(host) and state(host, "last")["restarts"] == 1, deadline=60, what="its restart"
    )
    host.flota("rm", "-f", "last")


def test_container_of_the_other_driver_goes_on_under_the_agent_that_has_this_one(host: SystemdHost) -> None:
    host.flota("down")
    host.flota("up", "--cgroup-driver", "cgroupfs")
    host.flota("run", "-d", "--name", "old", "box", "sleep", "1000")
    pid = state(host, "old")["pid"]
    assert host.cgroup_of(pid).startswith("/flota/")
    host.flota("down")
    host.flota("up", "--cgroup-driver", "")
    wait_until(
        lambda: in_session(host) and state(host, "old")["pid"] == pid, deadline=60, what="the container"
    )
    assert "old" in host.flota("stats", "--no-stream")
    assert host.flota("exec", "old", "cat", "/proc/self/comm").strip() == "cat"
    host.flota("rm", "-f", "old")
    assert host.run("sh", "-c", "ls -d /sys/fs/cgroup/flota/*/ || true") == ""


def test_killed_agent_comes_back_and_nothing_else_has_ended(host: SystemdHost, container: str) -> None:
    kept = main_pid(host, PROCESSES), host.run("cat", "/run/flota/agent/names/pid"), state(host)["pid"]
    agent = main_pid(host, AGENT)
    host.run("kill", "-9", str(agent))
    wait_until(lambda: main_pid(host, AGENT) not in (0, agent), deadline=60, what="another agent")
    wait_until(
        lambda: host.show(AGENT, "ActiveState") == "active", deadline=60, what="an agent that is ready"
    )
    assert kept == (
        main_pid(host, PROCESSES), host.run("cat", "/run/flota/agent/names/pid"), state(host)["pid"]
    )  # fmt: skip
    assert state(host).get("phase") == "running"


def test_stopped_agent_leaves_containers_and_their_supervision(host: SystemdHost, container: str) -> None:
    pid = state(host)["pid"]
    host.run("systemctl", "stop", AGENT)
    assert host.run("cat", f"/proc/{pid}/comm").strip() == "sh"
    host.run("systemctl", "start", AGENT)
    wait_until(
        lambda: in_session(host) and state(host).get("phase") == "running",
        deadline=60,
        what="the container, adopted",
    )
    assert state(host)["pid"] == pid


def test_agent_that_hangs_is_ended_by_its_watchdog(host: SystemdHost) -> None:
    folder = Path("/etc/systemd/system") / f"{AGENT}.d"
    host.run("sh", "-c", f"mkdir -p {folder}; printf '[Service]\\nWatchdogSec=3\\n' >{folder}/fast.conf")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", AGENT)
    agent = main_pid(host, AGENT)
    host.run("kill", "-STOP", str(agent))
    wait_until(lambda: main_pid(host, AGENT) not in (0, agent), deadline=60, what="another agent")
    assert "Watchdog timeout" in host.journal(AGENT)
    host.run("rm", "-r", str(folder))
    host.run("systemctl", "daemon-reload")
    wait_until(
        lambda: host.show(AGENT, "ActiveState") == "active", deadline=60, what="an agent that is ready"
    )


def test_reload_takes_labels_in_and_names_what_needs_a_start(host: SystemdHost) -> None:
    agent = main_pid(host, AGENT)
    settings = json.loads(host.run("cat", "/var/lib/flota/settings.json"))
    changed = json.dumps(settings | {"label": ["disk=ssd"], "cgroup_parent": "/other"})
    host.run("sh", "-c", f"printf '%s' '{changed}' >/var/lib/flota/settings.json")
    host.run("systemctl", "reload", AGENT)

    def labelled() -> bool:
        return "disk" in host.flota("node", "inspect", "sd1")

    wait_until(labelled, deadline=30, what="the label in the fleet")
    assert main_pid(host, AGENT) == agent
    words = "agent works; changed: labels; with the next start: cgroup parent"
    wait_until(lambda: host.show(AGENT, "StatusText") == words, deadline=10, what=words)
    host.run("sh", "-c", f"printf '%s' '{json.dumps(settings)}' >/var/lib/flota/settings.json")
    host.run("systemctl", "reload", AGENT)


def test_reload_gives_the_controller_a_new_certificate(host: SystemdHost) -> None:
    path = "/var/lib/flota/controller/pki/controller.pem"
    before, pid = host.run("cat", path), main_pid(host, CONTROLLER)
    host.run("systemctl", "reload", CONTROLLER)
    wait_until(lambda: host.run("cat", path) != before, deadline=30, what="a new certificate")
    assert main_pid(host, CONTROLLER) == pid and in_session(host)


def test_options_given_to_a_running_agent_hold_at_once(host: SystemdHost) -> None:
    agent = main_pid(host, AGENT)
    host.flota("agent", "--detach", "--label", "zone=a")
    wait_until(lambda: "zone" in host.flota("node", "inspect", "sd1"), deadline=30, what="the label")
    assert main_pid(host, AGENT) == agent
    host.flota("agent", "--detach", "--label", "")


def test_drop_in_of_an_admin_outlives_what_flota_writes(host: SystemdHost) -> None:
    folder = f"/etc/systemd/system/{AGENT}.d"
    host.run("sh", "-c", f"mkdir -p {folder}; printf '[Service]\\nEnvironment=MINE=1\\n' >{folder}/mine.conf")
    host.flota("down")
    assert host.show(AGENT, "ActiveState") == "inactive"
    host.flota("up")
    assert "MINE=1" in host.show(AGENT, "Environment")
    host.run("rm", "-r", folder)
    host.run("systemctl", "daemon-reload")


def test_agent_that_cannot_start_says_why(host: SystemdHost) -> None:
    host.flota("down")
    try:
        said = host.flota("agent", "--detach", "--network-driver", "nosuch", check=False)
        assert "the agent did not start" in said and "nosuch" in said
        assert "nosuch" not in host.run("cat", "/var/lib/flota/settings.json")
    finally:
        host.run("systemctl", "stop", AGENT, check=False)
        host.flota("up")


def test_reboot_brings_the_daemons_and_containers_back_by_their_policy(
    host: SystemdHost, container: str
) -> None:
    host.flota("run", "-d", "--name", "once", "box", "sleep", "1000")
    host.crash()
    host.boot()
    wait_until(
        lambda: in_session(host) and state(host).get("phase") == "running", deadline=60, what="the container"
    )
    once = state(host, "once")
    host.flota("rm", "once")
    assert once.get("phase") == "exited" and state(host).get("phase") == "running"
    assert state(host)["endpoints"][0]["ipv4"] in host.flota("exec", "c1", "ip", "-4", "address")
    for unit in (AGENT, CONTROLLER, PROCESSES):
        assert host.show(unit, "ActiveState") == "active"


def test_supervisor_that_an_agent_had_started_makes_way_for_the_unit(host: SystemdHost) -> None:
    """As on a host whose daemons ran without units before."""
    host.flota("down")
    host.run("systemctl", "stop", PROCESSES)
    resolver = host.run("cat", "/run/flota/agent/names/pid")
    tree, python = Path(__file__).parents[2], sys.executable
    start = (
        f"PYTHONPATH={tree} setsid {python} -P -m net.supervise /run/flota/agent/supervise >/dev/null 2>&1 &"
    )
    host.run("sh", "-c", start)

    def pid() -> int:
        return int(host.run("cat", "/run/flota/agent/supervise/pid").split()[0])

    def lives() -> bool:
        return host.run("sh", "-c", f"test -d /proc/{pid()} && echo yes || true") != ""

    wait_until(lives, deadline=10, what="a supervisor that is no unit's")
    host.flota("up")
    wait_until(lambda: pid() == main_pid(host, PROCESSES), deadline=30, what="the unit's supervisor")
    assert host.run("cat", "/run/flota/agent/names/pid") == resolver


def assert_works(host: SystemdHost, run: str) -> None:
    for unit in (AGENT, CONTROLLER, PROCESSES):
        assert host.show(unit, "ActiveState") == "active"
    assert "ready" in host.run(FLOTA, "-H", f"unix://{run}/flota.sock", "node", "ls")


@pytest.mark.parametrize(
    ("root", "run"), [("/var/lib/flota/a b%", "/run/x/flota"), ("/var/lib/flota/c", "/tmp/run")]
)
def test_folders_of_ones_own_choice_are_good_over_a_reboot(host: SystemdHost, root: str, run: str) -> None:
    host.flota("down", "--purge")
    places = ("--root", root, "--run", run)
    host.flota("up", "--name", "sd1", *places)
    assert_works(host, run)
    host.crash()
    host.boot()
    assert_works(host, run)
    said = host.flota("up", check=False)
    assert "flota-controller.service serves" in said and root in said
    host.flota("down", "--purge", *places)
    host.flota("up", "--name", "sd1")
    host.flota("import", "/var/lib/flota/root.tar", "box")


def test_purge_leaves_no_unit_and_no_process(host: SystemdHost, container: str) -> None:
    host.flota("down", "--purge")
    units = host.run("ls", "/etc/systemd/system").split()
    assert sorted(name for name in units if name.startswith("flota")) == ["flota-.service.d"]
    assert host.run("systemctl", "list-units", "--no-legend", "flota-*.service") == ""
    left = host.run(
        "sh", "-c", "grep -l 'net.supervise\\|net.resolver\\|conmon' /proc/[0-9]*/cmdline || true"
    )
    assert not [path for path in left.split() if "self" not in path and not _is_grep(host, path)], left
    host.flota("up", "--name", "sd1")
    host.flota("import", "/var/lib/flota/root.tar", "box")


def _is_grep(host: SystemdHost, path: str) -> bool:
    return not host.run("sh", "-c", f"tr '\\0' ' ' <{path} | grep -v 'grep -l' || true").strip()
