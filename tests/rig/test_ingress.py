"""Ports that services publish on every host: who reaches them from where, and that the client is seen."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.support import AT_ONCE, local_pid, on_host, replicas, wait_replicas
from tests.support.talkers import PROMPT, SERVER, Talker, answers
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
TARGET = "8088"
CLIENT4, CLIENT6 = "198.18.0.1", "fd18::1"
HOSTS = ("n1", "n2", "n3")


def address4(host: str) -> str:
    return f"198.18.0.{10 + int(host[1:])}"


def address6(host: str) -> str:
    return f"fd18::{10 + int(host[1:])}"


class Town:
    """A fleet with IPv6, a client beside it, and a server in each replica."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.servers: dict[str, Talker] = {}
        fleet.rig.outside(["ip", "address", "add", f"{CLIENT6}/64", "dev", "br0", "nodad"])
        for host in HOSTS:
            on_host(fleet, host, "ip", "address", "add", f"{address6(host)}/64", "dev", "eth0", "nodad")
        fleet.flota("n1", "network", "create", "--ipv6", "six")

    @property
    def outside(self) -> str:
        return f"/run/netns/{self.fleet.rig.name}-sw"

    def serve(self, name: str, *words: str, count: int = 2) -> None:
        """A service whose replicas answer `NAME.SLOT CLIENT` on the target port."""
        self.fleet.flota("n1", "service", "create", "--name", name, "--replicas", str(count),
                         *AT_ONCE, *words, IMAGE, "sleep", "9999")  # fmt: skip
        self.follow(name, count)

    def follow(self, name: str, count: int) -> None:
        """A server in each replica that has none yet."""
        for info in wait_replicas(self.fleet, name, count):
            instance = info["instance"]
            if instance["id"] not in self.servers:
                space = self.space(info)
                talker = Talker(space, SERVER, f"{name}.{instance['slot']}", TARGET)
                self.servers[instance["id"]] = talker

    def space(self, info: dict[str, object]) -> str:
        """Path of a container's network namespace."""
        pid = local_pid(self.fleet, info["host_name"], info["status"]["pid"])  # type: ignore[arg-type, index]
        return f"/proc/{pid}/ns/net"

    def host(self, name: str) -> str:
        return f"/run/netns/{self.fleet.rig.name}-{name}"

    def reach(self, space: str, target: str, kind: str = "tcp", *, of: int = 2) -> list[list[str]]:
        """Answers of so many rounds, once every replica answers."""

        def every() -> list[list[str]] | None:
            heard = answers(space, kind, [target], 2 * of)
            ok = all(len(words) == 2 and not words[0].endswith("Error") for words in heard)
            return heard if ok and len({words[0] for words in heard}) == of else None

        return wait_until(every, deadline=15, what=f"{of} replicas by {target} {kind}", pause=0.1)

    def refused(self, space: str, target: str, kind: str = "tcp") -> bool:
        (word, *_), *_ = answers(space, kind, [target])
        return word == "ConnectionRefusedError"

    def services(self) -> str:
        return self.fleet.flota("n1", "service", "ls")

    def clear(self) -> None:
        for talker in self.servers.values():
            talker.close()
        self.servers.clear()


@pytest.fixture(scope="module")
def made(fleet: Fleet) -> Town:
    return Town(fleet)


@pytest.fixture
def town(made: Town) -> Iterator[Town]:
    """What a test made of services and containers goes after it."""
    yield made
    made.clear()
    fleet = made.fleet
    for service in fleet.json("service", "ls"):
        fleet.flota("n1", "service", "rm", service["service"]["spec"]["name"])
    for one in fleet.json("ps", "-a"):
        fleet.attempt("n1", "rm", "-f", "-v", one["instance"]["id"])
    wait_until(lambda: not fleet.json("ps", "-a"), deadline=30, what="nothing left")


BOTH = ("-p", f"80:{TARGET}", "-p", f"80:{TARGET}/udp", "--network", "six")


def names(heard: list[list[str]]) -> Counter[str]:
    return Counter(words[0] for words in heard)


