"""`flota host add` over a real sshd: bare hosts become members, whatever happens on the way."""

from __future__ import annotations

import json
import signal
import stat
from pathlib import Path

import pytest

from deploy.bundle import Bundle
from tests.provision.barehosts import LACKED, BareHosts
from tests.provision.cutter import DIED, KINDS
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
PYTHON = ("bin/python3", "bin/python3.11")
STAMPED = "find /opt /etc /usr/local -xdev -printf '%p %T@\\n' | sort"
UNTOUCHED = "ls -A /opt /var/lib/flota /usr/local/bin; ls -d /run/flota/*; true"


def agent_pid(hosts: BareHosts, host: str) -> str:
    return hosts.sh(host, "cat /run/flota/agent.pid")


def releases(hosts: BareHosts, host: str) -> list[str]:
    return hosts.sh(host, "ls -A /opt/flota/releases").split()


def test_add_of_a_bare_host_founds_a_fleet_that_the_operators_commands_reach(
    fleet: BareHosts, bundle: Bundle
) -> None:
    assert fleet.nodes()["n1"]["host"]["state"] == "ready"
    admin = fleet.home / ".config" / "flota" / "current" / "admin.json"
    assert stat.S_IMODE(admin.stat().st_mode) == 0o600
    assert fleet.sh("n1", "readlink -f /usr/local/bin/flota").strip().endswith(f"{bundle.release}/bin/flota")
    packages = fleet.sh("n1", "cat /opt/flota/packages").split()
    assert packages == ["runc", "conmon", "golang-github-containers-common", "tini"]
    installs = [line for line in fleet.sh("n1", "cat /run/own/apt-get.log").splitlines() if "install" in line]
    assert len(installs) == 1 and installs[0].endswith(" ".join(packages))


def test_add_of_a_member_says_so_and_changes_nothing(fleet: BareHosts) -> None:
    before = (agent_pid(fleet, "n1"), fleet.sh("n1", STAMPED))
    for words in (("--controller", fleet.root("n1")), (fleet.root("n1"),)):
        assert "a member already, as n1" in fleet.ok("host", "add", *words)
    assert (agent_pid(fleet, "n1"), fleet.sh("n1", STAMPED)) == before


def test_add_by_a_user_who_may_sudo_makes_a_member(fleet: BareHosts) -> None:
    (host,) = fleet.another()
    user = f"deploy@{fleet.address(host)}"
    planned = fleet.ok("host", "add", "--dry-run", user)
    assert "join the fleet" in planned and "install packages" not in planned
    assert fleet.sh(host, "ls -A /opt").strip() == ""
    fleet.ok("host", "add", "--name", "sudoer", "--label", "zone=b", user)
    node = fleet.nodes()["sudoer"]
    assert node["host"]["state"] == "ready" and node["host"]["facts"]["labels"] == {"zone": "b"}
    row = next(
        r
        for r in map(json.loads, fleet.ok("host", "ls", "--format", "json").splitlines())
        if r["name"] == "sudoer"
    )
    assert row["target"] == user


def test_add_where_sudo_wants_a_password_or_is_missing_is_refused_and_nothing_changed(
    fleet: BareHosts,
) -> None:
    (host,) = fleet.another()
    before = fleet.sh(host, UNTOUCHED)
    fleet.sh(host, "rm /etc/sudoers.d/deploy")
    done = fleet.flota("host", "add", f"deploy@{fleet.address(host)}")
    assert done.returncode == 1 and "sudo does not make this user root without a password" in done.stderr
    fleet.sh(host, "rm /usr/bin/sudo")
    done = fleet.flota("host", "add", f"deploy@{fleet.address(host)}")
    assert done.returncode == 1 and "there is no sudo" in done.stderr
    assert fleet.sh(host, UNTOUCHED) == before


def test_add_of_a_host_with_a_wrong_or_unknown_key_is_refused_until_it_is_said(fleet: BareHosts) -> None:
    (host,) = fleet.another()
    before = fleet.sh(host, UNTOUCHED)
    known = fleet.home / ".ssh" / "known_hosts"
    lines = known.read_text()
    address, key = fleet.address(host), fleet.fingerprint(host)
    try:
        known.write_text(lines.replace(fleet.host_key(host), fleet.host_key("n1")))
        done = fleet.flota("host", "add", fleet.root(host))
        assert done.returncode == 1 and "key has CHANGED" in done.stderr and key in done.stderr
        known.write_text(
            "".join(line for line in lines.splitlines(True) if not line.startswith(f"{address} "))
        )
        done = fleet.flota("host", "add", fleet.root(host))
        assert done.returncode == 1 and f"--host-key {key}" in done.stderr
        wrong = fleet.fingerprint("n1")
        done = fleet.flota("host", "add", "--host-key", wrong, fleet.root(host))
        assert done.returncode == 1 and f"not the key {wrong}" in done.stderr
        assert "join the fleet" in fleet.ok("host", "add", "--dry-run", "--host-key", key, fleet.root(host))
    finally:
        known.write_text(lines)
    assert fleet.sh(host, UNTOUCHED) == before


