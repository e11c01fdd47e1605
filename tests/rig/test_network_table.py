"""Every network mode and published form on real containers, seen from inside, from the host, from a third."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest

from deploy.fleet import Fleet
from deploy.rig.base import Rig
from tests.rig.conftest import IMAGE
from tests.rig.networkrows import (
    FACTS,
    FORMS,
    HOST,
    MODES,
    PATHS,
    SERVE,
    TAKEN,
    THIRD,
    Fact,
    Form,
    Mode,
    Path,
    wanted,
)
from tests.rig.networktable import (
    fetches,
    furnished,
    observe_fact,
    observe_form,
    observe_mode,
    observe_path,
    serves,
)

pytestmark = pytest.mark.rig


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

    def ports(self, name: str) -> Sequence[int]:
        return [port["published"] for port in self.fleet.json("inspect", name)[0]["status"]["ports"]]

    def network(self, name: str, *flags: str) -> None:
        self.fleet.flota("n1", "network", "create", *flags, name)


@pytest.fixture(scope="module")
def engine(fleet: Fleet) -> Iterator[Flota]:
    made = Flota(fleet)
    with furnished(made):
        yield made
    for one in fleet.json("ps", "-a"):
        fleet.flota("n1", "rm", "-f", one["instance"]["id"])
    fleet.flota("n1", "network", "prune", "-f")


@pytest.fixture
def box(engine: Flota) -> Iterator[Flota]:
    yield engine
    engine.attempt("rm", "-f", "box")


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_mode_is_seen_as_it_should_be_from_everywhere(box: Flota, mode: Mode) -> None:
    assert observe_mode(box, mode) == wanted(mode, docker=False)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_published_port_answers_whom_it_should(box: Flota, form: Form) -> None:
    box.run("box", *form.flags)
    assert observe_form(box, form) == wanted(form, docker=False)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_container_finds_what_its_flags_say(box: Flota, fact: Fact) -> None:
    assert observe_fact(box, fact) == fact.says


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.from_ or 'bridge'} to {path.to or 'bridge'}")
def test_networks_are_apart_and_containers_of_one_together(engine: Flota, path: Path) -> None:
    assert observe_path(engine, path) is path.reaches


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
