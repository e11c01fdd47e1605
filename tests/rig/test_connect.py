"""Containers that run, put on networks and taken off them, over three hosts, also while the agent is away."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from deploy.fleet import Fleet
from deploy.rig.netns import OUTSIDE_ADDRESS
from tests.rig.conftest import IMAGE
from tests.rig.support import on_host
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig


def start(fleet: Fleet, name: str, node: str, *flags: str) -> int:
    """Its pid on its host."""
    fleet.flota("n1", "run", "-d", "--name", name, "--node", node, *flags, IMAGE, "sleep", "9999")
    pid: int = status(fleet, name)["pid"]
    return pid


def status(fleet: Fleet, name: str) -> dict[str, Any]:
    found: dict[str, Any] = fleet.json("inspect", name)[0]["status"]
    return found


def endpoints(fleet: Fleet, name: str) -> dict[str, dict[str, str]]:
    return {e["network_name"]: e for e in status(fleet, name)["endpoints"]}


def within(fleet: Fleet, name: str, *words: str) -> str:
    return fleet.flota("n1", "exec", name, *words)


def way_out(fleet: Fleet, name: str) -> str:
    """The interface of the default route."""
    lines = within(fleet, name, "ip", "route").splitlines()
    return next((line.split()[4] for line in lines if line.startswith("default")), "")


def reaches(fleet: Fleet, name: str, address: str) -> bool:
    """Of a container on n1; from its namespace, since it may not send raw packets itself."""
    enter = ["nsenter", "-t", str(status(fleet, name)["pid"]), "-n"]
    done = fleet.rig.exec("n1", [*enter, "busybox", "ping", "-c1", "-W2", address], check=False)
    return done.returncode == 0


@pytest.mark.parametrize("mode", ["routed", "bridged"])
def test_running_container_reaches_another_host_once_it_is_connected(clean: Fleet, mode: str) -> None:
    clean.flota("n1", "network", "create", "--opt", f"mode={mode}", "--ipv6", "far")
    start(clean, "there", "n2", "--network", "far")
    pid = start(clean, "here", "n1", "--network", "none")
    assert within(clean, "here", "ls", "/sys/class/net").split() == ["lo"]
    clean.flota("n1", "network", "connect", "far", "here")
    peer = endpoints(clean, "there")["far"]
    for target in (peer["ipv4"], peer["ipv6"]):  # its host has to hear of the newcomer
        wait_until(lambda t=target: reaches(clean, "here", t), deadline=10, what=target)
    assert reaches(clean, "here", OUTSIDE_ADDRESS)
    assert status(clean, "here")["pid"] == pid
    assert endpoints(clean, "here")["far"]["ipv4"] in within(clean, "here", "cat", "/etc/hosts")
    assert set(clean.json("inspect", "--type", "network", "far")[0]["endpoints"]) == {"here", "there"}
    done = clean.attempt("n1", "network", "rm", "far")
    assert done.returncode == 1 and b"in use by container here, container there" in done.stderr
    clean.flota("n1", "network", "disconnect", "far", "here")
    assert within(clean, "here", "ls", "/sys/class/net").split() == ["lo"]
    assert not endpoints(clean, "here")


def test_way_out_names_and_settings_follow_the_wishes(clean: Fleet) -> None:
    for name, number in (("one", 1), ("two", 2), ("three", 3)):
        clean.flota("n1", "network", "create", "-d", "bridge", "--subnet", f"10.22{number}.0.0/24", name)
    start(clean, "box", "n1", "--network", "one")
    sysctls = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    clean.flota("n1", "network", "connect", "--ip", "10.222.0.9", "--mac-address", "02:00:00:00:00:09",
                "--driver-opt", "com.docker.network.endpoint.ifname=lan0", "--driver-opt", sysctls,
                "two", "box")  # fmt: skip
    two = endpoints(clean, "box")["two"]
    assert (two["ifname"], two["ipv4"], two["mac"]) == ("lan0", "10.222.0.9", "02:00:00:00:00:09")
    assert within(clean, "box", "cat", "/proc/sys/net/ipv4/conf/lan0/log_martians").strip() == "1"
    assert within(clean, "box", "cat", "/proc/sys/net/ipv4/conf/eth0/log_martians").strip() == "0"
    assert way_out(clean, "box") == "eth0"
    clean.flota("n1", "network", "connect", "--gw-priority", "5", "three", "box")
    assert way_out(clean, "box") == "eth1"
    clean.flota("n1", "network", "disconnect", "three", "box")
    assert way_out(clean, "box") == "eth0"
    clean.flota("n1", "network", "disconnect", "one", "box")
    assert way_out(clean, "box") == "lan0" and reaches(clean, "box", OUTSIDE_ADDRESS)
    clean.flota("n1", "restart", "-t", "0", "box")
    assert list(endpoints(clean, "box")) == ["two"] and way_out(clean, "box") == "lan0"


def test_published_port_moves_with_the_way_out(clean: Fleet) -> None:
    clean.flota("n1", "network", "create", "-d", "bridge", "lan")
    serve = "echo page > /www/index.html; exec httpd -f -p 80 -h /www"
    clean.flota("n1", "run", "-d", "--name", "web", "--node", "n1", "-p", "8080:80", IMAGE, "sh", "-c", serve)
    host = next(h for h in clean.rig.hosts if h.name == "n1")

    def answers() -> bool:
        return (
            clean.rig.outside(["busybox", "wget", "-qO-", f"http://{host.address}:8080/"]).stdout == b"page\n"
        )

    wait_until(answers, deadline=5, what="the page")
    clean.flota("n1", "network", "connect", "lan", "web")
    clean.flota("n1", "network", "disconnect", "bridge", "web")
    assert answers()
    assert [p["published"] for p in status(clean, "web")["ports"]] == [8080]


def test_events_tell_of_connections_in_dockers_words(clean: Fleet) -> None:
    clean.flota("n1", "network", "create", "-d", "bridge", "lan")
    start(clean, "box", "n1", "--network", "none")
    clean.flota("n1", "network", "connect", "lan", "box")
    clean.flota("n1", "network", "disconnect", "lan", "box")

    def seen() -> list[str]:
        words = ("events", "--since", "1h", "--until", "0s", "--filter", "network=lan", "--format", "json")
        lines = clean.flota("n1", *words).splitlines()
        found = [json.loads(line) for line in lines]
        return [e["action"] for e in found if e.get("attributes", {}).get("containerName") == "box"]

    wait_until(lambda: seen() == ["connect", "disconnect"], deadline=5, what="both events")


def test_wish_made_while_the_agent_is_away_is_met_when_it_is_back(clean: Fleet) -> None:
    clean.flota("n1", "network", "create", "-d", "bridge", "lan")
    pid = start(clean, "box", "n2")
    os.kill(clean.pid("n2", "agent"), signal.SIGKILL)
    body = '{"container": "box"}'
    script = (
        "import http.client,socket,sys\n"
        "c=http.client.HTTPConnection('x');c.sock=socket.socket(socket.AF_UNIX)\n"
        "c.sock.connect('/run/flota/flota.sock')\n"
        "c.request('POST','/v1/networks/lan/connect',sys.argv[1],{'Content-Type':'application/json'})\n"
        "print(c.getresponse().status)"
    )
    assert on_host(clean, "n1", "python3", "-c", script, body).strip() == "200"
    clean.flota("n2", "agent", "--detach")
    wait_until(lambda: list(endpoints(clean, "box")) == ["bridge", "lan"], deadline=15, what="both networks")
    assert status(clean, "box")["pid"] == pid
    assert within(clean, "box", "ls", "/sys/class/net").split() == ["eth0", "eth1", "lo"]


def test_bandwidth_is_limited_from_the_start_and_changed_under_the_container(clean: Fleet) -> None:
    clean.flota("n1", "network", "create", "slow")
    start(clean, "here", "n1", "--network", "name=slow,bandwidth-in=100mbit,bandwidth-out=20mbit")
    pid = status(clean, "here")["pid"]

    def stands(*rates: str) -> bool:
        text = on_host(clean, "n1", "tc", "qdisc")
        return text.count(" tbf ") == len(rates) and all(f"rate {rate}" in text for rate in rates)

    assert stands("100Mbit", "20Mbit")
    clean.flota("n1", "update", "--bandwidth", "in=0,out=1gbit", "here")
    assert stands("1Gbit")
    clean.flota("n1", "update", "--bandwidth", "name=slow,out=0", "here")
    assert stands() and status(clean, "here")["pid"] == pid
    done = clean.attempt("n1", "update", "--bandwidth", "out=1", "here")
    assert done.returncode == 1 and b"8kbit" in done.stderr


@pytest.mark.slow
def test_host_whose_share_of_a_small_network_is_held_or_rests_gets_more_of_it(clean: Fleet) -> None:
    clean.flota("n1", "network", "create", "--subnet", "10.77.0.0/27", "small")
    addresses = []
    for _ in range(6):
        words = ("--network", "small", "--node", "n1", IMAGE, "hostname", "-i")
        addresses.append(clean.flota("n1", "run", "--rm", *words).strip())
    assert len(set(addresses)) == 6, "each rests for a minute after use"
    (info,) = json.loads(clean.flota("n1", "network", "inspect", "small"))
    mine = [block for block in info["usage"] if block["host"] == "n1"]
    assert len(mine) > 1 and all(block["free"] + block.get("resting", 0) == block["size"] for block in mine)
