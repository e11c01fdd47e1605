"""Every network mode and published form on real containers, seen from inside, from the host, from a third."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import pytest

from deploy.fleet import Fleet
from deploy.rig.base import Rig
from tests.rig.conftest import IMAGE
from tests.rig.networktable import (
    FORMS,
    HOST,
    MODES,
    NETWORKS,
    SERVE,
    TAKEN,
    THIRD,
    Form,
    Mode,
    fetches,
    inside,
    observe_form,
    observe_mode,
    serves,
)
from tests.rig.support import background
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
SIX = "fd99::11"
"""An IPv6 address of n1."""


class Flota:
    """`networktable.Engine` on a fleet's n1."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.rig: Rig = fleet.rig

    def attempt(self, *words: str) -> tuple[int, str, str]:
        done = self.fleet.attempt("n1", *words)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def run(self, name: str, *flags: str, command: str = SERVE) -> None:
        words = ("run", "-d", "--name", name, "--node", "n1", *flags, IMAGE, "sh", "-c", command)
        self.fleet.flota("n1", *words)

    def info(self, name: str) -> tuple[int, Mapping[str, str]]:
        status = self.fleet.json("inspect", name)[0]["status"]
        return status["pid"], {e["network_name"]: e["ipv4"] for e in status["endpoints"]}

    def network(self, name: str, *flags: str) -> None:
        self.fleet.flota("n1", "network", "create", *flags, name)


@pytest.fixture(scope="module")
def engine(fleet: Fleet) -> Iterator[Flota]:
    """With its networks, a neighbour on each, and a foreign program on a port."""
    made = Flota(fleet)
    for name, flags in NETWORKS.items():
        made.network(name, *flags)
    made.run("peer", command="exec sleep 9999")
    for name in ("", "lan", "apart"):
        made.run(f"beside{name}", *(("--network", name) if name else ()))
    code = f"import socket; s = socket.create_server(('', {TAKEN})); print('up', flush=True); s.accept()"
    with background(fleet, "n1", sys.executable, "-S", "-c", code) as foreign:
        assert foreign.stdout is not None and foreign.stdout.readline() == b"up\n"
        yield made
        foreign.kill()
        foreign.wait()
    for one in fleet.json("ps", "-a"):
        fleet.flota("n1", "rm", "-f", one["instance"]["id"])
    fleet.flota("n1", "network", "prune", "-f")


@pytest.fixture
def box(engine: Flota) -> Iterator[Flota]:
    yield engine
    engine.attempt("rm", "-f", "box")


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_mode_is_seen_as_it_should_be_from_everywhere(box: Flota, mode: Mode) -> None:
    wanted = {"links": tuple(mode.links), "out": mode.out, "host": mode.host, "third": mode.third}
    assert observe_mode(box, mode) == wanted


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_published_port_answers_whom_it_should(box: Flota, form: Form) -> None:
    box.run("box", *form.flags)
    ports = box.fleet.json("inspect", "box")[0]["status"]["ports"]
    fields = ("loopback", "host", "third", "beside", "itself")
    assert observe_form(box, form, ports[0]["published"]) == {f: getattr(form, f) for f in fields}


def test_host_mode_is_the_hosts_network(engine: Flota) -> None:
    fleet = engine.fleet
    seen = fleet.flota("n1", "run", "--rm", "--node", "n1", "--network", "host", IMAGE, "ip", "-o", "link")
    links = {line.split(":")[1].strip().partition("@")[0] for line in seen.splitlines()}
    host = engine.rig.exec("n1", ["ip", "-o", "link"]).stdout.decode()
    assert links == {line.split(":")[1].strip().partition("@")[0] for line in host.splitlines()}


def test_foreign_drop_in_the_forward_chain_is_final(box: Flota) -> None:
    box.run("box", "-p", "8080:80")
    serves(box, "box")
    assert fetches(box.rig, "n3", f"http://{HOST}:8080/")
    chain = "{ type filter hook forward priority 10; policy drop; }"
    box.rig.exec("n1", ["nft", "add table inet stranger; add chain inet stranger shut", chain])
    try:
        assert not fetches(box.rig, "n3", f"http://{HOST}:8080/")
        assert fetches(box.rig, "n1", f"http://{HOST}:8080/")
    finally:
        box.rig.exec("n1", ["nft", "delete", "table", "inet", "stranger"])
    assert fetches(box.rig, "n3", f"http://{HOST}:8080/")


def test_allow_list_is_held_to_for_everyone(box: Flota) -> None:
    box.run("box", "-p", f"published=8080,target=80,allow={THIRD},allow=10.9.0.0/16")
    serves(box, "box")
    at = f"http://{HOST}:8080/"
    assert fetches(box.rig, "n3", at)
    assert not fetches(box.rig, "n2", at) and not fetches(box.rig, "n1", at)
    change = (f"published=8080,target=80,allow={HOST}", "--publish-rm", "80", "box")
    assert box.attempt("update", "--publish-add", *change)[0] == 0
    assert fetches(box.rig, "n1", at) and not fetches(box.rig, "n3", at)


def test_port_of_a_foreign_program_is_refused_and_nothing_changes(box: Flota) -> None:
    code, _, errors = box.attempt(
        "run", "-d", "--name", "box", "--node", "n1", "-p", f"{TAKEN}:80", IMAGE, "true"
    )
    assert code == 125 and f"{TAKEN}/tcp is in use" in errors, errors
    box.attempt("rm", "-f", "box")
    box.run("box", "-p", "8080:80")
    code, _, errors = box.attempt("update", "--publish-add", f"{TAKEN}:81", "box")
    assert code == 1 and f"{TAKEN}" in errors
    assert [p["published"] for p in box.fleet.json("inspect", "box")[0]["status"]["ports"]] == [8080]
    assert box.attempt("update", "--publish-rm", f"{TAKEN}:81", "box")[0] == 0


def test_ipv6_ports_answer_at_ipv6_addresses(box: Flota) -> None:
    box.network("six", "--ipv6")
    try:
        box.rig.exec("n1", ["ip", "address", "add", f"{SIX}/64", "dev", "eth0", "nodad"])
        box.run("box", "--network", "six", "-p", f"[{SIX}]:8089:80", "-p", "8090:80")
        serves(box, "box")

        def answers(url: str) -> bool:
            return fetches(box.rig, "n1", url)

        assert answers(f"http://[{SIX}]:8089/") and answers(f"http://[{SIX}]:8090/")
        assert answers("http://127.0.0.1:8090/") and not answers("http://127.0.0.1:8089/")
        assert not answers("http://[::1]:8090/")
        inner = box.fleet.json("inspect", "box")[0]["status"]["endpoints"][0]["ipv6"]
        assert answers(f"http://[{inner}]/")
    finally:
        box.attempt("rm", "-f", "box")
        box.fleet.flota("n1", "network", "rm", "six")
        box.rig.exec("n1", ["ip", "address", "del", f"{SIX}/64", "dev", "eth0"])


def test_containers_of_a_network_with_icc_off_are_apart(engine: Flota) -> None:
    pid, _ = engine.info("besideapart")
    engine.run("box", "--network", "apart")
    try:
        _, addresses = engine.info("box")
        other, _ = engine.info("box")
        wait_until(lambda: inside(engine, other, f"http://{addresses['apart']}/"), deadline=10)
        assert not inside(engine, pid, f"http://{addresses['apart']}/")
    finally:
        engine.attempt("rm", "-f", "box")
