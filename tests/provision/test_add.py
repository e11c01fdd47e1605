"""`flota host add` over a real sshd: bare hosts become members, whatever happens on the way."""

from __future__ import annotations

import pytest

from tests.provision.barehosts import BareHosts

pytestmark = pytest.mark.rig


def test_add_of_a_bare_host_founds_a_fleet_that_the_operators_commands_reach(one: BareHosts) -> None:
    one.bereave("n1")
    said = one.ok("host", "add", "--controller", one.root("n1"))
    assert "The fleet is up" in said
    assert one.nodes()["n1"]["host"]["state"] == "ready"
    print(one.sh("n1", "cat /run/own/apt-get.log"))
