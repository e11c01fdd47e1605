"""Who keeps copies of the registry, what each does next: tables and a simulation of what hosts make of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.copyplan import BELIEVED, LATER, PATIENCE, SOON, Content, Holder, chosen, news, orders, whole

NOW = 10_000.0
CONTENT = Content(lineage="l", generation=7, known={"l": 7}, held={"a": 10, "b": 20, "c": 5})


def holder(ident: str, have: str = "", *, generation: int = 7, fit: bool = True, ago: float = 1.0) -> Holder:
    return Holder(
        id=ident,
        name=ident,
        fit=fit,
        heard=NOW - ago,
        have=frozenset(have),
        lineage="l" if have else "",
        generation=generation if have else 0,
    )


@pytest.mark.parametrize(
    ("holders", "number", "found"),
    [
        ([], 2, ()),
        ([holder("1"), holder("2"), holder("3")], 2, ("1", "2")),
        ([holder("1"), holder("2"), holder("3")], 0, ()),
        ([holder("1"), holder("2", "ab"), holder("3", "c")], 2, ("2", "3")),
        ([holder("1"), holder("2", "abc", fit=False), holder("3")], 2, ("1", "3")),
        ([holder("1"), holder("2", "abc", ago=PATIENCE - 1)], 1, ("2",)),
        ([holder("1"), replace(holder("2", "ab"), full=True), holder("3", "a")], 2, ("3", "1")),
        ([holder("1"), replace(holder("2", "ab"), full=True)], 2, ("1", "2")),
        ([holder("1"), holder("2", "abc", ago=PATIENCE + 1)], 1, ("1",)),
    ],
)
def test_hosts_that_have_most_are_chosen(holders: list[Holder], number: int, found: tuple[str, ...]) -> None:
    assert chosen(holders, CONTENT, number, NOW) == found


def test_chosen_host_fetches_what_it_lacks_and_the_state() -> None:
    found = orders("1", [holder("1", "a", generation=6)], CONTENT, 2, NOW)
    assert (found.fetch, found.fetch_index, found.wait) == ({"b": 20, "c": 5}, True, 0.0)


def test_chosen_host_that_has_all_only_asks_again() -> None:
    found = orders("1", [holder("1", "abc")], CONTENT, 2, NOW)
    assert (found.fetch, found.fetch_index, found.drop, found.send, found.wait) == ({}, False, (), (), SOON)
    assert whole(holder("1", "abc"), CONTENT) and not whole(holder("1", "ab"), CONTENT)
    assert not whole(holder("1", "abc", generation=6), CONTENT)


def test_host_drops_what_nobody_holds_any_more() -> None:
    assert orders("1", [holder("1", "abcx")], CONTENT, 2, NOW).drop == ("x",)


def test_nothing_is_dropped_while_any_host_has_a_state_that_is_not_here() -> None:
    others = holder("2", "x", generation=9)
    assert orders("1", [holder("1", "abcx"), others], CONTENT, 2, NOW).drop == ()
    assert orders("2", [holder("1", "abcx"), others], CONTENT, 2, NOW).send_index


@pytest.mark.parametrize(("since", "dropped"), [(BELIEVED - 1, ()), (BELIEVED + 1, ("x",))])
def test_state_that_never_comes_keeps_garbage_for_a_time_only(since: float, dropped: tuple[str, ...]) -> None:
    now = NOW + BELIEVED
    liar = replace(holder("2", "x", generation=9), claims=now - since)
    assert orders("1", [holder("1", "abcx"), liar], CONTENT, 2, now).drop == dropped
    assert orders("2", [holder("1", "abcx"), liar], CONTENT, 2, now).send_index


def test_lost_blob_is_sent_by_the_first_that_has_it_and_dropped_by_nobody() -> None:
    content = replace(CONTENT, held={"a": 10}, lost={"b": 20, "c": 5})
    hosts = [holder("1", "ab"), holder("2", "abc"), holder("3", "c", ago=LATER * 4)]
    assert [orders(h.id, hosts, content, 2, NOW).send for h in hosts] == [("b",), ("c",), ("c",)]
    assert all(not orders(h.id, hosts, content, 2, NOW).drop for h in hosts)


def test_host_that_never_sends_what_is_lost_is_not_the_first_for_good() -> None:
    content = replace(CONTENT, held={"a": 10}, lost={"b": 20})
    later = NOW + PATIENCE
    hosts = [replace(holder(ident, "ab"), heard=later) for ident in "12"]
    assert [orders(h.id, hosts, content, 2, later).send for h in hosts] == [(), ("b",)]


def test_host_that_is_no_longer_chosen_drops_only_what_enough_others_have() -> None:
    full, half, late = holder("1", "abc"), holder("2", "abc"), holder("3", "a")
    assert orders("3", [full, half, late], CONTENT, 2, NOW).drop == ("a",)
    behind = [holder("1", "bc"), holder("2", "bc"), holder("3", "a")]
    assert orders("3", behind, CONTENT, 2, NOW).drop == ()
    assert orders("3", [full, late], CONTENT, 2, NOW).drop == ()  # it is chosen itself


@pytest.mark.parametrize(
    ("lineage", "generation", "found"),
    [
        ("", 0, False),
        ("l", 7, False),
        ("l", 8, True),
        ("l", 6, False),
        ("x", 1, True),
        ("k", 9, False),
        ("k", 10, True),
    ],
)
def test_state_is_news_where_it_is_newer_or_of_a_lineage_not_known(
    lineage: str, generation: int, found: bool
) -> None:
    content = replace(CONTENT, known={"l": 7, "k": 9})
    assert news(replace(holder("1", "a"), lineage=lineage, generation=generation), content) is found


def obeyed(hosts: Sequence[Holder], content: Content, number: int) -> tuple[list[Holder], Content]:
    """One round of all hosts that are there, each doing what it is told."""
    done = list(hosts)
    for at, host in enumerate(done):
        told = orders(host.id, done, content, number, NOW)
        have = (host.have | told.fetch.keys()) - set(told.drop)
        back = {digest: content.lost[digest] for digest in told.send}
        left = {digest: size for digest, size in content.lost.items() if digest not in back}
        content = replace(content, held={**content.held, **back}, lost=left)
        state = (content.lineage, content.generation) if told.fetch_index else (host.lineage, host.generation)
        done[at] = replace(host, have=have, lineage=state[0], generation=state[1])
    return done, content


digests = st.frozensets(st.sampled_from("abcdefgh"))


@given(st.lists(digests, min_size=3, max_size=6), digests, digests, st.integers(min_value=1, max_value=3))
def test_rounds_end_with_the_wanted_number_of_whole_copies_and_lose_nothing(
    have: list[frozenset[str]], held: frozenset[str], lost: frozenset[str], number: int
) -> None:
    content = replace(CONTENT, held=dict.fromkeys(held, 1), lost=dict.fromkeys(lost - held, 1))
    hosts = [replace(holder(str(n)), have=h, lineage="l", generation=7) for n, h in enumerate(have)]
    recoverable = content.lost.keys() & frozenset().union(*have)
    for _ in range(6):
        hosts, content = obeyed(hosts, content, number)
    assert recoverable <= content.held.keys() and not content.lost.keys() & recoverable
    assert sum(whole(host, content) for host in hosts) == number or not content.held
    assert all(host.have <= content.held.keys() for host in hosts)
