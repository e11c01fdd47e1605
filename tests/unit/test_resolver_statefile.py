"""The resolver's state over a file that grows: differences as lines behind a whole state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InvalidInput
from net.resolver import statefile
from net.resolver.change import apply, diff
from net.resolver.state import Client, ResolverState, Zone

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


@given(STATES, st.lists(STATES, max_size=4))
def test_file_that_grew_says_what_was_last_put(first: ResolverState, later: list[ResolverState]) -> None:
    data, seen, before = statefile.whole(first), first, first
    assert data.count(b"\n") == 1
    for state in later:
        line = statefile.line(diff(before, state))
        data, seen, before = data + line, statefile.read_on(seen, line), state
    assert seen == before == statefile.read(data)


@pytest.mark.parametrize("bad", [b"nonsense\n", b"\n", b'{"zones": {"n": 7}}\n', b"\xff\n"])
def test_line_that_makes_no_sense_is_refused(bad: bytes) -> None:
    good = statefile.whole(ResolverState(clients={"10.1.0.1": Client()}))
    assert statefile.read(good).clients
    for data in (good + bad, bad + good, bad):
        with pytest.raises(InvalidInput):
            statefile.read(data)


def test_change_of_a_newer_agent_is_understood() -> None:
    line = b'{"later":1,"zones":{"n":{"network":"n","names":{"a":["10.1.0.1"]},"more":{}}}}\n'
    seen = statefile.read(statefile.whole(ResolverState()) + line)
    assert seen.zones["n"].names == {"a": ("10.1.0.1",)}
