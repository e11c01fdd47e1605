"""Every way between containers of a network: its kind × IPv4, IPv6 × same host, other host, host behind a
router × TCP, UDP, ICMP, a mebibyte."""

from __future__ import annotations

import hashlib
import os
import re
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE, running
from tests.rig.support import background, local_pid, on_host, settled
from tests.support.hostprocess import run_in
from tests.support.talkers import Talker, answers, server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
BLOB = bytes(range(256)) * 4096
WHOLE = f"{len(BLOB)} {hashlib.sha256(BLOB).hexdigest()}"
BLOB_PORT = 81
GIVER = f"""
import socket
listening = socket.create_server(("::", {BLOB_PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
print("up", flush=True)
while True:
    connection, _ = listening.accept()
    with connection: connection.sendall(bytes(range(256)) * 4096)
"""
TAKER = f"""
import hashlib, socket, sys
with socket.create_connection((sys.argv[1], {BLOB_PORT}), 10) as s:
    data = b"".join(iter(lambda: s.recv(65536), b""))
print(len(data), hashlib.sha256(data).hexdigest())
"""
WAYS = {"same host": "n1", "other host": "n2", "behind a router": "n4"}
KINDS: Mapping[str, tuple[str, ...]] = {
    "routed": ("--opt", "mode=routed"),
    "bridged": ("--opt", "mode=bridged"),
    "encrypted": ("--opt", "encrypted"),
    "direct": ("--opt", "direct=true"),
    "host-gw": ("--driver", "host-gw"),
}
ON_A_LINK = {way: host for way, host in WAYS.items() if host != "n4"}


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """n1 to n3 on one link, n4 behind a router."""
    with running(tmp_path_factory.mktemp("disk"), 4, remote=("n4",)) as fleet:
        yield fleet


class Table:
    """A client's container on n1, a server's at each end of `WAYS`, on one network."""

    def __init__(self, fleet: Fleet, network: str, ways: Mapping[str, str], stack: ExitStack) -> None:
        self._fleet, self._network = fleet, network
        self.client = self._container("client", "n1")[0]
        self.ends: dict[str, tuple[str, str]] = {}
        for way, host in ways.items():
            namespace, ipv4, ipv6 = self._container(f"server-{host}", host)
            self.ends[way] = ipv4, ipv6
            stack.callback(server(namespace, host).close)
            stack.callback(Talker(namespace, GIVER).close)

    def _container(self, name: str, host: str) -> tuple[str, str, str]:
        words = ("--name", f"{name}-{self._network}", "--network", self._network, "--node", host)
        ident = self._fleet.flota("n1", "run", "-d", *words, IMAGE, "sleep", "10000").strip()
        status = self._fleet.json("inspect", ident)[0]["status"]
        (foot,) = status["endpoints"]
        return f"/proc/{local_pid(self._fleet, host, status['pid'])}/ns/net", foot["ipv4"], foot["ipv6"]

    def pings(self, target: str) -> bool:
        words = ["busybox", "ping6" if ":" in target else "ping", "-c1", "-W2", target]
        return run_in(self.client, words, check=False, timeout=10).returncode == 0

    def takes(self, target: str) -> str:
        return run_in(self.client, ["python3", "-c", TAKER, target], check=True, timeout=20).stdout.strip()

    def failures(self) -> list[str]:
        """Every way, by every protocol, once it is there."""
        for way, addresses in self.ends.items():
            wait_until(lambda a=addresses: all(map(self.pings, a)), deadline=10, what=f"{way} is there")
        failed = []
        for way, target in ((way, a) for way, addresses in self.ends.items() for a in addresses):
            for protocol in ("tcp", "udp"):
                ((name, *_),) = answers(self.client, protocol, [target])
                if name != WAYS[way]:
                    failed.append(f"{way}, {protocol}, {target}: {name}")
            if not self.pings(target):
                failed.append(f"{way}, icmp, {target}")
            if self.takes(target) != WHOLE:
                failed.append(f"{way}, a mebibyte, {target}")
        return failed


