"""The table of network modes and published forms, asked of Docker; flota differs where the rows say so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest

from bench.peers import IMAGE, Docker
from deploy.busybox import root_tar
from deploy.rig.base import Rig
from tests.rig.networkrows import FACTS, FORMS, MODES, PATHS, REFUSED, SERVE, Fact, Form, Mode, Path, wanted
from tests.rig.networktable import furnished, observe_fact, observe_form, observe_mode, observe_path
from tests.support import census

pytestmark = [pytest.mark.rig, pytest.mark.slow]


class Oracle:
    """`networktable.Engine` on Docker."""

    def __init__(self, docker: Docker) -> None:
        self.docker = docker
        self.rig: Rig = docker.rig

    def attempt(self, *words: str) -> tuple[int, str, str]:
        done = self.docker.run("n1", *words, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def run(self, name: str, *flags: str, command: str = SERVE) -> None:
        self.docker.run("n1", "run", "-d", "--name", name, *flags, IMAGE, "sh", "-c", command)

    def info(self, name: str) -> tuple[int, Mapping[str, str]]:
        words = "{{.State.Pid}} {{range $n, $e := .NetworkSettings.Networks}}{{$n}}={{$e.IPAddress}} {{end}}"
        pid, *pairs = self.docker.run("n1", "inspect", "-f", words, name).stdout.decode().split()
        found = dict(pair.partition("=")[::2] for pair in pairs)
        return int(pid), {network: address for network, address in found.items() if address}

    def network(self, name: str, *flags: str) -> None:
        self.docker.run("n1", "network", "create", *flags, name)

    def ports(self, name: str) -> Sequence[int]:
        lines = self.docker.run("n1", "port", name).stdout.decode().splitlines()
        return [int(line.rpartition(":")[2]) for line in lines]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    with census.unchanged():
        docker = Docker("od", tmp_path_factory.mktemp("docker"))
        try:
            docker.start_alone(3, root_tar())
            made = Oracle(docker)
            with furnished(made):
                yield made
        finally:
            docker.stop()


@pytest.fixture
def box(engine: Oracle) -> Iterator[Oracle]:
    yield engine
    engine.attempt("rm", "-f", "box")


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_docker_shows_a_mode_as_the_table_says(box: Oracle, mode: Mode) -> None:
    if mode.docker.get("refused"):
        code, _, _ = box.attempt("run", "-d", "--name", "box", *mode.flags, IMAGE, "true")
        assert code == 125
        return
    assert observe_mode(box, mode) == wanted(mode, docker=True)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_docker_publishes_as_the_table_says(box: Oracle, form: Form) -> None:
    if form.docker.get("refused"):
        code, _, _ = box.attempt("run", "-d", "--name", "box", *form.flags, IMAGE, "true")
        assert code == 125
        return
    box.run("box", *form.flags)
    assert observe_form(box, form) == wanted(form, docker=True)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_docker_tells_a_container_what_the_table_says(box: Oracle, fact: Fact) -> None:
    if fact.docker == REFUSED:
        code, _, _ = box.attempt("run", "-d", "--name", "box", *fact.flags, IMAGE, "true")
        assert code == 125
        return
    assert observe_fact(box, fact) == (fact.docker or fact.says)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.from_ or 'bridge'} to {path.to or 'bridge'}")
def test_docker_keeps_networks_apart_as_the_table_says(engine: Oracle, path: Path) -> None:
    assert observe_path(engine, path) is path.reaches
