"""Hosts that have IPv6 addresses alone: they join; overlays, services and published ports work between them
and a host behind a router."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from deploy.fleet import Fleet
from deploy.rig.netns import address6_of
from tests.rig.conftest import IMAGE, running
from tests.rig.support import on_host, wait_replicas
from tests.rig.test_overlay_table import WAYS, Table
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
ASK = """
import sys, urllib.request
print(urllib.request.urlopen(f"http://[{sys.argv[1]}]:8080/", timeout=2).read().decode(), end="")
"""


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """n1 to n3 on one link, n4 behind a router."""
    with running(tmp_path_factory.mktemp("disk"), 4, remote=("n4",), family=6) as fleet:
        yield fleet


@pytest.mark.parametrize("mode", ["routed", pytest.param("bridged", marks=pytest.mark.slow)])
def test_all_traffic_passes_between_containers_of_hosts_with_ipv6_alone(six: Fleet, mode: str) -> None:
    six.flota("n1", "network", "create", "--ipv6", "--opt", f"mode={mode}", mode)
    with ExitStack() as stack:
        assert Table(six, mode, WAYS, stack).failures() == []
    told = {n["host"]["spec"]["name"]: n["host"]["facts"]["address"] for n in six.json("node", "ls")}
    assert told == {n: address6_of(n, remote=n == "n4") for n in ("n1", "n2", "n3", "n4")}
    tunnels = [line for line in on_host(six, "n1", "ip", "-d", "link").splitlines() if "vxlan id" in line]
    assert tunnels and all(f"local {address6_of('n1')}" in line for line in tunnels)
    wait_until(lambda: b"all is well" in six.attempt("n1", "network", "doctor").stdout, deadline=15)


def test_published_ports_of_services_answer_on_every_host_with_ipv6_alone(six: Fleet) -> None:
    six.flota("n1", "network", "create", "--ipv6", "front")
    serve = ("sh", "-c", "mkdir -p /www; echo here > /www/index.html; exec httpd -f -p 80 -h /www")
    six.flota("n1", "service", "create", "--name", "web", "--network", "front", "-p", "8080:80",
              "--constraint", "node.hostname==n4", IMAGE, *serve)  # fmt: skip
    wait_replicas(six, "web", 1)
    for host in ("n1", "n2", "n4"):
        ask = [sys.executable, "-c", ASK, address6_of(host, remote=host == "n4")]
        wait_until(
            lambda words=ask: six.rig.outside(words).stdout == b"here\n",
            deadline=15,
            what=f"an answer of {host}",
        )