def test_client_address_is_kept_through_every_hosts_port(town: Town) -> None:
    town.serve("web", *BOTH)
    for host in HOSTS:
        for kind in ("tcp", "udp"):
            for target, client in ((address4(host), CLIENT4), (address6(host), CLIENT6)):
                heard = town.reach(town.outside, target, kind)
                assert {words[1] for words in heard} == {client}, (host, kind, heard)
    assert "*:80->8088/tcp, *:80->8088/udp" in town.services()
    assert "ingress" in town.fleet.flota("n1", "network", "ls")
    town.fleet.flota("n1", "network", "doctor")


def test_hosts_and_containers_reach_it_a_replica_itself_included(town: Town) -> None:
    town.serve("web", *BOTH)
    for host in HOSTS:
        for target in ("127.0.0.1", address4(host), address6(host), address4("n1")):
            town.reach(town.host(host), target)
    for info in replicas(town.fleet, "web"):
        own = info["host_name"]
        for kind in ("tcp", "udp"):
            for target in (address4(own), address6(own), address4("n2")):
                town.reach(town.space(info), target, kind)


def test_chosen_hosts_and_clients_alone_reach_a_port(town: Town) -> None:
    fleet = town.fleet
    fleet.flota("n1", "node", "update", "--label-add", "edge=true", "n2")
    allow = f"published=81,target={TARGET},allow=203.0.113.0/24"
    on = f"published=80,target={TARGET},on=node.labels.edge==true"
    town.serve("web", "-p", on, "-p", allow, count=1)
    heard = town.reach(town.outside, address4("n2"), of=1)
    assert heard[0] == ["web.1", CLIENT4]
    assert town.refused(town.outside, address4("n1")) and town.refused(town.outside, address4("n3"))
    fleet.flota("n1", "node", "update", "--label-add", "edge=true", "n3")
    town.reach(town.outside, address4("n3"), of=1)
    fleet.flota("n1", "node", "update", "--label-rm", "edge", "n2")
    wait_until(lambda: town.refused(town.outside, address4("n2")), deadline=10, what="n2 closed", pause=0.1)
    asked = f"published=80,target={TARGET},allow={CLIENT4}"
    fleet.flota("n1", "service", "update", "--publish-rm", f"80:{TARGET}", "--publish-add", asked, "web")
    town.reach(town.outside, address4("n1"), of=1)
    assert answers(town.host("n1"), "tcp", [address4("n2")])[0][0].endswith("Error"), "n1 is not on the list"


def test_taken_ports_are_refused_or_told_by_host_and_opened_once_free(town: Town) -> None:
    fleet = town.fleet
    foreign = Talker(town.host("n2"), SERVER, "foreign", "80")
    try:
        town.serve("web", "-p", f"80:{TARGET}", count=1)
        town.reach(town.outside, address4("n1"), of=1)
        words = "port 80/tcp is not open on n2: somebody else has it there"
        wait_until(lambda: words in town.services(), deadline=10, what="a condition", pause=0.2)
        assert answers(town.outside, "tcp", [address4("n2")])[0][0] == "foreign"
    finally:
        foreign.close()
    town.reach(town.outside, address4("n2"), of=1)
    wait_until(lambda: words not in town.services(), deadline=10, what="no condition", pause=0.2)
    again = fleet.attempt("n1", "service", "create", "--name", "other", "-p", "80:80", IMAGE, "sleep", "9")
    assert again.returncode and b"port 80/tcp is published by service web already" in again.stderr
    run = fleet.attempt("n1", "run", "-d", "-p", "80:80", IMAGE, "sleep", "9")
    assert run.returncode and b"with port 80/tcp in use" in run.stderr
    mode = f"mode=ingress,published=90,target={TARGET}"
    where = fleet.attempt("n1", "run", "-d", "-p", mode, IMAGE, "sleep", "9")
    assert where.returncode and b"only services publish on every host" in where.stderr


def test_ports_change_without_replacing_anybody(town: Town) -> None:
    fleet = town.fleet
    town.serve("web", "--network", "six")
    before = {r["instance"]["id"] for r in replicas(fleet, "web")}
    assert town.refused(town.outside, address4("n1"))
    fleet.flota("n1", "service", "update", "--publish-add", f"80:{TARGET}", "web")
    town.reach(town.outside, address4("n1"))
    town.reach(town.outside, address6("n2"))
    held = Talker(town.outside, PROMPT, "tcp", address4("n3"))
    fleet.flota("n1", "service", "update", "--publish-add", f"82:{TARGET}/udp", "web")
    fleet.flota("n1", "service", "update", "--publish-rm", f"80:{TARGET}", "web")
    wait_until(lambda: town.refused(town.outside, address4("n1")), deadline=10, what="closed", pause=0.1)
    assert held.say("still") == "still"
    held.close()
    assert {r["instance"]["id"] for r in replicas(fleet, "web")} == before
    assert "*:82->8088/udp" in town.services()


