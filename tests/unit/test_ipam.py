"""Subnets, blocks and addresses: tables, and a model of a host that takes and returns addresses."""

from __future__ import annotations

import contextlib
import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from model.errors import Exhausted, InUse, InvalidInput
from model.spec import NetworkSpec, Subnet
from net.ipam import Leases, allocate, block_prefix, carve, free_subnet, overlap, parse_range, release, room
from net.subnets import gateway, host_address

ROUTED = NetworkSpec(name="n", subnets=(Subnet(cidr="10.9.0.0/28"),))


@pytest.mark.parametrize(
    "text",
    ["10.0.0.1/24", "010.1.1.0/24", "10.0.0.0/33", "10.0.0.0", "0.0.0.0/0", "127.0.0.0/8", "169.254.0.0/16",
     "224.0.0.0/4", "240.0.0.0/4", "10.0.0.1/32", "fd00::1/128", "::ffff:10.0.0.0/120", "fe80::/64",
     "fe80::%1/64", "ff02::/16", "x", "10.0.0.0/255.0.0.255"],
)  # fmt: skip
def test_subnet_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_range(text)


@pytest.mark.parametrize("text", ["10.0.0.0/31", "10.0.0.0/30", "192.168.4.0/24", "fd00::/127", "fd00::/64"])
def test_subnet_with_room_is_taken(text: str) -> None:
    assert str(parse_range(text)) == text


def test_small_subnets_have_the_addresses_that_were_decided() -> None:
    given_out = {}
    for cidr in ("10.0.0.0/31", "10.0.0.0/30", "fd00::/127"):
        spec = NetworkSpec(name="s", driver="bridge", subnets=(Subnet(cidr=cidr),))
        version = ipaddress.ip_network(cidr).version
        leases, found = Leases(), []
        with pytest.raises(Exhausted):
            for n in range(5):
                leases, address = allocate(spec, (cidr,), leases, f"c{n}", version=version, now=0)
                found.append(address)
        given_out[cidr] = (str(gateway(spec.subnets[0])), found)
    assert given_out == {
        "10.0.0.0/31": ("10.0.0.0", ["10.0.0.1"]),
        "10.0.0.0/30": ("10.0.0.1", ["10.0.0.2"]),
        "fd00::/127": ("fd00::", ["fd00::1"]),
    }


@pytest.mark.parametrize("text", ["10.9.1.1", "10.9.0.0", "10.9.0.15", "nonsense"])
def test_gateway_outside_or_at_an_edge_is_refused(text: str) -> None:
    with pytest.raises((InvalidInput, ValueError)):
        gateway(Subnet(cidr="10.9.0.0/28", gateway=text))


def test_pool_avoids_routes_of_the_host() -> None:
    avoid = [ipaddress.ip_network(c) for c in ("10.128.0.0/16", "10.129.7.0/24", "fd00::/8", "0.0.0.0/32")]
    assert str(free_subnet(["10.128.0.0/9"], 16, avoid)) == "10.130.0.0/16"


def test_pool_that_is_full_says_so() -> None:
    with pytest.raises(Exhausted, match=r"10\.0\.0\.0/24"):
        free_subnet(["10.0.0.0/24"], 24, [ipaddress.ip_network("10.0.0.9/32")])


def test_a_24_serves_a_hundred_hosts() -> None:
    subnet, taken = Subnet(cidr="10.1.1.0/24"), []
    for _ in range(100):
        taken.append(carve(subnet, 100, taken))
    assert len(set(taken)) == 100


@given(hosts=st.integers(1, 5000), prefix=st.integers(8, 31), count=st.integers(1, 60))
def test_blocks_never_overlap_and_stay_inside(hosts: int, prefix: int, count: int) -> None:
    whole = ipaddress.ip_network(f"10.0.0.0/{prefix}")
    taken: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    try:
        for _ in range(count):
            block = carve(Subnet(cidr=str(whole)), hosts, taken)
            assert block.subnet_of(whole) and not any(overlap(block, other) for other in taken)
            taken.append(block)
    except Exhausted:
        assert sum(block.num_addresses for block in taken) >= whole.num_addresses - 3
    assert block_prefix(whole, hosts) >= 24


def test_wanted_address_is_given_refused_or_taken() -> None:
    blocks = ("10.9.0.0/29",)
    leases, address = allocate(ROUTED, blocks, Leases(), "a", version=4, now=0, wanted="10.9.0.12")
    assert address == "10.9.0.12"
    with pytest.raises(InUse):
        allocate(ROUTED, blocks, leases, "b", version=4, now=0, wanted="10.9.0.12")
    for text in ("10.9.0.0", "10.9.0.1", "10.9.0.2", "10.9.0.15", "10.10.0.1", "x"):
        with pytest.raises(InvalidInput):
            allocate(ROUTED, blocks, leases, "b", version=4, now=0, wanted=text)


