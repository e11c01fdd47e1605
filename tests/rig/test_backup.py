"""A controller is backed up while it works, lost, and restored on a host that never had one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.http import Api
from deploy.busybox import root_tar
from deploy.fleet import PORT, Fleet
from model.whereabouts import joined
from tests.rig.conftest import IMAGE, running
from tests.rig.support import address, local_pid, told, wait_replicas
from tests.rig.test_faults import CLIENT
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
SERVE = ("sh", "-c", "echo ok > /www/index.html; exec httpd -f -p 80 -h /www")
SLEEP = ("sleep", "9999")
PHRASE = b"correct horse battery staple\n"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet that the test takes apart; two replicas and three containers run."""
    with running(tmp_path / "disk") as fleet:
        fleet.flota("n1", "network", "create", "old")
        web = ("--name", "web", "--replicas", "2", "--network", "old", IMAGE)
        fleet.flota("n1", "service", "create", *web, *SERVE)
        for name in ("stays", "goes", "sleeps"):
            fleet.flota("n1", "run", "-d", "--name", name, "--node", "n2", "--network", "old", IMAGE, *SLEEP)
        wait_replicas(fleet, "web", 2)
        yield fleet


def go_on(fleet: Fleet) -> None:
    """What happens after the backup: a network, containers, a removal, a stop, a replica more."""
    fleet.flota("n1", "network", "create", "new")
    fleet.flota("n1", "run", "-d", "--name", "later", "--node", "n3", "--network", "new", IMAGE, *SERVE)
    fleet.flota("n1", "run", "-d", "--name", "beside", "--node", "n2", "--network", "new", IMAGE, *SLEEP)
    fleet.flota("n1", "rm", "-f", "goes")
    fleet.flota("n1", "stop", "-t", "0", "sleeps")
    fleet.flota("n1", "service", "scale", "web=3")
    wait_replicas(fleet, "web", 3)


def runs(fleet: Fleet, host: str) -> dict[str, tuple[str, int]]:
    """Name → (id, process) of what runs, as the controller on `host` says."""
    api = Api(fleet.socket(host))
    try:
        found = api.call("GET", "/v1/instances?all=true")
    finally:
        api.close()
    return {
        i["instance"]["name"]: (i["instance"]["id"], i["status"].get("pid", 0))
        for i in found
        if i["status"].get("phase") == "running"
    }


@contextmanager
def writing(fleet: Fleet) -> Iterator[None]:
    """Something is written all the while."""
    over, failed = threading.Event(), list[BaseException]()

    def write() -> None:
        number = 0
        try:
            while not over.is_set():
                number += 1
                fleet.flota("n1", "node", "update", "--label-add", f"turn={number}", "n3")
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not failed, failed


@contextmanager
def asked_all_the_while(fleet: Fleet, host: str, pid: int, service: str) -> Iterator[None]:
    """A container's network asks the service; each request is answered, from here to the end."""
    inside = ["nsenter", "-t", str(local_pid(fleet, host, pid)), "-n"]
    words = [*inside, sys.executable, "-c", CLIENT, service, "30"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as client:
        yield
        report = client.communicate(timeout=60)[0].decode()
    found = re.search(r"done (\d+) failed (\d+)", report)
    assert found and int(found[1]) > 500 and int(found[2]) == 0, report


def kill_controller(fleet: Fleet, host: str) -> None:
    pid = fleet.pid(host, "controller")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), deadline=10, what="the controller's end")


def refusal(fleet: Fleet, host: str, *words: str) -> str:
    done = fleet.attempt(host, *words)
    assert done.returncode, f"flota {' '.join(words)} went well"
    return done.stderr.decode()


def restore(fleet: Fleet, host: str, *words: str) -> str:
    """A controller on that host, and all agents with it; the controller's address."""
    assert "n1, n2, n3" in fleet.flota(host, "restore", *words)
    at = next(h.address for h in fleet.rig.hosts if h.name == host)
    fleet.flota(host, "controller", "--detach", "--address", at)
    said = refusal(fleet, host, "run", "-d", IMAGE, *SLEEP)
    assert "is being restored from a backup: n1, n2, n3 not heard yet" in said
    for each in ("n1", "n2", "n3"):
        fleet.flota(each, "follow", joined(at, PORT))
    wait_until(
        lambda: '"recovery"' not in fleet.flota(host, "fleet", "inspect"),
        deadline=30,
        what="all hosts to be heard",
    )
    return at