@pytest.mark.parametrize("kind", KINDS)
def test_all_traffic_passes_between_containers_wherever_they_are(four: Fleet, kind: str) -> None:
    four.flota("n1", "network", "create", "--ipv6", *KINDS[kind], kind)
    ways = ON_A_LINK if kind == "host-gw" else WAYS
    with ExitStack() as stack:
        assert Table(four, kind, ways, stack).failures() == []


def test_host_gw_says_whom_it_does_not_reach_and_what_to_do(four: Fleet) -> None:
    four.flota("n1", "network", "create", "--driver", "host-gw", "split")
    for host in ("n1", "n4"):
        four.flota("n1", "run", "-d", "--network", "split", "--node", host, IMAGE, "sleep", "10000")

    def told(host: str) -> bool:
        text = four.flota("n1", "node", "inspect", host)
        other = "n4" if host == "n1" else "n1"
        return f"network split: {other} (" in text and "direct=true" in text

    for host in ("n1", "n4"):
        wait_until(lambda h=host: told(h), deadline=10, what=f"{host}'s condition")
    four.flota("n1", "network", "create", "--driver", "host-gw", "joined")
    for host in ("n1", "n2"):
        four.flota("n1", "run", "-d", "--network", "joined", "--node", host, IMAGE, "sleep", "10000")

    def named() -> bool:
        text = four.attempt("n1", "network", "doctor").stdout.decode()
        return "network split: n4" in text and "joined" not in text

    wait_until(named, deadline=10, what="the split network alone is found")


KERNEL = """
ip -o link | sed 's/ state [A-Z]*//'; ip -o address; ip route show table all; ip -6 route show table all
ip rule; ip neigh show nud permanent; bridge fdb show | grep -wE 'permanent|static|dst'; nft list ruleset
"""
"""Without what bridges learn, which they forget when it is old."""


MARKERS = (
    "ip route add unreachable 198.51.100.0/24; ip route del unreachable 198.51.100.0/24",
    "nft 'add table ip marker'; nft 'delete table ip marker'",
)
"""What each listener must have heard before it is believed."""
MARK = re.compile(rb"198\.51\.100|marker|^#")


def listens(fleet: Fleet, watcher: subprocess.Popen[bytes], marker: str) -> bool:
    """Whether it hears a marker; a listener that has only begun to start does not."""
    on_host(fleet, "n2", "sh", "-c", marker)
    assert watcher.stdout is not None
    return bool(select.select([watcher.stdout], [], [], 0.5)[0])


@pytest.mark.parametrize("kind", ["routed", "direct", "host-gw"])
def test_start_of_a_container_changes_nothing_in_other_hosts_kernels(four: Fleet, kind: str) -> None:
    """Nor is anything changed and changed back: routes, rules and nft are listened to meanwhile. Links and
    addresses are not, for the kernel still has to say of n2's own container's."""
    quiet = f"quiet-{kind}"
    four.flota("n1", "network", "create", *KINDS[kind], quiet)
    for host in ("n1", "n2"):
        four.flota("n1", "run", "-d", "--network", quiet, "--node", host, IMAGE, "sleep", "10000")
    tentative = ("ip", "-6", "address", "show", "tentative")
    wait_until(lambda: not on_host(four, "n2", *tentative), deadline=10, what="n2 has all its addresses")
    before = settled(lambda: on_host(four, "n2", "sh", "-c", KERNEL), what="n2's kernel")
    watchers = [
        background(four, "n2", "stdbuf", "-oL", *words)
        for words in (("ip", "-4", "monitor", "route", "rule"), ("nft", "monitor"))
    ]
    try:
        for watcher, marker in zip(watchers, MARKERS, strict=True):
            wait_until(lambda w=watcher, m=marker: listens(four, w, m), deadline=10, what="a listener")
            assert watcher.stdout is not None and MARK.search(watcher.stdout.readline())
        for _ in range(3):
            four.flota("n1", "run", "-d", "--network", quiet, "--node", "n1", IMAGE, "sleep", "10000")
        assert on_host(four, "n2", "sh", "-c", KERNEL) == before
    finally:
        for watcher in watchers:
            os.killpg(watcher.pid, signal.SIGTERM)
    heard = b"".join(watcher.communicate(timeout=5)[0] for watcher in watchers)
    assert [line for line in heard.splitlines() if not MARK.search(line)] == []
