"""Whatever of flota's a stranger deletes on a host of a running fleet is back within a second, nothing else
having changed, and containers and their connections go on.

What there is to delete is asked of the kernel. FLOTA_DELETIONS of it (40, with --full everything) in an order
by FLOTA_DELETIONS_SEED, at least two of each kind; the seed and the times are printed when it fails.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from deploy.fleet import Fleet
from deploy.rig.netns import OUTSIDE_ADDRESS, address_of
from tests.conftest import FULL
from tests.rig.conftest import IMAGE
from tests.rig.support import local_pid, settled, wait_replicas
from tests.support.ownobjects import KINDS, Owned, names, owned
from tests.support.talkers import Talker, server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
COUNT = int(os.environ.get("FLOTA_DELETIONS", "100000" if FULL else "40"))
SOON = 1.0
"""Seconds until a deleted object is back."""
FOUND = (
    "namespace",
    *KINDS.values(),
    *(f"nft {kind}" for kind in ("table", "chain", "rule", "set", "element")),
)
HELD = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
s.settimeout(5)
print(s.recv(99).decode().split()[0], flush=True)
for line in sys.stdin:
    s.sendall(line.encode())
    print(s.recv(99).decode().strip(), flush=True)
"""
NETWORKS = {
    "routed": ("--ipv6",),
    "bridged": ("--ipv6", "--opt", "mode=bridged"),
    "local": ("--driver", "bridge", "--ipv6"),
}
SITE = ("--subnet", "198.18.0.0/24", "--gateway", OUTSIDE_ADDRESS, "--ip-range", "198.18.0.128/25")
"""Of a network on the hosts' own link."""


class Site:
    """One of everything on n1; `talks` are connections by every way that there is, from and to it."""

    def __init__(self, fleet: Fleet, stack: ExitStack) -> None:
        self.fleet, self._stack = fleet, stack
        self.talks: dict[str, Talker] = {}
        for name, words in NETWORKS.items():
            fleet.flota("n1", "network", "create", *words, name)
        fleet.flota("n1", "network", "create", "--driver", "macvlan", *SITE, "--opt", "parent=eth0", "site")
        limited = (f"name={name},bandwidth-out=1gbit,bandwidth-in=1gbit" for name in NETWORKS)
        all_ = [word for name in limited for word in ("--network", name)]
        self.near = self._container("near", "n1", *all_, "--label", "kind=near", "-p", "8090:80",
                                    "-p", "published=8091,target=80,proxy-protocol=v1")  # fmt: skip
        beside = self._container(
            "beside", "n1", "--network", "local", "--network", "routed", "--network", "site"
        )
        far = self._container("far", "n2", "--network", "routed", "--network", "bridged")
        fleet.flota("n1", "service", "create", "--name", "web", "--replicas", "3", "--network", "routed",
                    "-p", "8080:80", "--balance", "sticky", IMAGE, "sleep", "9999")  # fmt: skip
        for info in wait_replicas(fleet, "web", 3):
            self._serve(f"/proc/{local_pid(fleet, info['host_name'], info['status']['pid'])}/ns/net", "web")
        fleet.flota("n1", "policy", "create", "closed", "--for", "label=kind=near", "--ingress",
                    "allow=cidr:0.0.0.0/0,port=80/tcp", "--egress", "allow")  # fmt: skip
        outside = f"/run/netns/{fleet.rig.name}-sw"
        for network, space, who in (("routed", "n2", far), ("bridged", "n2", far), ("local", "n1", beside)):
            self._talk(f"{network}, to {space}", self.near[0], who[1][network], 80)
            self._talk(f"{network}, from {space}", who[0], self.near[1][network], 80)
        self._talk("site", f"/run/netns/{fleet.rig.name}-n1", beside[1]["site"], 80)
        vip = self._vip()
        self._talk("service", self.near[0], vip, 80)
        self._talk("ingress", outside, address_of("n1"), 8080)
        self._talk("published", outside, address_of("n1"), 8090)

    def _container(self, name: str, host: str, *words: str) -> tuple[str, dict[str, str]]:
        """Its network namespace and its address by network, with a server in it."""
        ident = self.fleet.flota(
            "n1", "run", "-d", "--name", name, "--node", host, *words, IMAGE, "sleep", "9999"
        )
        status = self.fleet.json("inspect", ident.strip())[0]["status"]
        space = f"/proc/{local_pid(self.fleet, host, status['pid'])}/ns/net"
        self._serve(space, name)
        return space, {foot["network_name"]: foot["ipv4"] for foot in status["endpoints"]}

    def _serve(self, space: str, name: str) -> None:
        self._stack.callback(server(space, name).close)

    def _talk(self, what: str, space: str, target: str, port: int) -> None:
        def greeted() -> Talker | None:
            talker = Talker(space, HELD, target, str(port))
            if talker.greeting:
                return talker
            talker.close()
            return None

        self.talks[what] = wait_until(greeted, deadline=10, what=what, pause=0.1)
        self._stack.callback(self.talks[what].close)

    def _vip(self) -> str:
        (service,) = json.loads(self.fleet.flota("n1", "service", "inspect", "web"))
        (one,) = service["service"]["vips"].values()
        return str(one["ipv4"])

    def run(self, words: Sequence[str]) -> str:
        return self.fleet.rig.exec("n1", list(words)).stdout.decode()

    def there(self) -> list[Owned]:
        """Once nothing changes any more."""
        settled(lambda: names(owned(self.run)), what="what there is", pause=1.0)
        return owned(self.run)

    def silent(self) -> list[str]:
        """Connections that don't answer any more."""
        return [what for what, talker in self.talks.items() if talker.say("here") != "here"]


