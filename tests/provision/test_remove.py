"""`flota host rm`: drained, emptied, forgotten; also when it was cut."""

from __future__ import annotations

import json

import pytest

from deploy.busybox import root_tar
from tests.provision.barehosts import BareHosts
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig

LEFT = "ls -A /opt /var/lib/flota /run/flota /usr/local/bin; ip -o link | grep -c flota; nft list tables"


def load(hosts: BareHosts, name: str) -> None:
    """An image on every host."""
    tar = hosts.home / "root.tar"
    tar.write_bytes(root_tar())
    hosts.ok("import", str(tar), name)


def replicas(hosts: BareHosts, service: str) -> dict[str, str]:
    """Running ones, and where."""
    lines = hosts.ok("service", "ps", service, "--format", "json").splitlines()
    rows = [row for row in map(json.loads, lines) if row["status"]["phase"] == "running"]
    return {row["instance"]["id"]: row["host_name"] for row in rows}


def test_rm_moves_services_away_first_and_leaves_nothing_of_flota(fleet: BareHosts) -> None:
    first, second = fleet.another(2)
    fleet.bereave(second)
    fleet.ok("host", "add", "--label", "kind=rm", fleet.root(first), fleet.root(second))
    load(fleet, "rm:1")
    fleet.ok("service", "create", "--name", "moving", "--replicas", "2", "--stop-signal", "KILL",
             "--constraint", "node.labels.kind==rm", "rm:1", "sleep", "1000")  # fmt: skip
    wait_until(
        lambda: set(replicas(fleet, "moving").values()) == {first, second}, deadline=30, what="replicas"
    )
    fleet.ok("run", "-d", "--name", "plain", "--node", second, "rm:1", "sleep", "1000")
    done = fleet.flota("host", "rm", second)
    assert done.returncode == 1 and "1 containers that are no service's (plain)" in done.stderr
    fleet.ok("rm", "-f", "plain")
    done = fleet.flota("host", "rm", second)
    assert done.returncode == 0, done.stderr
    assert "packages that were installed for flota stay: runc conmon" in done.stderr
    assert set(replicas(fleet, "moving").values()) == {first} and len(replicas(fleet, "moving")) == 2
    assert second not in fleet.nodes()
    left = fleet.sh(second, LEFT, check=False)
    assert "flota" not in left.replace("/var/lib/flota:", "").replace("/run/flota:", ""), left
    assert fleet.sh(second, "ls -A /opt /var/lib/flota | grep -v :", check=False).strip() == ""
    done = fleet.flota("host", "rm", f"root@{fleet.address(second)}")
    assert done.returncode == 1 and "has nothing of flota" in done.stderr
    fleet.ok("service", "rm", "moving")
    fleet.settings(second)
    fleet.ok("host", "add", fleet.root(second))
    assert fleet.nodes()[second]["host"]["state"] == "ready"


def test_rm_of_the_controller_with_hosts_is_refused(fleet: BareHosts) -> None:
    done = fleet.flota("host", "rm", "--force", "n1")
    assert done.returncode == 1 and "it is the controller of" in done.stderr
    assert fleet.nodes()["n1"]["host"]["state"] == "ready"


def test_rm_that_was_cut_goes_on_where_it_was(fleet: BareHosts) -> None:
    (host,) = fleet.another()
    fleet.ok("host", "add", fleet.root(host))
    fleet.sh(host, "/opt/flota/current/bin/flota down --purge")  # so far it had come
    assert host in fleet.nodes()
    fleet.ok("host", "rm", host)
    assert host not in fleet.nodes()
    assert fleet.sh(host, "ls -A /opt").strip() == ""


def test_volumes_stay_on_a_host_that_is_taken_out_and_are_found_again(fleet: BareHosts) -> None:
    (host,) = fleet.another()
    fleet.ok("host", "add", fleet.root(host))
    load(fleet, "volumes:1")
    run = ("run", "--rm", "--node", host, "-v", "data:/data", "volumes:1", "sh", "-c")
    fleet.ok(*run, "echo mine >/data/file")
    done = fleet.flota("host", "rm", host)
    assert done.returncode == 0, done.stderr
    assert f"1 volumes stay on {host}, in /var/lib/flota/agent/volumes: data" in done.stderr
    assert fleet.sh(host, "cat /var/lib/flota/agent/volumes/data/_data/file") == "mine\n"
    assert fleet.sh(host, "ls -A /var/lib/flota /var/lib/flota/agent").split()[1::2] == ["agent", "volumes"]
    fleet.ok("host", "add", fleet.root(host))
    load(fleet, "volumes:1")
    assert fleet.ok(*run, "cat /data/file") == "mine\n"
    fleet.ok("host", "rm", "--volumes", host)
    assert fleet.sh(host, "ls -A /var/lib/flota").strip() == ""


def test_rm_of_a_host_nobody_knows_how_to_reach_says_what_to_do(fleet: BareHosts) -> None:
    done = fleet.flota("host", "rm", "nobody")
    assert done.returncode == 1 and "Say it as user@host" in done.stderr
