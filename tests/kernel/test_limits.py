"""Limits of endpoints in a real kernel: measured, changed live, set back, gone with the endpoint."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from model.ids import InstanceId
from net.host import EndpointRequest
from net.naming import LIMIT, limit_name, veth_name
from tests.support.nethosts import NetHosts, inner4, inner6, net_hosts, network_id, overlay
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kernel
MBIT = 10**6 // 8
NETWORK = network_id(1)
PEER = InstanceId("11" * 32)
BOX = InstanceId("12" * 32)


class Pair:
    """A container without limits, whose iperf3 serves, and one with."""

    def __init__(self, hosts: NetHosts, mode: str) -> None:
        self.hosts, self.spec = hosts, overlay("one", 1, ipv6=True, mode=mode)
        self.host = hosts.hosts[1]
        hosts.carry({1: self.spec})
        hosts.container(1, 1, 1)
        self.host.call("open_namespace", BOX)
        argv = ["nsenter", f"--net={self.host.run_dir / 'ns' / PEER}", "iperf3", "-s"]
        self.server = subprocess.Popen(argv, stdout=subprocess.DEVNULL)

    def limit(self, in_: int = 0, out: int = 0) -> None:
        """Bytes a second."""
        request = EndpointRequest(
            instance=BOX,
            network=NETWORK,
            ifname="eth0",
            ipv4=inner4(self.spec, 1, 2),
            ipv6=inner6(self.spec, 1, 2),
            default_route=True,
            bandwidth_in=in_,
            bandwidth_out=out,
        )
        self.host.call("attach", request)

    def measured(self, *words: str, target: str = "") -> float:
        """Mbit/s of what one TCP stream brought to the other end in two seconds."""
        to = target or inner4(self.spec, 1, 1)
        argv = ("iperf3", "-c", to, "-t", "2", "-O", "1", "-J", *words)
        found = wait_until(lambda: self._try(argv), deadline=20)
        return float(found["bits_per_second"]) / 1e6

    def within(self, mbit: float, *words: str, target: str = "") -> float:
        """Measured within a tenth of so many Mbit/s. A machine that has other things to do may bring less at
        times, and never more."""
        for _ in range(3):
            found = self.measured(*words, target=target)
            if found >= 0.9 * mbit:
                break
        assert 0.9 * mbit <= found <= 1.1 * mbit, found
        return found

    def _try(self, argv: tuple[str, ...]) -> dict[str, float]:
        """Nothing as long as the server does not listen, or is busy with its last client."""
        done = self.host.inside(BOX, *argv, check=False)
        found: dict[str, float] = json.loads(done.stdout or "{}").get("end", {}).get("sum_received", {})
        return found

    def links(self) -> set[str]:
        return {link["ifname"] for link in json.loads(self.host.run("ip", "-j", "link").stdout)}

    def index(self) -> int:
        """Of the host's end of its link."""
        name = veth_name(BOX, NETWORK)
        found: int = json.loads(self.host.run("ip", "-j", "link", "show", name).stdout)[0]["ifindex"]
        return found

    def close(self) -> None:
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()


@pytest.fixture(params=["routed", pytest.param("bridged", marks=pytest.mark.slow)])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with net_hosts(1, "flli") as hosts:
        made = Pair(hosts, request.param)
        yield made
        made.close()


def test_limits_hold_within_a_tenth_both_ways_and_over_both_families(pair: Pair) -> None:
    pair.limit(in_=100 * MBIT, out=20 * MBIT)
    sent, got = pair.within(20), pair.within(100, "-R")
    got6 = pair.within(100, "-R", target=inner6(pair.spec, 1, 1))
    print(f"out {sent:.1f} of 20, in {got:.1f} and over IPv6 {got6:.1f} of 100 Mbit/s")


def test_limits_change_under_a_container_and_go(pair: Pair) -> None:
    pair.limit()
    assert not any(name.startswith(LIMIT) for name in pair.links())
    before = pair.index()
    pair.limit(out=400 * MBIT)
    pair.within(400)
    pair.limit(out=50 * MBIT, in_=50 * MBIT)
    pair.within(50)
    pair.limit()
    assert pair.measured() > 500, "more than any limit that there was"
    assert not any(name.startswith(LIMIT) for name in pair.links())
    assert pair.index() == before, "the link was made anew"


def test_limits_that_somebody_took_away_are_set_back(pair: Pair) -> None:
    pair.limit(in_=100 * MBIT, out=20 * MBIT)
    veth, aside = veth_name(BOX, NETWORK), limit_name(BOX, NETWORK)

    def stands() -> bool:
        text = pair.host.run("tc", "qdisc").stdout
        text += pair.host.run("tc", "filter", "show", "dev", veth, "parent", "ffff:", check=False).stdout
        wanted = (f"dev {veth} root", "rate 100Mbit", "rate 20Mbit", f"Redirect to device {aside}")
        return all(words in text for words in wanted)

    assert stands()
    for words in (
        ("qdisc", "del", "dev", veth, "root"),
        ("qdisc", "del", "dev", veth, "ingress"),
        ("qdisc", "replace", "dev", aside, "root", "tbf", "rate", "1gbit", "burst", "64k", "latency", "50ms"),
        ("filter", "del", "dev", veth, "parent", "ffff:"),
    ):
        before = pair.host.call("mutations")
        pair.host.run("tc", *words)  # it may be set back before anybody looks
        wait_until(
            lambda n=before: pair.host.call("mutations") > n and stands(), deadline=5, what=" ".join(words)
        )
    pair.host.run("ip", "link", "del", aside)
    wait_until(stands, deadline=5, what="the link")
    pair.within(20)


def test_limits_outlive_the_agent_and_leave_with_the_endpoint(pair: Pair) -> None:
    pair.limit(in_=100 * MBIT, out=20 * MBIT)
    pair.host.kill()
    began = time.monotonic()
    pair.host.start()
    pair.hosts.apply(1)
    assert pair.host.call("mutations") == 0, f"after {time.monotonic() - began:.1f} s"
    pair.host.call("detach", BOX, NETWORK)
    assert not any(name.startswith(LIMIT) for name in pair.links())
    pair.limit(out=20 * MBIT)
    pair.host.call("drop_namespace", BOX)
    assert not any(name.startswith(LIMIT) for name in pair.links())