def test_service_without_a_network_and_two_on_one_host_are_reached(town: Town) -> None:
    fleet = town.fleet
    pinned = ("--constraint", "node.hostname==n3")
    town.serve("lone", "-p", f"80:{TARGET}", "-p", f"80:{TARGET}/udp", "--network", "none", *pinned, count=1)
    town.serve("two", "-p", f"published=81,target={TARGET}", *pinned, count=1)
    for kind in ("tcp", "udp"):
        for target, client in ((address4("n1"), CLIENT4), (address6("n3"), CLIENT6)):
            assert town.reach(town.outside, target, kind, of=1)[0] == ["lone.1", client], (kind, target)
    (lone,) = replicas(fleet, "lone")
    (word, _), *_ = answers(town.space(lone), "tcp", [CLIENT4])
    assert word.endswith("Error"), "it has no way out"
    fleet.flota("n1", "service", "update", "--publish-rm", f"80:{TARGET}", "lone")
    moved = ("--publish-rm", f"81:{TARGET}", "--publish-add", f"80:{TARGET}")
    fleet.flota("n1", "service", "update", *moved, "two")
    wait_until(
        lambda: town.reach(town.outside, address4("n2"), of=1)[0] == ["two.1", CLIENT4],
        deadline=10,
        what="the other service by that port",
    )


def test_lost_host_leaves_and_one_that_joins_gets_all_of_it(town: Town) -> None:
    fleet = town.fleet
    town.serve("web", *BOTH, count=3)
    fleet.rig.cut("n3")
    try:
        wait_until(
            lambda: any(n["state"] == "lost" for n in fleet.json("node", "ls")), deadline=20, what="n3 lost"
        )
        town.follow("web", 3)
        town.reach(town.outside, address4("n1"), of=3)
    finally:
        fleet.rig.heal("n3")
    fleet.wait_ready(3)
    town.reach(town.outside, address4("n3"), of=3)
    fleet.rig.boot("n4")
    fleet.join("n4")
    town.reach(town.outside, address4("n4"), of=3)
    town.reach(town.outside, address4("n4"), "udp", of=3)
    fleet.flota("n4", "down", "--purge")
    fleet.flota("n1", "node", "rm", "--force", "n4")
    assert "proto 247" not in on_host(fleet, "n4", "ip", "rule")
    assert "flota" not in on_host(fleet, "n4", "nft", "list", "tables")
    town.reach(town.outside, address4("n1"), of=3)


def test_it_goes_on_without_agents_and_controller_and_leaves_with_the_service(town: Town) -> None:
    fleet = town.fleet
    town.serve("web", *BOTH)
    town.reach(town.outside, address4("n1"))
    for host in HOSTS:
        os.kill(fleet.pid(host, "agent"), signal.SIGKILL)
    os.kill(fleet.pid("n1", "controller"), signal.SIGKILL)
    try:
        for host in HOSTS:
            for kind in ("tcp", "udp"):
                for target in (address4(host), address6(host)):
                    heard = town.reach(town.outside, target, kind)
                    assert {words[1] for words in heard} <= {CLIENT4, CLIENT6}
    finally:
        fleet.flota("n1", "controller", "--detach")
        with ThreadPoolExecutor(len(HOSTS)) as pool:  # one whose turn came too late would be lost
            list(pool.map(lambda host: fleet.flota(host, "agent", "--detach"), HOSTS))
    fleet.wait_ready(3)
    town.reach(town.outside, address4("n2"))
    fleet.flota("n1", "service", "rm", "web")
    kept = "ip -br link; ip rule; ip -6 rule"

    def left(host: str) -> bool:
        text = on_host(fleet, host, "sh", "-c", kept)
        return "ingress" not in text and "proto 247" not in text

    for host in HOSTS:
        wait_until(lambda h=host: left(h), deadline=30, what=f"{host} leaves the network", pause=0.2)
