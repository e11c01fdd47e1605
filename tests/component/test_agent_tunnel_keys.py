"""A host's keys of encrypted networks: made by its agent, told by their public half, gone when they are
over."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from agent.doctor import examine
from agent.host import HostAgent
from agent.tunnelkeys import PORTS
from model.codec import encode_wire
from model.ids import HostId, NetworkId
from model.spec import NetworkSpec, Subnet
from model.tunnels import KeyPhase, TunnelEnd, TunnelReport, keys_digest
from model.view import NetworkPeer, NetworkView, Peer, View
from model.wire import Report
from net.host import NetworkPlan
from net.state import LocalEnd
from net.wireguard import keys
from tests.support.agentlab import AgentLab
from tests.support.waiting import until

SECRET, PEER = NetworkId("a" * 64), HostId("b" * 64)


def view(phase: KeyPhase, *theirs: TunnelEnd, revision: int = 1, carried: bool = True) -> View:
    spec = NetworkSpec(name="secret", subnets=(Subnet(cidr="10.7.0.0/16"),), options={"encrypted": "on"})
    peers = (NetworkPeer(host=PEER, blocks=("10.7.2.0/24",), ends=theirs),)
    network = NetworkView(id=SECRET, spec=spec, vni=5000, blocks=("10.7.1.0/24",), peers=peers, keys=phase)
    return View(
        revision=revision,
        fleet_id="f",
        networks={SECRET: network} if carried else {},
        peers={PEER: Peer(host=PEER, name="p", address="198.18.0.9")},
    )


def alone(phase: KeyPhase, revision: int = 1) -> View:
    """Without peers: nobody is there to be asked."""
    made = view(phase, revision=revision)
    return replace(made, networks={SECRET: replace(made.networks[SECRET], peers=())}, peers={})


def theirs(generation: int) -> TunnelEnd:
    return TunnelEnd(generation=generation, key=f"key{generation}", port=51820)


def told(agent: HostAgent) -> TunnelReport:
    return agent.host_report().tunnels[SECRET]


def ends(lab: AgentLab) -> tuple[LocalEnd, ...]:
    assert lab.network.plan is not None
    return lab.network.plan.ends[SECRET]


def unreadable(file: Path, folder: Path) -> Path:
    """Whoever reads it, even root, is told an error; where it is meanwhile."""
    aside = file.rename(folder / "aside")
    file.mkdir()
    return aside


async def test_agent_makes_keys_step_by_step_and_tells_their_public_halves(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(KeyPhase()))
        (one,) = ends(lab)
        file = Path(one.key_file)
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert keys.public(keys.read(file)) == one.key and PORTS[0] <= one.port <= PORTS[1]
        assert told(agent) == TunnelReport(
            ends=(TunnelEnd(generation=1, key=one.key, port=one.port),), met=keys_digest(1, ()), sends=1
        )
        await agent.take_view(view(KeyPhase(), theirs(1), revision=2))
        assert told(agent).met == keys_digest(1, ["key1"])
        await agent.take_view(view(KeyPhase(newest=2), theirs(1), theirs(2), revision=3))
        first, second = ends(lab)
        assert first == one and second.port != one.port and told(agent).met == keys_digest(2, ["key2"])
        alone = view(KeyPhase(oldest=2, sending=2, newest=2), theirs(2), revision=4)
        await agent.take_view(alone)
        assert ends(lab) == (second,) and told(agent).sends == 2
        assert not file.exists() and Path(second.key_file).exists()
    async with lab.agent() as agent:
        assert ends(lab) == (second,), "an agent that starts again finds them"
        await agent.take_view(replace(view(KeyPhase(), carried=False), revision=5))
        assert not Path(second.key_file).exists() and agent.host_report().tunnels == {}


async def test_private_key_is_in_no_report_and_no_journal(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(KeyPhase(), theirs(1)))
        (end,) = ends(lab)
        secret = Path(end.key_file).read_bytes().strip()
        sent = encode_wire(Report(sequence=1, report=agent.host_report(), statuses=tuple(agent.statuses())))
        assert secret not in sent and end.key.encode() in sent
    rest = [path for path in tmp_path.rglob("*") if path.is_file() and path != Path(end.key_file)]
    assert rest and not [path for path in rest if secret in path.read_bytes()]


async def test_key_that_is_spoilt_takes_none_of_the_others_along(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(KeyPhase(newest=2), theirs(1), theirs(2)))
        first, second = ends(lab)
        Path(second.key_file).write_text("spoilt")
        await agent.take_view(view(KeyPhase(newest=2), theirs(1), revision=2))
        assert ends(lab) == (first,), "the device that stands goes on"
        assert any("is none" in word for word in agent.host_report().conditions)


async def test_keys_that_can_not_be_made_are_a_condition_and_hold_up_nothing_else(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        (tmp_path / "state" / "wireguard").write_text("in the way")
        await agent.take_view(view(KeyPhase(), theirs(1)))
        assert lab.network.plan is not None and SECRET in lab.network.plan.networks
        assert lab.network.plan.ends == {}
        assert any("keys of encrypted networks" in word for word in agent.host_report().conditions)
        (tmp_path / "state" / "wireguard").unlink()
        await agent.take_view(view(KeyPhase(), theirs(1), revision=2))
        assert len(ends(lab)) == 1 and not agent.host_report().conditions


async def test_key_that_can_not_be_read_for_a_moment_comes_back_by_itself(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(KeyPhase(), theirs(1)))
        (one,) = ends(lab)
        file = Path(one.key_file)
        aside = unreadable(file, tmp_path)
        await agent.take_view(view(KeyPhase(newest=2), theirs(1), revision=2))
        assert [end.generation for end in ends(lab)] == [2]
        assert any("cannot be read" in word for word in agent.host_report().conditions)
        assert file.exists()
        file.rmdir()
        aside.rename(file)
        await until(lambda: len(ends(lab)) == 2, deadline=10, what="the key without another View")
        assert ends(lab)[0] == one and not agent.host_report().conditions


async def test_key_that_can_be_read_again_during_a_check_up_is_kept_and_comes_back(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(alone(KeyPhase()))
        (one,) = ends(lab)
        file = Path(one.key_file)
        aside = unreadable(file, tmp_path)
        apply = lab.network.apply

        async def examined_meanwhile(plan: NetworkPlan) -> None:
            lab.network.apply = apply
            file.rmdir()
            aside.rename(file)
            await examine(agent.context, lambda: ())
            await apply(plan)

        lab.network.apply = examined_meanwhile
        await agent.take_view(alone(KeyPhase(newest=2), revision=2))
        assert file.exists() and [end.generation for end in ends(lab)] == [2]
        await until(lambda: len(ends(lab)) == 2, deadline=10, what="the key without another View")
        assert ends(lab)[0] == one


async def test_key_that_is_spoilt_is_made_anew_by_itself(tmp_path: Path) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(KeyPhase(newest=2), theirs(1), theirs(2)))
        first, second = ends(lab)
        Path(second.key_file).write_text("spoilt")
        await agent.take_view(view(KeyPhase(newest=2), theirs(1), revision=2))
        await until(lambda: len(ends(lab)) == 2, deadline=10, what="another key")
        assert ends(lab)[0] == first and ends(lab)[1].key != second.key
        assert [end.key for end in told(agent).ends] == [end.key for end in ends(lab)]


async def test_old_key_that_can_not_be_removed_is_a_condition_and_holds_up_nothing_else(
    tmp_path: Path,
) -> None:
    lab = AgentLab(tmp_path)
    async with lab.agent() as agent:
        await agent.take_view(view(KeyPhase(newest=2), theirs(1), theirs(2)))
        first, second = ends(lab)
        unreadable(Path(first.key_file), tmp_path)
        await agent.replanned.wait(1.0)
        await agent.take_view(view(KeyPhase(oldest=2, sending=2, newest=2), theirs(2), revision=2))
        assert ends(lab) == (second,)
        assert any("network: [Errno" in word for word in agent.host_report().conditions)
        assert await agent.replanned.wait(1.0), "those who wait for the plan are told"
