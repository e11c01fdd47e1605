"""The main job on three hosts: replicas over VXLAN, a published port, names, errors, bad input."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

import pytest

from deploy.fleet import Fleet
from net.kernel.steering import mask
from tests.rig.conftest import IMAGE
from tests.rig.support import address, on_host, wait_replicas
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
SERVE = "echo page of $HOSTNAME > /www/index.html; exec httpd -f -p 80 -h /www"


def vxlan_bytes(fleet: Fleet, host: str) -> int:
    links = json.loads(on_host(fleet, host, "ip", "-s", "-j", "link", "show", "type", "vxlan"))
    return sum(link["stats64"]["rx"]["bytes"] for link in links)


@pytest.mark.parametrize("mode", ["routed", "bridged"])
def test_each_replica_answers_a_container_on_another_host_over_vxlan(clean: Fleet, mode: str) -> None:
    clean.flota("n1", "network", "create", "--opt", f"mode={mode}", "net1")
    clean.flota("n1", "service", "create", "--name", "web", "--replicas", "3", "--network", "net1", IMAGE,
                "sh", "-c", SERVE)  # fmt: skip
    found = wait_replicas(clean, "web", 3)
    assert sorted(r["host_name"] for r in found) == ["n1", "n2", "n3"]
    for replica in found:
        other = next(h for h in ("n1", "n2", "n3") if h != replica["host_name"])
        before = vxlan_bytes(clean, replica["host_name"])
        get = f"wget -qO- http://{address(replica, 'net1')}/"
        fetch = f"for i in $(seq 50); do {get} && exit; sleep 0.1; done; exit 1"
        page = clean.flota(
            "n1", "run", "--rm", "--node", other, "--network", "net1", IMAGE, "sh", "-c", fetch
        )
        assert page.startswith("page of ")
        assert vxlan_bytes(clean, replica["host_name"]) > before


def test_links_of_an_overlay_hand_flows_to_their_readers_unless_told_otherwise(clean: Fleet) -> None:
    read = "cat /sys/class/net/fl[vx]*/queues/rx-0/rps_cpus /sys/class/net/fl[vx]*/queues/rx-0/rps_flow_cnt"
    for setting, settings in (("on", {mask(os.cpu_count() or 1), "256", "4096"}), ("off", {"0"})):
        name = f"rps{setting}"
        clean.flota("n1", "network", "create", "--opt", f"rps={setting}", name)
        clean.flota(
            "n1", "run", "-d", "--name", f"c{name}", "--node", "n1", "--network", name, IMAGE, "sleep", "100"
        )
        # links of the network before may go just now
        wait_until(
            lambda s=settings: set(on_host(clean, "n1", "sh", "-c", f"{read} || true").split()) == s,
            deadline=10,
            what=f"{settings} of every link",
        )
        clean.flota("n1", "rm", "-f", f"c{name}")
        clean.flota("n1", "network", "rm", name)


def test_a_published_port_answers_from_outside(clean: Fleet) -> None:
    clean.flota("n1", "run", "-d", "--name", "pub", "--node", "n2", "-p", "8080:80", IMAGE, "sh", "-c", SERVE)
    host = next(h for h in clean.rig.hosts if h.name == "n2")
    fetch = ["busybox", "wget", "-qO-", f"http://{host.address}:8080/"]
    wait_until(lambda: clean.rig.outside(fetch).stdout.startswith(b"page of "), deadline=10, what="the page")


def test_a_foreground_run_gives_output_and_exit_code(clean: Fleet) -> None:
    done = clean.attempt("n1", "run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert clean.json("ps", "-a") == []


def test_what_has_ended_is_started_again_with_its_output(clean: Fleet) -> None:
    clean.attempt("n1", "run", "--name", "again", "--node", "n2", IMAGE, "sh", "-c", "echo out; exit 7")
    for _ in range(2):
        done = clean.attempt("n1", "start", "-a", "again")
        assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"")
    clean.flota("n1", "rm", "again")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("run", "--rm", "nosuchimage:1"), 125, "nosuchimage"),
        (("run", "--rm", "upper/Case"), 125, "upper/Case"),
        (("run", "--rm", IMAGE, "/no/such/program"), 127, "/no/such/program"),
        (("run", "--rm", IMAGE, "/etc/passwd"), 126, "/etc/passwd"),
        (("run", "--bogus", IMAGE), 125, "--bogus"),
        (("run", "-d", "--constraint", "node.labels.gpu==yes", IMAGE), 125, "node.labels.gpu"),
        (("run", "-d", "--node", "n9", IMAGE), 125, "n9"),
        (("run", "-d", "--memory", "1Q", IMAGE), 125, "1Q"),
        (("inspect", "nosuch"), 1, "nosuch"),
        (("rm", "nosuch"), 1, "nosuch"),
        (("logs", "nosuch"), 1, "nosuch"),
        (("network", "create", "--subnet", "10.0.0.1/33", "bad"), 1, "10.0.0.1/33"),
        (("service", "create", "--replicas", "-1", IMAGE), 1, "-1"),
    ],
)  # fmt: skip
def test_bad_input_gives_one_clear_line_and_changes_nothing(
    clean: Fleet, words: tuple[str, ...], code: int, says: str
) -> None:
    done = clean.attempt("n1", *words)
    text = done.stderr.decode()
    assert done.returncode == code, text
    assert says in text and "Traceback" not in text and len(text.splitlines()) <= 3
    assert clean.json("ps", "-a") == [] and clean.json("service", "ls") == []


def test_a_container_stands_still_once_it_was_said_to_be_paused(clean: Fleet) -> None:
    clean.flota("n1", "run", "-d", "--name", "box", "--node", "n2", IMAGE, "sleep", "9999")
    for verb, paused, again in (
        ("pause", True, b"is paused already"),
        ("unpause", False, b"is not paused"),
    ):
        clean.flota("n1", verb, "box")
        assert clean.json("inspect", "box")[0]["status"]["paused"] is paused
        assert again in clean.attempt("n1", verb, "box").stderr


def test_a_taken_port_is_refused_by_name_and_number(clean: Fleet) -> None:
    clean.flota("n1", "run", "-d", "--name", "first", "--node", "n1", "-p", "9090:80", IMAGE, "sleep", "1000")
    done = clean.attempt(
        "n1", "run", "-d", "--name", "second", "--node", "n1", "-p", "9090:80", IMAGE, "sleep", "9"
    )
    assert done.returncode == 125 and b"9090" in done.stderr
    with urllib.request.urlopen("data:,x") as reply:  # the fleet still answers afterwards
        assert reply.read() == b"x"
    assert [i["instance"]["name"] for i in clean.json("ps")] == ["first"]


def test_a_wrong_token_and_a_second_agent_are_refused(clean: Fleet) -> None:
    done = clean.attempt("n2", "join", "flota-1-aaaa-bbbb", "198.18.0.11:7420")
    assert done.returncode == 1 and b"token" in done.stderr and b"Traceback" not in done.stderr
    second = clean.attempt("n2", "agent")
    assert second.returncode == 1 and b"already" in second.stderr


def test_an_unreachable_controller_is_said_with_its_address(clean: Fleet) -> None:
    done = clean.attempt("n1", "--host", "unix:///run/nothing.sock", "ps")
    assert done.returncode == 1 and b"/run/nothing.sock" in done.stderr


def test_daemons_work_in_their_run_folder_wherever_they_were_started(fleet: Fleet) -> None:
    """What conmon leaves where it was started lies there, and nothing is imported from a user's folder."""
    for daemon in ("agent", "controller"):
        pid = fleet.pid("n1", daemon)
        assert os.readlink(f"/proc/{pid}/cwd").endswith("/run/flota")
        assert b"-P" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
