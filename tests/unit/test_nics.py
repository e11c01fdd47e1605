"""Which links become ports, when, and what is told where one does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from msgspec.structs import replace

from model.codec import decode_json
from model.errors import CommandFailed
from net.nic.shift import Stand
from net.nic.state import FAILED, KEPT, MOVING, Journal, Wish
from net.nics import Nics

LAN = Wish(network="lan", parent="eth1", bridge="fln1", mtu=1500)


class FakeSite:
    """`ends` is how the next move ends: a phase of the journal, or "dead" for a process that was killed."""

    def __init__(self) -> None:
        self.known: dict[str, Journal] = {}
        self.ports: set[str] = set()
        self.refusal, self.link, self.ends = "", "7 mac 1500", KEPT
        self.acts: list[tuple[str, str]] = []

    def journals(self) -> Mapping[str, Journal]:
        return dict(self.known)

    def standing(self, wishes: Iterable[Wish]) -> Mapping[str, Stand]:
        return {
            wish.bridge: Stand(
                is_port=wish.bridge in self.ports,
                link=self.link,
                refusal="" if wish.bridge in self.ports else self.refusal,
            )
            for wish in wishes
        }

    async def change(self, action: str, what: str) -> None:
        self.acts.append((action, what if action != "move" else "…"))
        if action == "move":
            wish = decode_json(what.encode(), Wish, "")
            self.known[wish.bridge] = Journal(
                wish=wish, phase=self.ends, why="lost the gateway", link=self.link
            )  # type: ignore[arg-type]
            if self.ends == KEPT:
                self.ports.add(wish.bridge)
        elif action == "recover":
            self.known[what] = replace(self.known[what], phase=FAILED, why="interrupted")
        else:
            self.known.pop(what, None)
            self.ports.discard(what)


@pytest.fixture
def site() -> FakeSite:
    return FakeSite()


async def test_a_wanted_link_becomes_a_port_once(site: FakeSite) -> None:
    nics = Nics(site)
    await nics.want([LAN])
    await nics.look()
    await nics.look()
    assert site.acts == [("move", "…")]
    assert nics.troubles == {}
    await nics.ready("fln1")


async def test_what_an_earlier_agent_moved_is_adopted(site: FakeSite) -> None:
    site.known["fln1"], site.ports = Journal(wish=LAN, phase=KEPT), {"fln1"}
    nics = Nics(site)
    await nics.want([LAN])
    await nics.look()
    assert site.acts == []


async def test_a_link_that_nobody_wants_is_given_back_at_once(site: FakeSite) -> None:
    nics = Nics(site)
    await nics.want([LAN])
    await nics.look()
    await nics.want([])
    assert site.acts[-1] == ("return", "fln1") and not site.known


async def test_another_parent_gives_the_first_one_back(site: FakeSite) -> None:
    nics = Nics(site)
    await nics.want([LAN])
    await nics.look()
    await nics.want([replace(LAN, parent="eth2")])
    await nics.look()
    assert [act for act, _ in site.acts] == ["move", "return", "move"]


async def test_a_link_that_can_not_be_given_back_keeps_its_bridge(site: FakeSite) -> None:
    class Stuck(FakeSite):
        async def change(self, action: str, what: str) -> None:
            self.acts.append((action, what))

    stuck = Stuck()
    stuck.known["fln1"] = Journal(wish=LAN, phase=KEPT)
    held = await Nics(stuck).want([])
    assert "eth1 could not be taken out of fln1" in held["fln1"]


async def test_a_move_that_was_set_back_is_not_tried_again_until_asked(site: FakeSite) -> None:
    told: list[int] = []
    nics, site.ends = Nics(site), FAILED
    nics.changed = lambda: told.append(1)
    await nics.want([LAN])
    await nics.look()
    await nics.look()
    assert [act for act, _ in site.acts] == ["move"] and told == [1]
    with pytest.raises(CommandFailed, match="network lan: lost the gateway; `flota network doctor` tries"):
        await nics.ready("fln1")
    site.ends = KEPT
    await nics.look(asked=True)
    assert [act for act, _ in site.acts] == ["move", "move"] and nics.troubles == {}
    assert told == [1, 1]


async def test_another_link_or_another_wish_is_worth_another_try(site: FakeSite) -> None:
    nics, site.ends = Nics(site), FAILED
    await nics.want([LAN])
    await nics.look()
    site.link = "8 mac 1500"
    await nics.look()
    await nics.want([replace(LAN, mtu=9000)])
    await nics.look()
    await nics.want([replace(LAN, mtu=9000, controllers=("192.0.2.1:7700",))])
    await nics.look()
    assert len(site.acts) == 3


async def test_a_link_that_can_not_be_moved_is_told_and_looked_at_again(site: FakeSite) -> None:
    nics, site.refusal = Nics(site), "this host has no link eth1"
    await nics.want([LAN])
    await nics.look()
    assert nics.troubles == {"fln1": "network lan: this host has no link eth1"} and site.acts == []
    site.refusal = ""
    await nics.look()
    assert nics.troubles == {} and len(site.acts) == 1


async def test_a_port_that_others_took_out_is_put_in_again(site: FakeSite) -> None:
    nics = Nics(site)
    await nics.want([LAN])
    await nics.look()
    site.ports.clear()
    await nics.look()
    assert [act for act, _ in site.acts] == ["move", "move"]


async def test_a_change_that_was_left_half_done_is_put_right_though_the_link_can_not_be_moved(
    site: FakeSite,
) -> None:
    site.known["fln1"] = Journal(wish=LAN, phase=MOVING)
    nics, site.refusal = Nics(site), "eth1 is a port of br0"
    await nics.want([LAN])
    await nics.look()
    assert site.acts == [("recover", "fln1")] and site.known["fln1"].phase == FAILED
    assert nics.troubles == {"fln1": "network lan: eth1 is a port of br0"}
    await nics.look()
    assert len(site.acts) == 1


async def test_a_move_whose_processes_died_is_put_right(site: FakeSite) -> None:
    nics, site.ends = Nics(site), MOVING
    await nics.want([LAN])
    await nics.look()
    assert [act for act, _ in site.acts] == ["move", "recover"]
    assert "interrupted" in nics.troubles["fln1"]
    await nics.look()
    assert len(site.acts) == 2
