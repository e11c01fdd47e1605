"""A fleet that is treated badly in random order: what is acknowledged holds, no address is held twice, and
its networks are well soon after the last fault.

FLOTA_CHAOS_ROUNDS rounds (12, with --full 300) in spans of `SPAN`; after each span every fault is healed and
everything is looked at. FLOTA_CHAOS_SEED repeats a run; seed and acts are printed when it fails.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from deploy.fleet import Fleet
from tests.conftest import FULL
from tests.rig.conftest import IMAGE, running
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
HOSTS = ("n1", "n2", "n3")
NETWORKS = {
    "routed": ("--ipv6",),
    "bridged": ("--ipv6", "--opt", "mode=bridged"),
    "small": ("--subnet", "10.77.0.0/27"),
    "large": ("--subnet", "10.78.0.0/16"),
}
SETTLING = b"settling after it came and went"
"""A host that lost its power several times gets nothing new for a while."""
WALKER = "10.78.9.9"
"""The address of a container that goes from host to host."""
SERVICES = {
    "svc": ("--network", "routed", "-p", "8080:80"),
    "wide": ("--network", "bridged"),
    "kept": ("--network", "name=routed,ip=keep"),
}
ROUNDS = int(os.environ.get("FLOTA_CHAOS_ROUNDS", "300" if FULL else "12"))
SPAN = 6
GREEN = 5.0
"""Seconds from the last fault until the doctor finds nothing."""
MOST = 12


@pytest.fixture
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet for this test alone: what others left would be among its causes."""
    with running(tmp_path_factory.mktemp("disk")) as fleet:
        yield fleet


