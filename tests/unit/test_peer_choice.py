"""Pieces of a blob, which of them is asked of whom, and a whole exchange between hosts in turns."""

from __future__ import annotations

import itertools
import random

import pytest

from image.peers import chunks
from image.peers.choice import choose, in_turn
from image.peers.proof import holds, named, proof
from model.blobs import Ticket, read_ticket, to_sign, write_ticket
from model.errors import Damaged, Forbidden
from model.ids import HostId

MIB = 1 << 20
HOSTS = [HostId(f"{n:08x}".ljust(64, "0")) for n in range(8)]


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 10 * MIB + 7, 5000 * MIB, 1 << 40])
def test_pieces_of_a_blob_cover_it_once(size: int) -> None:
    spans = [chunks.span(n, size) for n in range(chunks.count(size))]
    assert sum(length for _, length in spans) == size and chunks.count(size) <= chunks.MOST
    assert all(a + n == b for (a, n), (b, _) in itertools.pairwise(spans))


def test_prefix_is_the_bytes_before_the_first_gap() -> None:
    size = 3 * MIB + 5
    have = [(0, 0), (0b1, MIB), (0b101, MIB), (0b111, 3 * MIB), (0b1111, size)]
    assert [chunks.prefix(bits, size) for bits, _ in have] == [length for _, length in have]
    assert chunks.within(2 * MIB + 1, size) == 0b11 and chunks.within(size, size) == 0b1111


@pytest.mark.parametrize("text", ["", "x", "-1", "10", "f" * 3000])
def test_a_set_that_is_none_of_this_blob_is_refused(text: str) -> None:
    with pytest.raises(Damaged):
        chunks.decode(text, 4 * MIB)
    assert chunks.decode(chunks.encode(0b1010), 4 * MIB) == 0b1010


def test_a_piece_on_its_way_is_asked_of_nobody_else() -> None:
    one, two, own = HOSTS[:3]
    offers = {one: 0b11, two: 0b11}
    first = choose(0b11, 0, offers, one, own)
    assert first is not None
    assert choose(0b11, 1 << first, offers, two, own) == 1 - first
    assert choose(0b11, 0b11, offers, two, own) is None


def test_a_piece_that_one_peer_has_is_left_to_whose_turn_it_is_until_it_is_overdue() -> None:
    source, one, two = HOSTS[:3]
    piece = next(n for n in range(99) if not in_turn(n, one, [two]))
    offers = {source: 1 << piece, two: 0}
    assert choose(1 << piece, 0, offers, source, one) is None
    assert choose(1 << piece, 0, offers, source, one, overdue=1 << piece) == piece
    assert choose(1 << piece, 0, {source: 1 << piece, one: 0}, source, two) == piece


@pytest.mark.parametrize("seed", range(5))
def test_hosts_that_exchange_a_blob_spare_the_one_that_has_it(seed: int) -> None:
    """In rounds: each host gets one piece of each peer, the source gets two more from outside. Seven hosts
    that all asked the source would ask for each piece seven times."""
    chance = random.Random(seed)
    size, getters = 64 * MIB, HOSTS[1:]
    every = chunks.every(size)
    have = dict.fromkeys(HOSTS, 0)
    given = dict.fromkeys(HOSTS, 0)
    rounds = 0
    while any(bits != every for bits in have.values()):
        rounds += 1
        assert rounds < 200
        have[HOSTS[0]] = chunks.within(rounds * 2 * MIB, size)
        before = dict(have)
        for own in chance.sample(getters, len(getters)):
            offers = {host: bits for host, bits in before.items() if host != own}
            asked = 0
            for peer in chance.sample(sorted(offers), len(offers)):
                piece = choose(every & ~have[own], asked, offers, peer, own)
                if piece is not None:
                    asked |= 1 << piece
                    have[own] |= 1 << piece
                    given[peer] += 1
    assert given[HOSTS[0]] <= 3 * 64
    assert max(given[host] for host in getters) <= 2 * 64
    assert rounds <= 40


def test_a_proof_is_of_one_manifest_and_one_host() -> None:
    shown = proof(b"manifest", HOSTS[0])
    assert named(shown).startswith("sha256:") and named("nonsense x") == ""
    assert holds(shown, b"manifest", HOSTS[0])
    assert not holds(shown, b"manifest", HOSTS[1])
    assert not holds(shown, b"another", HOSTS[0])
    assert not holds("", b"manifest", HOSTS[0])


@pytest.mark.parametrize("shown", ["", "x", "\udce9", f"sha256:{'0' * 64} \udcff"])
def test_what_is_no_proof_holds_for_nothing(shown: str) -> None:
    """Bytes that are no text come as lone surrogates out of a header."""
    assert not holds(shown, b"manifest", HOSTS[0])


def test_a_ticket_is_read_as_it_was_written() -> None:
    ticket = Ticket(host=HOSTS[0], certificate="ab" * 32, until=5.0, images=("sha256:x",))
    found, data, signature = read_ticket(write_ticket(ticket, b"signed"))
    assert (found, signature) == (ticket, b"signed") and data.startswith(to_sign(b""))


@pytest.mark.parametrize("text", ["", ".", "a.b", "e30=.e30=", "€.€"])
def test_a_ticket_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Forbidden):
        read_ticket(text)