def at_rest(fleet: Fleet) -> bool:
    """Whether n1 has let go of all members of services that there were: those go by themselves."""
    sets = [f"nft list set inet flota_services served{digit}" for digit in "46"]
    listing = fleet.rig.exec("n1", ["sh", "-c", "; ".join(sets)], check=False).stdout
    return b"elements" not in listing


@pytest.fixture
def site(clean: Fleet) -> Iterator[Site]:
    wait_until(lambda: at_rest(clean), deadline=60, what="members that left to be let go")
    with ExitStack() as stack:
        yield Site(clean, stack)
        for policy in clean.json("policy", "ls"):
            clean.flota("n1", "policy", "rm", policy["policy"]["spec"]["name"])


def drawn(objects: Sequence[Owned], chance: random.Random) -> list[Owned]:
    """Two of each kind and more of any, shuffled."""
    mixed = list(objects)
    chance.shuffle(mixed)
    first: list[Owned] = []
    for kind in sorted({one.kind for one in mixed}):
        first += [one for one in mixed if one.kind == kind][:2]
    rest = [one for one in mixed if one not in first]
    chosen = first + rest[: max(0, COUNT - len(first))]
    chance.shuffle(chosen)
    return chosen


@pytest.mark.timeout(120 if COUNT < 100 else 1800)
def test_whatever_is_deleted_is_back_within_a_second(site: Site) -> None:
    seed = int(os.environ.get("FLOTA_DELETIONS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
    whole = site.there()
    assert {one.kind for one in whole} == set(FOUND)
    right, times, failed = names(whole), list[tuple[float, str]](), list[str]()
    for one in drawn(whole, random.Random(seed)):
        handle = next((now for now in owned(site.run) if (now.kind, now.name) == (one.kind, one.name)), None)
        assert handle is not None, f"{one.name} is not there"
        site.run(handle.delete)
        began, missing, took = time.monotonic(), frozenset({"?"}), 0.0
        while missing and time.monotonic() < began + 3 * SOON:
            looked = time.monotonic()
            missing = right ^ names(owned(site.run))
            if missing:  # a look takes its time: only one that began too late tells that it was missing then
                took = looked - began
        times.append((took, f"{one.kind} {one.name}"))
        if missing or took > SOON:
            failed.append(f"{took:.2f} s: {one.delete}: {sorted(missing)[:4]}")
        if silent := site.silent():
            failed.append(f"{one.delete}: no answer by {silent}")
        if missing:
            break
    print(f"FLOTA_DELETIONS_SEED={seed}, {len(times)} of {len(whole)}", *sorted(times)[-5:], sep="\n  ")
    assert failed == []
