"""Network modes and published ports as a table: what a container sees, and who reaches it from where.

The same rows are asked of flota and, in the full run, of Docker Engine; where the two differ on purpose, the
row says what Docker does and docs/networking.md why. A row is observed on host n1, from another container of
n1, from n1 itself and from n3.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from deploy.rig.base import Rig
from deploy.rig.netns import OUTSIDE_ADDRESS, address_of
from tests.support.waiting import wait_until

SERVE = "echo page > /www/index.html; httpd -p 81 -h /www; exec httpd -f -p 80 -h /www"
HOST, THIRD = address_of("n1"), address_of("n3")
_FETCH = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 1) as sock:
    sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print(sock.makefile().read().rpartition("\\n\\n")[2], end="")
"""
TAKEN = 9099
"""Of a foreign program on n1."""


class Engine(Protocol):
    """flota or Docker on a rig's n1."""

    rig: Rig

    def attempt(self, *words: str) -> tuple[int, str, str]:
        """A command on n1: exit code, output, errors."""
        ...

    def run(self, name: str, *flags: str, command: str = SERVE) -> None:
        """In the background; without a command a server (httpd on 80 and 81)."""
        ...

    def info(self, name: str) -> tuple[int, Mapping[str, str]]:
        """(pid, network → IPv4 address)."""
        ...

    def network(self, name: str, *flags: str) -> None: ...


@dataclass(frozen=True)
class Mode:
    """`docker` holds what differs there: field → value; `refused`: it can't be had."""

    name: str
    flags: Sequence[str]
    links: Sequence[str] = ("eth0", "lo")
    out: bool = True
    """It reaches the outside."""
    host: bool = True
    """Its host reaches it by its address."""
    third: bool = False
    """Another host does."""
    docker: Mapping[str, object] = field(default_factory=dict)


MODES = (
    Mode("default bridge", ()),
    Mode("none", ("--network", "none"), links=("lo",), out=False, host=False),
    Mode("another bridge", ("--network", "lan")),
    Mode("two networks", ("--network", "lan", "--network", "wan"), links=("eth0", "eth1", "lo"),
         docker={"refused": True}),
    Mode("internal", ("--network", "inner"), out=False),
    Mode("a container's", ("--network", "container:peer"), host=False),
    Mode("without each other", ("--network", "apart")),
)  # fmt: skip
NETWORKS: Mapping[str, Sequence[str]] = {
    "lan": ("-d", "bridge", "--subnet", "10.211.0.0/24"),
    "wan": ("-d", "bridge", "--subnet", "10.212.0.0/24"),
    "inner": ("-d", "bridge", "--subnet", "10.213.0.0/24", "--internal"),
    "apart": ("-d", "bridge", "--subnet", "10.214.0.0/24",
              "--opt", "com.docker.network.bridge.enable_icc=false"),
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """A published port and who gets an answer at which address. `port` 0: the one that was chosen."""

    name: str
    flags: Sequence[str]
    port: int
    loopback: bool = True
    """The host at 127.0.0.1."""
    host: bool = True
    """The host at its own address."""
    third: bool = True
    beside: bool = True
    """A container of the same host and network, at the host's address."""
    itself: bool = True
    docker: Mapping[str, object] = field(default_factory=dict)


_NOBODY = {"loopback": False, "host": False, "third": False, "beside": False, "itself": False}
_LOOPBACK = {"host": False, "third": False, "beside": False, "itself": False}
FORMS = (
    Form("a port", ("-p", "8080:80"), 8080),
    Form("of the host's choice", ("-p", "80"), 0),
    Form("on loopback", ("-p", "127.0.0.1:8081:80"), 8081, **_LOOPBACK),
    Form("on loopback, of the host's choice", ("-p", "127.0.0.1::80"), 0, **_LOOPBACK),
    Form("on the host's address", ("-p", f"{HOST}:8082:80"), 8082, loopback=False),
    Form("on all IPv4 addresses", ("-p", "0.0.0.0:8083:80"), 8083),
    Form("the first of a range", ("-p", "8084-8085:80-81"), 8084),
    Form("the last of a range", ("-p", "8084-8085:80-81"), 8085),
    Form("one out of a range", ("-p", f"{TAKEN}-{TAKEN + 1}:80"), TAKEN + 1, docker={"refused": True}),
    Form("exposed ones", ("-P", "--expose", "80"), 0),
    Form("on a bridge of its own", ("-p", "8086:80", "--network", "lan"), 8086),
    Form("where containers are apart", ("-p", "8087:80", "--network", "apart"), 8087),
    Form("of UDP only", ("-p", "8088:80/udp"), 8088, **_NOBODY),
)


def fetches(rig: Rig, host: str, url: str, *before: str) -> bool:
    """Whether a program on the host (or where `before` leads from there) gets the page."""
    found = urlsplit(url)
    words = [*before, sys.executable, "-S", "-c", _FETCH, str(found.hostname), str(found.port or 80)]
    return rig.exec(host, words, check=False, timeout=30).stdout == b"page\n"


def serves(engine: Engine, name: str) -> int:
    """The server's pid on n1, once it answers itself."""
    pid, _ = engine.info(name)
    wait_until(lambda: inside(engine, pid, "http://127.0.0.1/"), deadline=10, what=f"{name} to serve")
    return pid


def inside(engine: Engine, pid: int, url: str) -> bool:
    return fetches(engine.rig, "n1", url, "nsenter", "-t", str(pid), "-n")


def observe_mode(engine: Engine, mode: Mode) -> dict[str, object]:
    engine.run("box", *mode.flags)
    pid = serves(engine, "box")
    enter = ["nsenter", "-t", str(pid), "-n"]
    links = json.loads(engine.rig.exec("n1", [*enter, "ip", "-j", "link"]).stdout)
    ping = ["busybox", "ping", "-c1", "-W1", OUTSIDE_ADDRESS]
    _, addresses = engine.info("box")
    first = next(iter(addresses.values()), "")
    return {
        "links": tuple(sorted(link["ifname"] for link in links)),
        "out": engine.rig.exec("n1", [*enter, *ping], check=False).returncode == 0,
        "host": bool(first) and fetches(engine.rig, "n1", f"http://{first}/"),
        "third": bool(first) and _third(engine, first),
    }


def _third(engine: Engine, address: str) -> bool:
    """With a route to the container's network by way of n1, as an enemy on the link would have it."""
    engine.rig.exec("n3", ["ip", "route", "replace", f"{address}/32", "via", HOST])
    try:
        return fetches(engine.rig, "n3", f"http://{address}/")
    finally:
        engine.rig.exec("n3", ["ip", "route", "del", f"{address}/32", "via", HOST])


def observe_form(engine: Engine, form: Form, chosen: int) -> dict[str, object]:
    """Of a `box` that runs; `chosen` is the port that it was given. On each network runs a `beside`."""
    port = form.port or chosen
    pid = serves(engine, "box")
    at = f"http://{HOST}:{port}/"
    network = form.flags[-1] if "--network" in form.flags else ""
    beside, _ = engine.info(f"beside{network}")
    return {
        "loopback": fetches(engine.rig, "n1", f"http://127.0.0.1:{port}/"),
        "host": fetches(engine.rig, "n1", at),
        "third": fetches(engine.rig, "n3", at),
        "beside": inside(engine, beside, at),
        "itself": inside(engine, pid, at),
    }
