"""A host behind a router that translates: on an encrypted network it reaches the others and is reached."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE, running
from tests.rig.support import address, local_pid
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig


@pytest.fixture(scope="module")
def translated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """n1 with an address that all reach, n2 behind a router that lets nobody begin."""
    with running(tmp_path_factory.mktemp("disk"), 2, remote=("n2",), nat=("n2",)) as fleet:
        yield fleet


def run(fleet: Fleet, network: str, host: str) -> tuple[str, str]:
    """A container's namespace and address."""
    words = ("--name", f"{network}-{host}", "--network", network, "--node", host)
    ident = fleet.flota("n1", "run", "-d", *words, IMAGE, "sleep", "10000").strip()
    (info,) = fleet.json("inspect", ident)
    return f"/proc/{local_pid(fleet, host, info['status']['pid'])}/ns/net", address(info, network)


def reaches(namespace: str, target: str) -> bool:
    words = ["nsenter", f"--net={namespace}", "busybox", "ping", "-c1", "-W1", target]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_host_behind_nat_reaches_and_is_reached_on_an_encrypted_network_alone(translated: Fleet) -> None:
    translated.flota("n1", "network", "create", "--opt", "encrypted", "secret")
    (out, outer), (in_, inner) = (run(translated, "secret", host) for host in ("n1", "n2"))
    wait_until(lambda: reaches(in_, outer), deadline=15, what="it reaches the other")
    wait_until(lambda: reaches(out, inner), deadline=5, what="it is reached")
    there = next(host.address for host in translated.rig.hosts if host.name == "n2")
    begun = translated.rig.exec("n1", ["busybox", "ping", "-c1", "-W1", there], check=False)
    assert begun.returncode != 0, "the router lets nobody begin"
    translated.flota("n1", "network", "create", "plain")
    refused = translated.attempt(
        "n1", "run", "-d", "--network", "plain", "--node", "n2", IMAGE, "sleep", "10000", timeout=15
    )
    assert refused.returncode != 0 and b"behind NAT" in refused.stderr, refused.stderr
    translated.flota("n1", "network", "rotate-keys", "secret")

    def changed() -> bool:
        found = translated.json("network", "ls", "--filter", "name=secret")[0]["network"]["keys"]
        return bool(found == {"oldest": 2, "sending": 2, "newest": 2})

    wait_until(changed, deadline=20, what="keys are changed")
    wait_until(lambda: reaches(out, inner), deadline=10, what="it is reached by the new keys")
