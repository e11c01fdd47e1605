"""Services to elements: what one means, that changes add up, and the chains that they lead to."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InvalidInput
from net.loadbalance import (
    LANES,
    SETS,
    ElementChange,
    Elements,
    Flow,
    Ledger,
    ServiceMember,
    VirtualService,
    delta,
    elements_of,
    pack,
    problems,
    refuse,
)
from net.servicechains import Frame, all_chains, base_chains, comments, completing_script, pick_chain

HERE = ("10.1.1.0/24", "fd00::100/120")
FRAME = Frame(ranges=("10.127.0.0/16", "fd7f::/64"))
numbers = st.integers(1, 3)
members = st.builds(
    ServiceMember,
    ipv4=st.one_of(st.just(""), st.builds("10.1.{}.{}".format, numbers, numbers)),
    ipv6=st.one_of(st.just(""), st.builds("fd00::{}0{}".format, numbers, numbers)),
)
services = st.builds(
    VirtualService,
    members=st.lists(members, max_size=4, unique=True).map(tuple),
    method=st.sampled_from(["round-robin", "random", "source-hash", "sticky"]),
)
keys = st.integers(1, 4)


def addressed(key: int, service: VirtualService) -> VirtualService:
    """Each key has its own addresses, as in life."""
    return VirtualService(
        ipv4=f"10.127.0.{key}", ipv6=f"fd7f::{key}", members=service.members, method=service.method
    )


changes = st.dictionaries(keys, st.one_of(st.none(), services), max_size=4).map(
    lambda found: {str(k): None if s is None else addressed(k, s) for k, s in found.items()}
)


def applied(have: Elements, change: ElementChange) -> Elements:
    """As a kernel would: what goes must be there, what comes must not, but alike."""
    after = {name: dict(have.get(name, {})) for name in SETS}
    for name, gone in change.gone.items():
        for key in gone:
            del after[name][key]
    for name, new in change.new.items():
        for key, data in new.items():
            assert after[name].setdefault(key, data) == data
    return after


@given(st.lists(changes, max_size=6))
def test_changes_add_up_to_the_services_that_are_left(steps: list[dict[str, VirtualService | None]]) -> None:
    ledger, kernel = Ledger(here=HERE), dict[str, dict[bytes, bytes]]()
    left: dict[str, VirtualService] = {}
    for step in steps:
        kernel = applied(kernel, ledger.change(step).elements)
        for key, service in step.items():
            left.pop(key, None)
            if service is not None:
                left[key] = service
        assert kernel == ledger.elements
        assert ledger.services == left
    kernel = applied(kernel, ledger.release(ledger.lingering))
    assert kernel == Ledger(left, HERE).elements
    assert ledger.lingering == set()


@given(changes, changes)
def test_difference_leads_from_one_set_of_services_to_another(
    one: dict[str, VirtualService | None], two: dict[str, VirtualService | None]
) -> None:
    have, want = ({k: s for k, s in found.items() if s is not None} for found in (one, two))
    ledger = Ledger(have)
    ledger.change(ledger.difference(want))
    assert ledger.services == want
    assert ledger.difference(want) == {}
    assert ledger.change(want).elements.empty


@given(changes, changes)
def test_delta_turns_any_elements_into_any_others(
    one: dict[str, VirtualService | None], two: dict[str, VirtualService | None]
) -> None:
    have, want = (Ledger({k: s for k, s in found.items() if s}).elements for found in (one, two))
    assert applied(have, delta(have, want)) == want
    assert delta(want, want).empty


def test_a_service_costs_an_address_and_its_members() -> None:
    two = (ServiceMember(ipv4="10.1.1.1", ipv6="fd00::101"), ServiceMember(ipv4="10.1.2.1"))
    found = elements_of(VirtualService(ipv4="10.127.0.5", ipv6="fd7f::5", members=two))
    vip = pack("10.127.0.5")
    assert found["vip4"] == {vip: f"rr-2-{5 % LANES}".encode()}
    assert found["pick4"] == {
        vip + struct.pack("=I", 0): pack("10.1.1.1"),
        vip + struct.pack("=I", 1): pack("10.1.2.1"),
    }
    assert found["vip6"] == {pack("fd7f::5"): f"rr-1-{5 % LANES}".encode()}
    assert set(found["served4"]) == {pack("10.1.1.1"), pack("10.1.2.1")}
    nobody = elements_of(VirtualService(ipv4="10.127.0.5"))
    assert not any(nobody.values())


def test_only_members_of_this_host_may_meet_themselves() -> None:
    two = (ServiceMember(ipv4="10.1.1.1"), ServiceMember(ipv4="10.1.2.1"))
    ledger = Ledger({"web": VirtualService(ipv4="10.127.0.5", members=two)}, HERE)
    assert set(ledger.elements["self4"]) == {pack("10.1.1.1") * 2}


def test_a_change_of_one_member_touches_its_own_elements_only() -> None:
    def service(last: int, method: str = "round-robin") -> VirtualService:
        found = tuple(ServiceMember(ipv4=f"10.1.2.{n}") for n in (1, 2, last))
        return VirtualService(ipv4="10.127.0.5", members=found, method=method)  # type: ignore[arg-type]

    ledger = Ledger({"web": service(3), "other": service(9)})
    change = ledger.change({"web": service(4)})
    key = pack("10.127.0.5") + struct.pack("=I", 2)
    assert change.elements.gone == {"pick4": (key,)}
    assert change.elements.new == {"pick4": {key: pack("10.1.2.4")}, "served4": {pack("10.1.2.4"): b""}}
    assert change.left == (Flow(vip=pack("10.127.0.5"), member=pack("10.1.2.3")),)
    ledger.change({"web": service(4, "sticky")})
    gone = ledger.change({"web": None})
    assert {flow.sticky for flow in gone.left} == {True}
    assert gone.elements.new == {}


def test_members_found_at_the_start_linger_until_released() -> None:
    ledger = Ledger({"web": VirtualService(ipv4="10.127.0.5", members=(ServiceMember(ipv4="10.1.2.1"),))})
    ledger.adopt((pack("10.1.2.1"), pack("10.1.2.7")))
    assert ledger.lingering == {pack("10.1.2.7")}
    assert ledger.release((pack("10.1.2.1"), pack("10.1.2.7"))).gone == {"served4": (pack("10.1.2.7"),)}


def test_addresses_elsewhere_and_nonsense_are_refused_by_name() -> None:
    wrong = {
        "a": VirtualService(ipv4="10.128.0.1"),
        "b": VirtualService(ipv6="fd7e::1"),
        "c": VirtualService(ipv4="10.127.0.1", members=(ServiceMember(ipv4="10.1.2"),)),
        "d": VirtualService(ipv4="10.127.0.1", ipv6="fd7f::1", members=(ServiceMember(ipv4="10.1.2.1"),)),
    }
    found = problems(wrong, FRAME.ranges)
    assert [problem.path for problem in found] == ["services.a", "services.b", "services.c.members"]
    with pytest.raises(InvalidInput, match=r"10\.128\.0\.1"):
        refuse(found)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rr-3-7", "numgen inc mod 3 "),
        ("random-300", "numgen random mod 300 "),
        ("hash-2", "jhash ip saddr mod 2 seed"),
        ("sticky-2", "@known4"),
    ],
)
def test_chain_picks_by_its_method(name: str, words: str) -> None:
    texts = [rule.text for rule in pick_chain(name).rules]
    assert any(words in text for text in texts)
    assert sum("@pick4" in text for text in texts) == sum("@pick6" in text for text in texts) == 1


def test_script_makes_only_what_is_missing_or_differs() -> None:
    want = all_chains(FRAME, ("rr-2-1", "hash-3"))
    assert completing_script(want, comments(want)) == ""
    assert completing_script(want, {**comments(want), "rr-9-9": ("surplus",)}) == ""
    half = {**comments(want), "served": ()}
    script = completing_script(want, half)
    assert "flush chain inet flota_services served\n" in script
    assert "rr-2-1" not in script and "balance4" not in script
    whole = completing_script(want, {})
    assert whole.count("add chain") == len(want) == len(base_chains(FRAME)) + 2