def test_add_to_a_full_disk_is_refused_and_leaves_nothing(fleet: BareHosts, bundle: Bundle) -> None:
    (host,) = fleet.another()
    fleet.sh(host, "mount -o remount,size=20m /opt")
    done = fleet.flota("host", "add", fleet.root(host))
    assert done.returncode == 1 and "no room in /opt/flota" in done.stderr
    assert fleet.sh(host, "ls -A /opt").strip() == ""
    fleet.sh(host, "mount -o remount,size=1g,nr_inodes=60 /opt")  # room that runs out on the way
    done = fleet.flota("host", "add", fleet.root(host))
    assert done.returncode == 1 and "full" in done.stderr and "Make room" in done.stderr
    assert releases(fleet, host) == [] and fleet.sh(host, "ls -A /opt/flota/incoming").strip() == ""
    fleet.sh(host, "mount -o remount,nr_inodes=0 /opt || mount -o remount,nr_inodes=100000 /opt")
    fleet.ok("host", "add", fleet.root(host))
    assert releases(fleet, host) == [bundle.release]


def test_add_of_a_host_without_python_installs_it(fleet: BareHosts) -> None:
    (host,) = fleet.another()
    fleet.bereave(host, PYTHON)
    fleet.sh(host, "touch /run/own/apt-fails")
    done = fleet.flota("host", "add", fleet.root(host))
    assert done.returncode == 1 and "install packages python3 failed: E: Unable to locate" in done.stderr
    assert fleet.sh(host, "ls -A /opt").strip() == ""
    fleet.sh(host, "rm /run/own/apt-fails")
    fleet.ok("host", "add", fleet.root(host))
    assert fleet.nodes()[host]["host"]["state"] == "ready"


@pytest.mark.parametrize("side", ["after", "during"])
def test_add_cut_at_every_step_and_run_again_ends_as_if_it_had_not_been(
    fleet: BareHosts, bundle: Bundle, tmp_path: Path, side: str
) -> None:
    (host,) = fleet.another()
    fleet.bereave(host, LACKED)
    seen = tmp_path / "seen"
    seen.touch()
    codes = []
    while not codes or codes[-1] == DIED:
        done = fleet.python("-m", "tests.provision.cutter", str(seen), side, fleet.root(host))
        codes.append(done.returncode)
        assert len(codes) <= len(KINDS) + 1
    assert codes[-1] == 0, done.stdout.decode() + done.stderr.decode()
    assert sorted(seen.read_text().split()) == sorted(KINDS)
    fleet.ok("host", "add", fleet.root(host))
    assert fleet.nodes()[host]["host"]["state"] == "ready"
    assert releases(fleet, host) == [bundle.release]
    assert fleet.sh(host, "ls -A /opt/flota/incoming").strip() == ""
    assert fleet.sh(host, "cat /opt/flota/packages").split() == [
        "runc", "conmon", "golang-github-containers-common", "tini",
    ]  # fmt: skip


def test_add_of_eight_hosts_at_once_makes_them_all_members(fleet: BareHosts) -> None:
    names = fleet.another(8)
    said = fleet.ok("host", "add", "--format", "json", *(fleet.root(name) for name in names))
    results = {line["name"]: line["result"] for line in map(json.loads, said.splitlines())}
    assert results == dict.fromkeys(names, "added")
    nodes = fleet.nodes()
    assert {nodes[name]["host"]["state"] for name in names} == {"ready"}


@pytest.mark.slow
def test_add_over_a_link_that_dies_is_told_soon_and_goes_on_when_it_is_back(fleet: BareHosts) -> None:
    (host,) = fleet.another()
    fleet.bereave(host)
    fleet.sh(host, "touch /run/own/apt-hangs")
    first = fleet.began("host", "add", fleet.root(host))
    log = "cat /run/own/apt-get.log"
    wait_until(lambda: "install" in fleet.sh(host, log, check=False), deadline=60, what="apt-get")
    fleet.rig.cut(host)
    _, said = first.communicate(timeout=90)
    assert first.returncode == 1 and b"the connection broke" in said
    fleet.rig.heal(host)
    done = fleet.flota("host", "add", fleet.root(host))
    assert done.returncode == 1 and "is provisioning this host now" in done.stderr
    fleet.sh(host, "rm /run/own/apt-hangs")
    wait_until(
        lambda: fleet.flota("host", "add", fleet.root(host)).returncode == 0,
        deadline=90,
        what="the lock's end",
        pause=2.0,
    )
    assert fleet.nodes()[host]["host"]["state"] == "ready"
    installs = [line for line in fleet.sh(host, log).splitlines() if "install" in line]
    assert len(installs) == 1


def test_add_that_is_interrupted_ends_at_once_and_quietly(fleet: BareHosts) -> None:
    (host,) = fleet.another()
    fleet.bereave(host)
    fleet.sh(host, "touch /run/own/apt-hangs")
    running = fleet.began("host", "add", fleet.root(host))
    log = "cat /run/own/apt-get.log"
    wait_until(lambda: "install" in fleet.sh(host, log, check=False), deadline=60, what="apt-get")
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=20)
    assert running.returncode == 130 and b"Traceback" not in said
    fleet.sh(host, "rm /run/own/apt-hangs")
    fleet.ok("host", "add", fleet.root(host))
