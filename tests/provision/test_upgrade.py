"""`flota host upgrade` over real sshds: three hosts under load change releases, and nobody notices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.bundle import Bundle
from deploy.busybox import root_tar
from deploy.rig.netns import NetnsRig
from tests.provision import releasetrees
from tests.provision.barehosts import BareHosts
from tests.provision.conftest import RIG
from tests.support import census
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.rig, pytest.mark.timeout(400)]
LOADS = Path(__file__).parents[1] / "rig" / "loads.py"
SERVE = "trap 'exit 0' TERM; echo page > /www/index.html; httpd -f -p 80 -h /www & wait"
NAMES = ("n1", "n2", "n3")
STRANGERS = {"n1": "198.18.0.201", "n2": "198.18.0.202", "n3": "198.18.0.203"}
PATIENCE_OF_HTTPD = 55


class Site:
    """Three hosts of a fleet with a service on each, reached on port 80 of any."""

    def __init__(self, hosts: BareHosts, trees: Path) -> None:
        self.hosts = hosts
        self._trees = trees

    def tree(self, version: str, *broken: str) -> dict[str, str]:
        """The environment in which the operator's flota is of that release."""
        path = self._trees / f"tree-{version}"
        return {
            "PYTHONPATH": str(path if path.exists() else releasetrees.copy(self._trees, version, *broken))
        }

    def upgrade(self, tree: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
        return self.hosts.flota("host", "upgrade", *words, env=tree)

    def done(self, tree: dict[str, str], *words: str) -> None:
        done = self.upgrade(tree, *words)
        assert done.returncode == 0, done.stdout + done.stderr

    def releases(self) -> dict[str, str]:
        """Version that each host's agent says it runs from, and the controller's."""
        found = {name: n["host"]["facts"].get("release", "") for name, n in self.hosts.nodes().items()}
        [info] = [json.loads(line) for line in self.hosts.ok("info", "--format", "json").splitlines()]
        return {name: r.partition("-")[0] for name, r in {**found, "controller": info["release"]}.items()}

    def pids(self) -> dict[str, int]:
        lines = self.hosts.ok("ps", "--format", "json").splitlines()
        found = map(json.loads, lines)
        return {one["instance"]["id"]: one["status"]["pid"] for one in found}

    def ready(self) -> bool:
        states = [node["host"]["state"] for node in self.hosts.nodes().values()]
        return states == ["ready"] * len(NAMES)


class Load:
    """Requests of strangers to the hosts' port 80 (tests/rig/loads.py). Each host has a stranger of its own:
    who comes by two hosts from one port may be led to the same replica twice, which takes them for one."""

    def __init__(self, site: Site, folder: Path) -> None:
        self._began = 0.0
        self._stops, self._asking = [], []
        for name, stranger in STRANGERS.items():
            stop = folder / f"stop-{name}"
            argv = ["nsenter", f"--net=/run/netns/{site.hosts.rig.name}-sw", sys.executable, str(LOADS)]
            argv += [site.hosts.address(name), str(stop), stranger]
            self._stops.append(stop)
            self._asking.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))

    def __enter__(self) -> Load:
        self._began = time.time()
        for process in self._asking:
            assert process.stdout is not None and process.stdout.readline() == "up\n"
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._asking:
            process.kill()
            process.communicate()

    def unharmed(self) -> None:
        for stop in self._stops:
            stop.touch()
        ended = [process.communicate(timeout=30)[0] for process in self._asking]
        for said in ended:
            found: dict[str, Any] = json.loads(said)
            assert found["failed"] == [] and found["done"]["quick"] > 50 and found["done"]["slow"] > 10, found
            # a connection that says nothing is ended by busybox itself, after a minute
            ended_early = [at for at in found["closed"] if at < self._began + PATIENCE_OF_HTTPD]
            assert ended_early == [], "connections that stood before stand still"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    name = f"{RIG[:7]}u"
    rig = NetnsRig(name, disk=folder / "disk", run=Path(f"/run/flota-{name}"))
    rig.down()
    (folder / "operator").mkdir()
    hosts = BareHosts(rig, folder / "operator")
    with census.unchanged():
        try:
            hosts.up(3)
            hosts.ok("host", "add", "--controller", *(hosts.root(name) for name in NAMES))
            words = ["/usr/local/bin/flota", "import", "-", "page"]
            rig.exec("n1", words, stdin=root_tar())
            words = ["--name", "web", "--replicas", "3", "-p", "published=80,target=80", "page"]
            hosts.ok("service", "create", *words, "sh", "-c", SERVE)
            made = Site(hosts, folder)
            wait_until(lambda: len([p for p in made.pids().values() if p]) == 3, deadline=60)
            for stranger in STRANGERS.values():
                rig.outside(["ip", "address", "add", f"{stranger}/24", "dev", "br0"])
            yield made
        finally:
            hosts.down()


