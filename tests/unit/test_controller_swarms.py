"""Who is sent where for a blob: one host outside at a time, the others to those that have it or get it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.swarms import LEASE, MOST_PEERS, Claim, Place, Swarms, answer
from model.blobs import BlobPeers, BlobWord
from model.ids import HostId

BLOB = "sha256:" + "0" * 64
HOSTS = [HostId(f"{n:x}" * 64) for n in range(12)]
PLACES = {host: Place(address=f"10.0.0.{n}", port=7421) for n, host in enumerate(HOSTS)}
WANTED = BlobWord(digest=BLOB)


def said(state: str) -> BlobWord:
    return BlobWord(digest=BLOB, state=state)  # type: ignore[arg-type]


def named(reply: BlobPeers) -> list[HostId]:
    return [peer.host for peer in reply.peers]


def test_the_first_goes_outside_and_the_next_goes_to_it() -> None:
    swarms = Swarms()
    first = swarms.answer(HOSTS[0], WANTED, PLACES, 0.0)
    assert first.outside and not first.peers
    second = swarms.answer(HOSTS[1], WANTED, PLACES, 0.1)
    assert not second.outside and named(second) == [HOSTS[0]] and not second.peers[0].whole
    third = swarms.answer(HOSTS[2], WANTED, PLACES, 0.2)
    assert named(third) == [HOSTS[0], HOSTS[1]], "who fetches it stands first"


def test_nobody_goes_outside_for_what_a_host_has_whole() -> None:
    swarms = Swarms()
    swarms.told(HOSTS[3], [BLOB])
    reply = swarms.answer(HOSTS[0], WANTED, PLACES, 0.0)
    assert not reply.outside and [(p.host, p.whole) for p in reply.peers] == [(HOSTS[3], True)]
    swarms.told(HOSTS[3], [])
    assert swarms.answer(HOSTS[1], WANTED, PLACES, LEASE + 1).outside


def test_who_has_a_steps_result_is_told_and_nobody_is_sent_for_it() -> None:
    swarms = Swarms()
    word = BlobWord(digest=BLOB, record=True)
    assert swarms.having(HOSTS[0], word, PLACES) == BlobPeers()
    for holder in (0, 2, 5, 11):
        swarms.told(HOSTS[holder], [BLOB])
    assert named(swarms.having(HOSTS[2], word, PLACES)) == [HOSTS[5], HOSTS[11], HOSTS[0]]
    less = BlobWord(digest=BLOB, record=True, without=(HOSTS[5],))
    assert named(swarms.having(HOSTS[2], less, PLACES)) == [HOSTS[11], HOSTS[0]]
    swarms.forget(HOSTS[5])
    assert HOSTS[5] not in named(swarms.having(HOSTS[2], word, PLACES))
    assert HOSTS[0] not in named(swarms.having(HOSTS[2], word, {HOSTS[11]: PLACES[HOSTS[11]]}))


def test_who_fetches_and_falls_silent_is_replaced_after_its_lease() -> None:
    swarms = Swarms()
    swarms.answer(HOSTS[0], WANTED, PLACES, 0.0)
    swarms.answer(HOSTS[0], said("fetching"), PLACES, 10.0)
    assert not swarms.answer(HOSTS[1], WANTED, PLACES, LEASE + 5).outside
    assert swarms.answer(HOSTS[1], WANTED, PLACES, LEASE + 10.1).outside


def test_who_gives_up_is_replaced_at_once() -> None:
    swarms = Swarms()
    swarms.answer(HOSTS[0], WANTED, PLACES, 0.0)
    swarms.answer(HOSTS[0], said("given_up"), PLACES, 1.0)
    assert swarms.answer(HOSTS[1], WANTED, PLACES, 1.1).outside


def test_who_fetches_what_it_reported_once_is_followed_and_not_taken_to_have_it_whole() -> None:
    """It has removed the image, and tells that with its next report."""
    swarms = Swarms()
    swarms.told(HOSTS[0], [BLOB])
    assert swarms.answer(HOSTS[0], WANTED, PLACES, 0.0).outside
    reply = swarms.answer(HOSTS[1], WANTED, PLACES, 0.1)
    assert not reply.outside and [(p.host, p.whole) for p in reply.peers] == [(HOSTS[0], False)]


def test_who_has_got_it_is_named_before_it_reports() -> None:
    swarms = Swarms()
    swarms.answer(HOSTS[0], said("here"), PLACES, 0.0)
    reply = swarms.answer(HOSTS[1], WANTED, PLACES, 1.0)
    assert [(p.host, p.whole) for p in reply.peers] == [(HOSTS[0], True)]


def test_a_host_that_gave_nothing_is_not_waited_for() -> None:
    swarms = Swarms()
    swarms.answer(HOSTS[0], WANTED, PLACES, 0.0)
    word = BlobWord(digest=BLOB, without=(HOSTS[0],))
    assert swarms.answer(HOSTS[1], word, PLACES, 1.0).outside


def test_a_host_that_cannot_be_reached_counts_for_nobody() -> None:
    swarms = Swarms()
    near = {host: place for host, place in PLACES.items() if host != HOSTS[0]}
    swarms.told(HOSTS[0], [BLOB])
    assert swarms.answer(HOSTS[0], WANTED, near, 0.0).outside
    assert swarms.answer(HOSTS[1], WANTED, near, 0.1).outside


STATES = st.sampled_from(["wanted", "fetching", "here", "given_up"])
WORDS = st.tuples(st.integers(0, 11), STATES, st.floats(0, 6), st.sets(st.integers(0, 11), max_size=3))


@given(st.lists(WORDS, max_size=40), st.sets(st.integers(0, 11), max_size=2))
def test_whatever_is_said_two_are_never_outside_for_each_other(
    words: list[tuple[int, str, float, set[int]]], having: set[int]
) -> None:
    """But for those whom somebody would not wait for; and nobody is named to itself, or beyond the bound."""
    now, swarm = 0.0, {}
    holders = [HOSTS[n] for n in having]
    for number, state, after, without in words:
        now += after
        asker = HOSTS[number]
        word = BlobWord(digest=BLOB, state=state, without=tuple(HOSTS[n] for n in without))  # type: ignore[arg-type]
        before = {h for h, c in swarm.items() if c.until > now and c.outside and h != asker}
        swarm, reply = answer(swarm, asker, word, holders, PLACES, now)
        if state != "wanted":
            assert reply == BlobPeers()
            continue
        assert reply.outside or reply.peers
        assert asker not in named(reply) and len(reply.peers) <= MOST_PEERS
        assert not {HOSTS[n] for n in without} & set(named(reply))
        if reply.outside:
            assert before <= set(word.without)
            assert swarm[asker] == Claim(until=now + LEASE, outside=True)


@pytest.mark.parametrize("count", [2, 12])
def test_many_hosts_are_named_different_ones(count: int) -> None:
    swarms = Swarms()
    for host in HOSTS[:count]:
        swarms.told(host, [BLOB])
    first = {named(swarms.answer(asker, WANTED, PLACES, 0.0))[0] for asker in HOSTS[:count]}
    assert len(first) == count
