"""The resolver's state over a file that grows: differences, lines, and how far one has read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from net.resolver import statefile
from net.resolver.change import ZoneChange, apply, diff
from net.resolver.state import Client, ResolverState, Zone
from net.resolver.statefile import Mark, Reading

TEXT = st.sampled_from(["a", "b", "web", "10.1.0.1", "ü\n"])
MANY = st.lists(TEXT, max_size=2).map(tuple)
ZONES = st.builds(
    Zone,
    network=TEXT,
    listen=MANY,
    ranges=MANY,
    names=st.dictionaries(TEXT, MANY, max_size=4),
    tasks=st.dictionaries(TEXT, MANY, max_size=4),
    reverse=st.dictionaries(TEXT, TEXT, max_size=4),
)
CLIENTS = st.builds(Client, zones=MANY, upstreams=MANY, outside=st.booleans())
STATES = st.builds(
    ResolverState,
    zones=st.dictionaries(TEXT, ZONES, max_size=3),
    clients=st.dictionaries(TEXT, CLIENTS, max_size=3),
)


@given(STATES, STATES)
def test_difference_applied_is_the_other_state(old: ResolverState, new: ResolverState) -> None:
    change = diff(old, new)
    assert apply(change, old) == new and change.empty == (old == new)


@given(STATES, st.lists(STATES, max_size=4), st.integers(1, 200))
def test_file_read_in_pieces_says_what_was_last_put(
    first: ResolverState, later: list[ResolverState], piece: int
) -> None:
    data, _ = statefile.whole(first)
    reading, before, grown = statefile.read(data), first, b""
    for state in later:
        grown += statefile.line(diff(before, state))
        before = state
    for at in range(0, len(grown), piece):
        seen = reading.mark.size - len(data)
        reading = statefile.read_on(reading, grown[seen : at + piece])
    assert reading.state == before and reading == statefile.read(data + grown)
    assert reading.mark.size == len(data + grown)


def test_line_without_its_end_does_not_count() -> None:
    one, two = ResolverState(), ResolverState(clients={"10.1.0.1": Client()})
    data, mark = statefile.whole(one)
    line = statefile.line(diff(one, two))
    half = statefile.read(data + line[:-1])
    assert half.state == one and half.mark == mark
    whole = statefile.read_on(half, line)
    assert whole.state == two and whole.mark.reaches(mark) and not mark.reaches(whole.mark)


@pytest.mark.parametrize("bad", [b"nonsense\n", b"\n", b'{"zones": {"n": 7}}\n', b"\xff\n"])
def test_line_that_makes_no_sense_ends_what_is_believed(bad: bytes) -> None:
    one, two = ResolverState(), ResolverState(clients={"10.1.0.1": Client()})
    data, _ = statefile.whole(one)
    read = statefile.read(data + bad + statefile.line(diff(one, two)))
    assert read.refused and read.state == one
    assert statefile.read_on(read, statefile.line(diff(one, two))).refused == read.refused


def test_file_of_nothing_is_refused_and_marks_of_other_files_are_never_reached() -> None:
    assert statefile.read(b"").refused and statefile.read(b"{").refused
    one, two = statefile.whole(ResolverState())[1], statefile.whole(ResolverState(clients={"x": Client()}))[1]
    assert not one.reaches(two) and not two.reaches(one) and not Mark().reaches(one)
    assert Reading().mark == Mark()


def test_change_of_a_newer_agent_is_understood() -> None:
    data, _ = statefile.whole(ResolverState())
    line = b'{"later":1,"zones":{"n":{"network":"n","names":{"a":["10.1.0.1"]},"more":{}}}}\n'
    assert statefile.read(data + line).state.zones["n"].names == {"a": ("10.1.0.1",)}
    assert ZoneChange(network="n").names == {}