class Chaos:
    """`acts` is the story so far. Faults are remembered until `heal`."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.random = random.Random(seed)
        self.acts: list[str] = []
        self.containers: dict[str, str] = {}
        """Name → host."""
        self.cut: set[str] = set()
        self.drained = ""
        self._kept: dict[int, tuple[str, str]] = {}
        """Addresses of the replicas that are to keep them, by slot."""
        self._found: list[tuple[float, str]] = []
        """What the doctor said after the last faults, and when."""
        self._serial = 0

    def act(self) -> None:
        choices = {
            self.create: 6, self.remove: 4, self.replace: 3, self.rewire: 3, self.scale: 3,
            self.walk: 2, self.drain: 2, self.kill_agent: 1, self.kill_controller: 1, self.cut_off: 1,
            self.lose_power: 1, self.vandalise: 3,
        }  # fmt: skip
        act = self.random.choices(list(choices), list(choices.values()))[0]
        act()

    def told(self, words: str) -> None:
        self.acts.append(words)

    def reachable(self) -> list[str]:
        return [host for host in HOSTS if host not in self.cut]

    def open(self) -> list[str]:
        """Hosts that take new containers."""
        return [host for host in self.reachable() if host != self.drained]

    # -- work -------------------------------------------------------------------------------------------
    def create(self) -> None:
        if len(self.containers) >= MOST:
            self.remove()
        self._serial += 1
        name, host = f"c{self._serial}", self.random.choice(self.open())
        network = self.random.choice(list(NETWORKS))
        self.told(f"run {name} on {host}, {network}")
        words = ("--name", name, "--network", network, "--node", host, "--restart", "always", IMAGE)
        done = self.fleet.attempt("n1", "run", "-d", *words, "sleep", "100000")
        if network == "small" and b"no free IPv4 address" in done.stderr:
            self.told("which found no address: all are held or rest")
            self.fleet.attempt("n1", "rm", "-f", name)
            return
        if SETTLING in done.stderr:
            self.told("which it does not take yet")
            return
        assert done.returncode == 0, done.stderr
        self.containers[name] = host

    def remove(self) -> None:
        if self.containers:
            name = self.random.choice(sorted(self.containers))
            self.told(f"rm {name} of {self.containers[name]}")
            self.fleet.flota("n1", "rm", "-f", name)
            del self.containers[name]

    def replace(self) -> None:
        """Addresses and names are used again at once."""
        self.remove()
        self.create()

    def rewire(self) -> None:
        here = [name for name, host in self.containers.items() if host not in self.cut]
        if here:
            name, network = self.random.choice(sorted(here)), self.random.choice(list(NETWORKS))
            verb = self.random.choice(("connect", "disconnect"))
            self.told(f"{verb} {network} {name}")
            self.fleet.attempt("n1", "network", verb, network, name)

    def scale(self) -> None:
        name, count = self.random.choice(list(SERVICES)), self.random.randint(0, 5)
        self.told(f"scale {name} to {count}")
        self.fleet.flota("n1", "service", "scale", f"{name}={count}")

    def walk(self) -> None:
        """A container with an address of its own leaves a host for another."""
        if self.containers.get("walker") in self.cut:
            return
        if self.containers.pop("walker", ""):
            self.fleet.flota("n1", "rm", "-f", "walker")
        host = self.random.choice(self.open())
        self.told(f"the walker is on {host}")
        words = ("--name", "walker", "--network", f"name=large,ip={WALKER}", "--node", host)
        done = self.fleet.attempt("n1", "run", "-d", *words, "--restart", "always", IMAGE, "sleep", "100000")
        if SETTLING in done.stderr:
            self.told("which does not take it yet")
            return
        assert done.returncode == 0, done.stderr
        self.containers["walker"] = host

    def drain(self) -> None:
        """Its replicas move, plain containers stay. Never n1's: some host must take new ones."""
        self.undrain()
        host = self.random.choice(("n2", "n3"))
        self.told(f"drain {host}")
        self.fleet.flota("n1", "node", "update", "--availability", "drain", host)
        self.drained = host

    def undrain(self) -> None:
        if self.drained:
            self.told(f"{self.drained} is active again")
            self.fleet.flota("n1", "node", "update", "--availability", "active", self.drained)
            self.drained = ""

    # -- faults -----------------------------------------------------------------------------------------
    def kill_agent(self) -> None:
        host = self.random.choice(self.reachable())
        self.told(f"kill -9 the agent of {host}")
        os.kill(self.fleet.pid(host, "agent"), signal.SIGKILL)
        self.fleet.flota(host, "agent", "--detach")
        self._await_reachable()

    def kill_controller(self) -> None:
        self.told("kill -9 the controller")
        os.kill(self.fleet.pid("n1", "controller"), signal.SIGKILL)
        self.fleet.flota("n1", "controller", "--detach")
        self._await_reachable()

    def cut_off(self) -> None:
        host = self.random.choice(("n2", "n3"))
        if host not in self.cut:
            self.told(f"cut {host}")
            self.fleet.rig.cut(host)
            self.cut.add(host)

    def lose_power(self) -> None:
        host = self.random.choice(("n2", "n3"))
        if host not in self.cut:
            self.told(f"power of {host}")
            self.fleet.rig.crash(host)
            self.fleet.rig.boot(host)
            self.fleet.flota(host, "agent", "--detach")
            self._await_reachable()

    def vandalise(self) -> None:
        """Something of flota's is deleted behind its back."""
        host = self.random.choice(HOSTS)
        links = json.loads(self.fleet.rig.exec(host, ["ip", "-j", "link"]).stdout)
        ours = sorted(link["ifname"] for link in links if link["ifname"].startswith(("flb", "flx")))
        what = self.random.choice(("nft", "routes", *ours[:3]))
        self.told(f"delete {what} on {host}")
        words = {
            "nft": ["nft", "delete", "table", "inet", "flota"],
            "routes": ["ip", "route", "flush", "proto", "247"],
        }.get(what, ["ip", "link", "del", what])
        self.fleet.rig.exec(host, words, check=False)

    # -- look -------------------------------------------------------------------------------------------
    def heal(self) -> float:
        """When the last fault ended, monotonic."""
        for host in sorted(self.cut):
            self.told(f"heal {host}")
            self.fleet.rig.heal(host)
        self.cut.clear()
        self.undrain()
        healed = time.monotonic()
        self.fleet.wait_ready(len(HOSTS))
        return healed

    def look(self, healed: float) -> None:
        self._found.clear()
        try:
            well = wait_until(self._doctor, deadline=30, what="the doctor finds nothing")
            assert well - healed <= GREEN, (
                f"the doctor was content only {well - healed:.1f} s after the last fault"
            )
        except AssertionError:
            for at, words in self._found:
                self.told(f"the doctor, {at - healed:.1f} s after: {words}")
            raise
        found = wait_until(self._settled, deadline=30, what="all that was asked for runs")
        assert _twice(one for one in found if one["status"].get("phase") == "running") == []
        wait_until(
            lambda: _twice(self.fleet.json("ps", "-a")) == [],
            deadline=10,
            what="a host that came back to give up what was replaced",
        )
        for one in found:
            if one["instance"].get("service_name") == "kept" and one["status"].get("phase") == "running":
                (foot,) = one["status"]["endpoints"]
                now = foot["ipv4"], foot["ipv6"]
                assert self._kept.setdefault(one["instance"]["slot"], now) == now, "an address was not kept"

    def _await_reachable(self) -> None:
        """By name: one that was cut off just now is still said to be ready."""

        def ready() -> bool:
            listed = self.fleet.json("node", "ls")
            return {n["host"]["spec"]["name"] for n in listed if n["state"] == "ready"} >= set(
                self.reachable()
            )

        wait_until(ready, deadline=30, what=f"{', '.join(self.reachable())} ready", pause=0.1)

    def _doctor(self) -> float | None:
        """When it began to look, if it finds nothing."""
        began = time.monotonic()
        done = self.fleet.attempt("n1", "network", "doctor", "--format", "json")
        self._found.append((began, (done.stdout + done.stderr).decode()))
        return began if done.returncode == 0 and not done.stdout else None

    def _settled(self) -> list[dict] | None:  # type: ignore[type-arg]
        """Every container, once those asked for run and no others do."""
        listed = self.fleet.json("ps", "-a")
        plain = {
            one["instance"]["name"]: one["status"].get("phase")
            for one in listed
            if not one["instance"].get("service")
        }
        wanted = {
            one["service"]["id"]: one["service"]["spec"]["mode"].get("replicas", 1)
            for one in self.fleet.json("service", "ls")
        }
        running = Counter(
            one["instance"]["service"]
            for one in listed
            if one["instance"].get("service") and one["status"].get("phase") == "running"
        )
        done = plain == dict.fromkeys(self.containers, "running") and +Counter(wanted) == running
        return listed if done else None


def _twice(listed: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """Addresses, by network, that several of these containers have."""
    held = Counter(
        (foot["network_name"], address)
        for one in listed
        for foot in one["status"].get("endpoints", ())
        for address in (foot.get("ipv4"), foot.get("ipv6"))
        if address
    )
    return [key for key, count in held.items() if count > 1]


@pytest.mark.timeout(60 + 4 * ROUNDS)
def test_a_fleet_treated_badly_is_well_again_and_holds_no_address_twice(lonely: Fleet) -> None:
    seed = int(os.environ.get("FLOTA_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
    for name, words in NETWORKS.items():
        lonely.flota("n1", "network", "create", *words, name)
    for name, words in SERVICES.items():
        service = ("--name", name, "--replicas", "2", *words, "--drain", "0s", IMAGE, "sleep", "100000")
        lonely.flota("n1", "service", "create", *service)
    chaos = Chaos(lonely, seed)
    try:
        for done in range(1, ROUNDS + 1):
            chaos.act()
            if done % SPAN == 0:
                chaos.look(chaos.heal())
                chaos.told("all is well")
    except BaseException:
        print(f"FLOTA_CHAOS_SEED={seed}", *chaos.acts, sep="\n  ")
        raise
