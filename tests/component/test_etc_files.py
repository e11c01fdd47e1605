"""The files under /etc that a container shares with its host's agent, and may write."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from model.ids import NetworkId
from model.records import ResolvedAttachment
from model.spec import Attachment, NetworkSpec, Subnet
from model.status import Phase
from model.view import NetworkView, View
from tests.support.agentlab import BRIDGE, AgentLab, bridge, ident, instance, phase, view, wish
from tests.support.waiting import until

ONE = NetworkId("1" * 64)
NETWORK = NetworkView(
    id=ONE,
    spec=NetworkSpec(name="one", driver="bridge", subnets=(Subnet(cidr="10.21.0.0/24"),)),
    vni=0,
    blocks=("10.21.0.0/24",),
)


async def test_etc_hosts_that_a_container_blew_up_is_neither_read_whole_nor_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab = AgentLab(tmp_path)
    box, networks = instance(), {BRIDGE: bridge(), ONE: NETWORK}
    async with lab.agent() as agent:
        await agent.take_view(View(revision=1, instances={box.id: box}, networks=networks, fleet_id="f"))
        await phase(agent, 1, Phase.RUNNING)
        hosts = tmp_path / "state/containers" / ident(1) / "hosts"
        os.truncate(hosts, 1 << 28)
        before = hosts.stat()
        both = wish(box, attachments=(*box.attachments, ResolvedAttachment(network=ONE)))
        await agent.take_view(View(revision=2, instances={box.id: both}, networks=networks, fleet_id="f"))
        await until(lambda: len(agent.workers[box.id].record.endpoints) == 2, deadline=5)
        after = hosts.stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        assert f"{hosts} is left as it is" in caplog.text


FIRST, SECOND = 1 << 252, 2 << 252
"""Whose names, the begin of their numbers, differ."""


@pytest.mark.parametrize(
    ("theirs", "own", "wanted"),
    [("", "", ident(FIRST)[:12]), ("front", "", "front"), ("front", "mine", "mine")],
)
async def test_hostname_of_who_shares_a_network_is_the_other_containers_unless_told(
    tmp_path: Path, theirs: str, own: str, wanted: str
) -> None:
    shared = (Attachment(network=f"container:{ident(FIRST)}"),)
    first, second = instance(FIRST, hostname=theirs), instance(SECOND, hostname=own, networks=shared)
    async with AgentLab(tmp_path).agent() as agent:
        await agent.take_view(view(first))
        await phase(agent, FIRST, Phase.RUNNING)
        await agent.take_view(view(first, wish(second, attachments=()), revision=2))
        await phase(agent, SECOND, Phase.RUNNING)
        [config] = tmp_path.glob(f"**/{second.id}/**/config.json")
        assert json.loads(config.read_bytes())["hostname"] == wanted
