"""Network modes and published ports as a table: what a container sees, and who reaches it from where.

The same rows are asked of flota and, in the full run, of Docker Engine; where the two differ on purpose, the
row says what Docker does and docs/networking.md why. A row is observed on host n1, from another container of
n1, from n1 itself and from n3. `furnished` makes what all rows need.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from deploy.rig.base import Rig
from deploy.rig.netns import OUTSIDE_ADDRESS
from tests.rig.networkrows import BESIDE, HOST, HOST6, NETWORKS, SERVE, TAKEN, THIRD6, Fact, Form, Mode, Path
from tests.support.waiting import all_at_once, wait_until

_FETCH = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 1) as sock:
    sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print(sock.makefile().read().rpartition("\\n\\n")[2], end="")
"""
_ASK = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(1)
    sock.connect((sys.argv[1], int(sys.argv[2])))
    sock.send(b"?")
    print(sock.recv(99).decode(), end="")
"""
_ANSWER = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("0.0.0.0", 53))
while True: sock.sendto(b"page\\n", sock.recvfrom(99)[1])
"""
PAGE_SERVER = f"""
import socket
server = socket.create_server(("", {TAKEN}))
while True:
    client, _ = server.accept()
    client.recv(99)
    client.sendall(b"HTTP/1.0 200 OK\\n\\npage\\n")
    client.close()
"""
"""A program that answers with the page on `TAKEN`."""


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

    def ports(self, name: str) -> Sequence[int]:
        """Those that were published, in order."""
        ...


@contextlib.contextmanager
def furnished(engine: Engine) -> Iterator[None]:
    """Networks, neighbours on them, IPv6 addresses of the hosts, and a foreign program on a port of n1."""
    for host, six in (("n1", HOST6), ("n3", THIRD6)):
        engine.rig.exec(host, ["ip", "address", "add", f"{six}/64", "dev", "eth0", "nodad"])
    for name, flags in NETWORKS.items():
        engine.network(name, *flags)
    engine.run("peer", command="exec sleep 9999")
    for name in BESIDE:
        for kind in ("beside", "twin"):
            engine.run(f"{kind}{name}", *(("--network", name) if name else ()))
    foreign = engine.rig.spawn("n1", [sys.executable, "-S", "-c", PAGE_SERVER], log="/dev/null")
    at = f"http://127.0.0.1:{TAKEN}/"
    wait_until(lambda: fetches(engine.rig, "n1", at), deadline=5, what="the foreign program")
    try:
        yield
    finally:
        foreign.kill()
        foreign.wait()


def fetches(rig: Rig, host: str, url: str, *before: str) -> bool:
    """Whether a program on the host (or where `before` leads from there) gets the page."""
    found = urlsplit(url)
    code = _ASK if found.scheme == "udp" else _FETCH
    words = [*before, sys.executable, "-S", "-c", code, str(found.hostname), str(found.port or 80)]
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
    codes = [engine.attempt(*words)[0] for words in mode.then]
    enter = ["nsenter", "-t", str(pid), "-n"]
    links = json.loads(engine.rig.exec("n1", [*enter, "ip", "-j", "link"]).stdout)
    ping = ["busybox", "ping", "-c1", "-W1", OUTSIDE_ADDRESS]
    _, addresses = engine.info("box")
    first = next(iter(addresses.values()), "")
    looks: dict[str, Callable[[], bool]] = {
        "out": lambda: engine.rig.exec("n1", [*enter, *ping], check=False).returncode == 0,
        "host": lambda: bool(first) and fetches(engine.rig, "n1", f"http://{first}/"),
        "third": lambda: bool(first) and _third(engine, f"http://{first}/"),
    }
    names = tuple(sorted(link["ifname"] for link in links))
    return {"links": names, **all_at_once(looks), "then": not any(codes)}


def observe_fact(engine: Engine, fact: Fact) -> str:
    """Its words, whatever is between them."""
    engine.run("box", *fact.flags, command="exec sleep 9999")
    code, output, errors = engine.attempt("exec", "box", "sh", "-c", fact.script)
    return " ".join(output.split()) if code == 0 else f"{code}: {errors}"


def observe_path(engine: Engine, path: Path) -> bool:
    pid, _ = engine.info(f"beside{path.from_}")
    serves(engine, f"twin{path.to}")
    _, addresses = engine.info(f"twin{path.to}")
    return inside(engine, pid, f"http://{next(iter(addresses.values()))}/")


def _third(engine: Engine, url: str) -> bool:
    """With a route there by way of n1, as an enemy on the link would have it."""
    address = str(urlsplit(url).hostname)
    engine.rig.exec("n3", ["ip", "route", "replace", f"{address}/32", "via", HOST])
    try:
        return fetches(engine.rig, "n3", url)
    finally:
        engine.rig.exec("n3", ["ip", "route", "del", f"{address}/32", "via", HOST])


def _trick(engine: Engine, url: str) -> bool:
    """127.0.0.1 of n1, asked from n3: both take its address for one like others, as a careless admin (or a
    kube-proxy) would have it."""
    careless = "sysctl -qw net.ipv4.conf.all.route_localnet={}"
    engine.rig.exec("n3", ["sh", "-ec", "ip address del 127.0.0.1/8 dev lo"])
    for host in ("n1", "n3"):
        engine.rig.exec(host, careless.format(1).split())
    try:
        assert _third(engine, f"http://127.0.0.1:{TAKEN}/"), "programs of n1 are reached by this"
        return _third(engine, url)
    finally:
        for host in ("n1", "n3"):
            engine.rig.exec(host, careless.format(0).split())
        engine.rig.exec("n3", ["ip", "address", "add", "127.0.0.1/8", "dev", "lo"])


def observe_form(engine: Engine, form: Form) -> dict[str, object]:
    """Of a `box` that runs. On each network runs a `beside`."""
    port = form.port or engine.ports("box")[0]
    pid = serves(engine, "box")
    enter = ("nsenter", "-t", str(pid), "-n")
    kind = "udp" if form.protocol == "udp" else "http"
    at = f"{kind}://[{form.at}]:{port}/" if ":" in form.at else f"{kind}://{form.at}:{port}/"
    network = form.flags[-1] if "--network" in form.flags else ""
    beside, _ = engine.info(f"beside{network}")
    _, addresses = engine.info("box")
    inner = next(iter(addresses.values()))
    with contextlib.ExitStack() as stack:
        if form.protocol == "udp":
            words = [*enter, sys.executable, "-S", "-c", _ANSWER]
            server = engine.rig.spawn("n1", words, log="/dev/null")
            stack.callback(server.wait)
            stack.callback(server.kill)
            wait_until(lambda: inside(engine, pid, "udp://127.0.0.1:53/"), deadline=5, what="the server")
        looks: dict[str, Callable[[], bool]] = {
            "loopback": lambda: fetches(engine.rig, "n1", f"{kind}://127.0.0.1:{port}/"),
            "host": lambda: fetches(engine.rig, "n1", at),
            "third": lambda: fetches(engine.rig, "n3", at),
            "beside": lambda: inside(engine, beside, at),
            "itself": lambda: inside(engine, pid, at),
            "direct": lambda: _third(engine, f"{kind}://{inner}:{53 if kind == 'udp' else 80}/"),
        }
        found = all_at_once(looks)
        return {**found, "trick": _trick(engine, f"{kind}://127.0.0.1:{port}/")}
