"""What the README promises of three bare hosts, command by command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.bundle import Bundle
from deploy.busybox import root_tar
from tests.provision.barehosts import BareHosts
from tests.provision.conftest import bare
from tests.support.transcript import steps

pytestmark = pytest.mark.rig
README = Path(__file__).resolve().parents[2] / "README.md"
DOCUMENTED, RIGS = "192.0.2.", "198.18.0."
"""Addresses as documents have them (RFC 5737), and as hosts of the rig do."""


@pytest.fixture
def three(tmp_path: Path, bundle: Bundle) -> Iterator[BareHosts]:
    with bare(tmp_path, 3, name="rm") as hosts:
        for name in ("n1", "n2", "n3"):
            hosts.bereave(name)
        yield hosts


def test_readme_leads_from_three_bare_hosts_to_a_service_that_answers(three: BareHosts) -> None:
    tar = three.home / "web.tar"
    tar.write_bytes(root_tar({"www/index.html": b"hello\n"}))
    commands = steps(README, "hosts")
    assert len(commands) == 4
    for step in commands:
        words = [word.replace(DOCUMENTED, RIGS) for word in shlex.split(step.command)]
        program, *rest = [str(tar) if word == tar.name else word for word in words]
        said = three.ok(*rest) if program == "flota" else three.outside(program, *rest)
        assert step.fits(said), f"$ {step.command}\npromised {step.output}\nsaid {said}"
    for host in ("n1", "n2"):
        assert three.outside("curl", "-s", f"http://{three.address(host)}:8080/") == "hello\n"