def test_upgrade_of_three_hosts_under_load_breaks_no_connection_and_no_container(
    site: Site, tmp_path: Path
) -> None:
    before, first = site.pids(), site.releases()["n1"]
    tree = site.tree("0.2.0")
    done = site.upgrade(tree, "--all", "--dry-run")
    planned = done.stdout
    assert done.returncode == 0, done.stderr
    assert planned.startswith("1. n1: the controller from ") and "4. n3: the agent from " in planned
    with Load(site, tmp_path) as load:
        site.done(tree, "--all")
        load.unharmed()
    assert site.releases() == dict.fromkeys((*NAMES, "controller"), "0.2.0")
    assert site.pids() == before
    for name in NAMES:
        kept = site.hosts.sh(name, "cd /opt/flota; readlink current previous; ls -A incoming").split()
        assert [one.partition("-")[0] for one in kept] == ["releases/0.2.0", f"releases/{first}"]
    assert "0.2.0-" in site.hosts.ok("host", "ls")
    again = site.upgrade(tree, "--all")
    assert again.returncode == 0 and again.stdout.count("is there already") == 3


def test_upgrade_cut_midway_is_continued_by_the_next(site: Site) -> None:
    before, tree = site.pids(), site.tree("0.3.0")
    argv = ["nsenter", f"--net=/run/netns/{site.hosts.rig.name}-sw", *site.hosts._operator(tree)]
    argv += [str(Path(sys.executable).with_name("flota")), "host", "upgrade", "--all"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as operator:
        assert operator.stderr is not None
        for line in operator.stderr:
            if line.startswith("n2: the agent goes to"):
                break
        operator.kill()
    site.done(tree, "--all")
    assert site.releases() == dict.fromkeys((*NAMES, "controller"), "0.3.0")
    assert site.pids() == before


def test_rollback_of_all_goes_to_the_release_before(site: Site, tmp_path: Path) -> None:
    before, was = site.pids(), site.releases()["n1"]
    with Load(site, tmp_path) as load:
        site.done(site.tree("0.3.0"), "--all", "--rollback")
        load.unharmed()
    back = site.releases()
    assert len(set(back.values())) == 1 and back["n1"] != was
    assert site.pids() == before


def test_release_whose_agent_does_not_start_goes_back_and_the_rest_is_not_touched(site: Site) -> None:
    before, was = site.pids(), site.releases()
    done = site.upgrade(site.tree("0.4.0", "agent/main.py"), "--all")
    assert done.returncode == 1
    assert "this release is broken on purpose" in done.stderr and "It is back on " in done.stderr
    now = site.releases()
    assert now == {**was, "controller": "0.4.0"}, "the controller of that release is well"
    wait_until(site.ready, deadline=20)
    assert site.pids() == before
    assert os.path.basename(site.hosts.sh("n2", "readlink /opt/flota/current")).startswith(was["n2"])
    pinned = site.hosts.sh("n1", "cd /opt/flota; readlink agent controller current").split()
    versions = [one.removeprefix("releases/").partition("-")[0] for one in pinned]
    assert versions == [was["n1"], "0.4.0", was["n1"]], "neither takes the other's next start along"
    said = site.hosts.flota("host", "doctor")
    assert said.returncode == 1 and "the controller runs 0.4.0-" in said.stdout, said.stdout


def test_release_whose_controller_does_not_start_goes_back_with_its_store(site: Site) -> None:
    site.done(site.tree("0.3.0"), "--all")
    before, was = site.pids(), site.releases()
    site.hosts.ok("network", "create", "kept")
    done = site.upgrade(site.tree("0.6.0", "controller/main.py"), "--all")
    assert done.returncode == 1
    assert "broken on purpose" in done.stderr and "with the store as it was before" in done.stderr
    assert site.releases() == was
    wait_until(site.ready, deadline=20)
    assert site.pids() == before
    assert "kept" in site.hosts.ok("network", "ls")
    assert "store.upgrading" not in site.hosts.sh("n1", "ls /var/lib/flota/controller")


def test_hosts_of_the_layout_before_are_upgraded_and_go_back(site: Site) -> None:
    """They have `current` and `previous` alone, which counted for both daemons."""
    before, was = site.pids(), site.releases()
    for name in NAMES:
        site.hosts.sh(name, "cd /opt/flota; rm -f agent agent.previous controller controller.previous")
    site.done(site.tree("0.7.0"), "--all")
    assert site.releases() == dict.fromkeys((*NAMES, "controller"), "0.7.0") and site.pids() == before
    links = "cd /opt/flota; readlink agent agent.previous; readlink controller controller.previous"
    for name in NAMES:
        pinned = [
            one.split("/")[1].partition("-")[0] for one in site.hosts.sh(name, links, check=False).split()
        ]
        assert pinned == ["0.7.0", was[name]] * (2 if name == "n1" else 1)
    site.done(site.tree("0.7.0"), "--all", "--rollback")
    assert site.releases() == was and site.pids() == before


def test_exec_on_all_hosts_bears_their_names_and_ends_as_the_first_that_failed(site: Site) -> None:
    done = site.hosts.flota("host", "exec", "--all", "--", "sh", "-c", 'hostname; test "$(hostname)" != n2')
    assert sorted(done.stdout.splitlines()) == ["n1 | n1", "n2 | n2", "n3 | n3"]
    assert done.returncode == 1
    done = site.hosts.flota("host", "exec", "n3", "--", "id", "-u")
    assert (done.returncode, done.stdout) == (0, "n3 | 0\n")
    done = site.hosts.flota("host", "exec", "nobody", "--", "id")
    assert done.returncode == 1 and "does not know how to reach" in done.stderr