def test_exclusions_and_ranges_are_kept_out() -> None:
    subnet = Subnet(cidr="10.9.0.0/24", ip_range="10.9.0.8/29", exclude=("10.9.0.8", "10.9.0.10-10.9.0.14"))
    spec = NetworkSpec(name="n", driver="bridge", subnets=(subnet,))
    leases, found = Leases(), []
    for n in range(2):
        leases, address = allocate(spec, ("10.9.0.0/24",), leases, str(n), version=4, now=0)
        found.append(address)
    assert found == ["10.9.0.9", "10.9.0.15"]


def test_where_nothing_else_is_left_the_longest_rested_is_given() -> None:
    spec = NetworkSpec(name="n", driver="bridge", subnets=(Subnet(cidr="10.9.0.0/29"),))
    leases = Leases()

    def take(holder: str, now: float) -> str:
        nonlocal leases
        leases, address = allocate(spec, ("10.9.0.0/29",), leases, holder, version=4, now=now, rest=1.0)
        return address

    found = [take(str(n), 0.0) for n in range(5)]
    leases = release(release(leases, "3", now=10.0), "1", now=10.5)
    with pytest.raises(Exhausted, match="2 rest after use"):
        take("a", 10.9)
    assert [take("a", 11.0), take("b", 11.5)] == [found[3], found[1]]
    leases = release(leases, "0", now=20.0)
    with pytest.raises(Exhausted):
        allocate(spec, ("10.9.0.0/29",), leases, "c", version=4, now=49.0)


class Host(RuleBasedStateMachine):
    """Against a model: a set of held addresses and the time each was given back."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases()
        self.now = 100.0
        self.held: dict[str, str] = {}
        self.returned: dict[str, float] = {}
        self.count = 0

    @rule()
    def take(self) -> None:
        self.count += 1
        holder = f"c{self.count}"
        resting = {a for a, at in self.returned.items() if self.now < at + 30}
        possible = {f"10.9.0.{n}" for n in range(3, 15)} - set(self.held) - resting
        if not possible:
            with pytest.raises(Exhausted):
                allocate(ROUTED, ("10.9.0.0/28",), self.leases, holder, version=4, now=self.now)
            return
        self.leases, address = allocate(
            ROUTED, ("10.9.0.0/28",), self.leases, holder, version=4, now=self.now
        )
        assert address in possible
        self.held[address] = holder

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.held)))
        self.leases = release(self.leases, self.held.pop(address), now=self.now)
        self.returned[address] = self.now

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.held)))
        same = allocate(ROUTED, ("10.9.0.0/28",), self.leases, self.held[address], version=4, now=self.now)
        assert same == (self.leases, address)

    @rule(seconds=st.floats(0.5, 40))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def holders_agree(self) -> None:
        assert dict(self.leases.held) == self.held


TestHost = Host.TestCase
TestHost.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("mode", ["routed", "bridged"])
def test_the_hosts_own_address_in_an_overlay_is_nobody_elses(mode: str) -> None:
    spec = NetworkSpec(name="n", subnets=(Subnet(cidr="10.9.0.0/16"),), options={"mode": mode})
    own = host_address(spec.subnets[0], ["10.9.3.0/24"])
    leases, first = allocate(spec, ("10.9.3.0/24",), Leases(), "c", version=4, now=0)
    assert own == "10.9.3.0" and first != own
    with pytest.raises(InvalidInput, match="reserved"):
        allocate(spec, ("10.9.3.0/24",), leases, "d", version=4, now=0, wanted=own)


@given(
    st.sampled_from(["10.9.0.0/24", "10.9.0.0/28", "10.9.0.8/31", "10.9.0.128/25"]),
    st.sampled_from(["", "10.9.0.0/25", "10.9.0.64/26"]),
    st.lists(st.sampled_from(["10.9.0.9", "10.9.0.0-10.9.0.20", "10.9.0.16/28", "10.9.0.70"]), max_size=3),
)
@settings(deadline=None)
def test_room_of_a_block_is_what_can_be_taken_of_it(block: str, ip_range: str, exclude: list[str]) -> None:
    subnet = Subnet(cidr="10.9.0.0/24", ip_range=ip_range, exclude=tuple(exclude))
    spec = NetworkSpec(name="n", subnets=(subnet,))
    leases, taken = Leases(), 0
    with contextlib.suppress(Exhausted):
        for number in range(300):
            leases, _ = allocate(spec, (block,), leases, f"c{number}", version=4, now=0.0)
            taken += 1
    assert room(spec, block, (block,)) == taken
