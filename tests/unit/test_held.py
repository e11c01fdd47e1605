"""The index over a network's blocks: as a walk over all of them would say it."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from controller.held import Held
from model.ids import HostId, NetworkId
from model.records import Block


def block(cidr: str, holder: str = "") -> Block:
    return Block(network=NetworkId("blue"), cidr=cidr, host=HostId("h1"), holder=holder)


SHARES = [f"10.1.0.{n}/28" for n in (0, 32, 48)] + ["fd00::/124", "10.1.0.20/32"]
SINGLES = [f"10.1.0.{n}/32" for n in (3, 15, 16, 20, 33)] + ["fd00::2/128", "fd00::20/128"]
PUTS = st.lists(
    st.one_of(
        st.builds(block, st.sampled_from(SHARES)),
        st.builds(block, st.sampled_from(SINGLES), st.sampled_from(("a", "b"))),
    )
)


@given(PUTS)
def test_held_answers_as_a_walk_over_all_blocks_does(puts: list[Block]) -> None:
    held = Held(puts[: len(puts) // 2])
    for put in puts[len(puts) // 2 :]:
        held.put(put)
    last = {b.cidr: b for b in puts}
    assert {b.cidr: b for b in held} == last
    ranges = {cidr: ipaddress.ip_network(cidr) for cidr in last}
    shares = {cidr for cidr, b in last.items() if not b.holder}
    assert held.shares.keys() == shares and set(held.ranges) == set(ranges.values())
    for holder in ("a", "b"):
        assert {b.cidr for b in held.of_holder(holder)} == {c for c, b in last.items() if b.holder == holder}
    for text in (*(f"10.1.0.{n}" for n in range(64)), *(f"fd00::{n:x}" for n in range(34))):
        address = ipaddress.ip_address(text)
        around = [c for c in ranges if address in ranges[c]]
        assert held.has(address.version, int(address)) == bool(around)
        share = held.share_around(address.version, int(address))
        assert ([] if share is None else [share.cidr]) == [c for c in around if c in shares]
    for cidr in shares:
        inside = [c for c in ranges if c not in shares and ranges[c].overlaps(ranges[cidr])]
        assert held.singles_in(cidr) == len(inside)
