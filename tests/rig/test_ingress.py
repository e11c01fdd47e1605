"""Ports that services publish on every host: who reaches them from where, and that the client is seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.support import local_pid, on_host, wait_replicas
from tests.support.talkers import SERVER, Talker, answers
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
TARGET = "8088"
CLIENT4, CLIENT6 = "198.18.0.1", "fd18::1"
HOSTS = ("n1", "n2", "n3")
HERE = "/proc/self/ns/net"


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

    def serve(self, name: str, *words: str, replicas: int = 2) -> None:
        """A service whose replicas answer `NAME.SLOT CLIENT` on the target port."""
        self.fleet.flota("n1", "service", "create", "--name", name, "--replicas", str(replicas),
                         *words, IMAGE, "sleep", "9999")  # fmt: skip
        self.follow(name, replicas)

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
    assert "*:80->8088/tcp, *:80->8088/udp" in town.fleet.flota("n1", "service", "ls")
    assert "ingress" in town.fleet.flota("n1", "network", "ls")