def test_a_restored_controller_keeps_what_stands_on_hosts_though_it_is_newer(
    own: Fleet, tmp_path: Path
) -> None:
    phrase, wrong, file = (tmp_path / name for name in ("phrase", "wrong", "fleet.backup"))
    phrase.write_bytes(PHRASE)
    wrong.write_bytes(b"some other words\n")
    sealed = ("--passphrase-file", str(phrase), str(file))
    with writing(own):
        own.flota("n1", "backup", *sealed)
    assert "fleet flota" in own.flota("n2", "backup", "verify", *sealed)
    assert b"PRIVATE KEY" not in file.read_bytes()
    go_on(own)
    before = runs(own, "n1")
    service = next(iter(told(own, "/v1/services/web")["service"]["vips"].values()))["ipv4"]
    later = next(i for i in told(own, "/v1/instances") if i["instance"]["name"] == "later")
    target = address(later, "new")
    with asked_all_the_while(own, "n2", before["stays"][1], service):
        assert "a controller runs here" in refusal(own, "n1", "restore", *sealed)
        kill_controller(own, "n1")
        assert "there is a controller's state in" in refusal(own, "n1", "restore", *sealed)
        said = refusal(own, "n2", "restore", "--passphrase-file", str(wrong), str(file))
        assert "doesn't open with this passphrase" in said
        restore(own, "n2", *sealed)
        wait_until(lambda: len(runs(own, "n2")) == len(before) - 1, deadline=30, what="two replicas")
    after = runs(own, "n2")
    assert {name: after[name] for name in ("stays", "later", "beside")} == {
        name: before[name] for name in ("stays", "later", "beside")
    }
    assert "goes" not in after and "sleeps" not in after
    webs = {name: one for name, one in after.items() if name.startswith("web.")}
    assert len(webs) == 2 and webs.items() <= before.items(), "the replicas are those of before"
    assert own.flota("n2", "exec", "beside", "wget", "-qO-", f"http://{target}/").strip() == "ok"
    made = own.flota("n2", "run", "-d", "--name", "fresh", "--network", "new", "--node", "n3", IMAGE, *SLEEP)
    assert made.strip()


def test_a_controller_whose_disk_is_lost_is_restored_in_its_place(own: Fleet, tmp_path: Path) -> None:
    """Agents find it where it was; `up` is all that is left to do. A host that joined since knocks."""
    file = str(tmp_path / "plain")
    own.flota("n1", "backup", "--insecure-plain", file)
    own.rig.boot("n4")
    own.join("n4")
    own.wait_ready(4)
    own.flota("n1", "run", "-d", "--name", "fresh", "--node", "n3", "--network", "old", IMAGE, *SLEEP)
    own.load_everywhere(IMAGE, root_tar())
    own.flota("n1", "run", "-d", "--name", "joined", "--node", "n4", IMAGE, *SLEEP)
    before = runs(own, "n1")
    kill_controller(own, "n1")
    own.rig.exec("n1", ["rm", "-r", "/var/lib/flota/controller"])
    own.flota("n1", "restore", file)
    own.flota("n1", "up")
    wait_until(
        lambda: "n4 (" in own.flota("n1", "fleet", "recovery"), deadline=30, what="the host that is not in it"
    )
    own.flota("n1", "fleet", "admit", "n4")
    wait_until(lambda: runs(own, "n1") == before, deadline=30, what="all that ran")
    own.wait_ready(4)
    assert "all hosts have told what they know" in own.flota("n1", "fleet", "recovery")
    assert "all hosts have told" not in refusal(own, "n1", "fleet", "settle")


def test_a_controller_of_older_state_is_obeyed_by_no_host(own: Fleet, tmp_path: Path) -> None:
    """The one that was taken for dead comes back: nothing that it doesn't know of is removed."""
    file = str(tmp_path / "plain")
    assert "whoever reads it rules the fleet" in refusal(own, "n1", "backup", file)
    own.flota("n1", "backup", "--insecure-plain", file)
    kill_controller(own, "n1")
    at = restore(own, "n2", file)
    own.flota("n2", "run", "-d", "--name", "fresh", "--node", "n3", IMAGE, *SLEEP)
    fresh = runs(own, "n2")["fresh"]
    own.flota("n1", "controller", "--detach")
    first = next(h.address for h in own.rig.hosts if h.name == "n1")
    own.flota("n3", "follow", joined(first, PORT))
    log = "/var/lib/flota/log/agent.log"
    wait_until(
        lambda: b"its state is older than what this host was told" in own.rig.exec("n3", ["cat", log]).stdout,
        deadline=20,
        what="a refusal",
    )
    own.rig.exec("n3", ["kill", "-0", str(fresh[1])])  # raises unless it runs on
    own.flota("n3", "follow", joined(at, PORT))
    wait_until(
        lambda: all(n["state"] == "ready" for n in own.json("node", "ls", host="n2")),
        deadline=20,
        what="all hosts to be back",
    )
    assert runs(own, "n2")["fresh"] == fresh
