"""The seal of a backup: opens with its passphrase alone, and shows every change."""

from __future__ import annotations

import pytest

from controller.backup.seal import CHUNK, HEADER, MAGIC, TAG, seal, sealed, unseal
from model.errors import Damaged, FlotaError, InvalidInput, Unauthenticated

PHRASE = b"correct horse"
CHEAP = (4, 1, 1)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_seal_of_any_length_opens_to_the_same_bytes(size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    assert unseal(seal(data, PHRASE, CHEAP), PHRASE) == data


def test_seal_twice_gives_other_bytes_and_shows_nothing() -> None:
    data = b"-----BEGIN PRIVATE KEY-----"
    first, second = seal(data, PHRASE, CHEAP), seal(data, PHRASE, CHEAP)
    assert sealed(first) and not sealed(data)
    assert first != second and data not in first


def test_seal_by_default_costs_what_owasp_asks_for() -> None:
    made = seal(b"x", PHRASE)
    assert tuple(made[len(MAGIC) : len(MAGIC) + 3]) == (17, 8, 1)
    assert unseal(made, PHRASE) == b"x"


def test_seal_with_another_passphrase_does_not_open() -> None:
    with pytest.raises(Unauthenticated, match="passphrase"):
        unseal(seal(b"x", PHRASE, CHEAP), b"another horse")


def test_seal_with_a_short_passphrase_is_refused() -> None:
    with pytest.raises(InvalidInput, match="fewer than 8"):
        seal(b"x", b"short", CHEAP)


def test_seal_of_which_any_byte_was_changed_does_not_open() -> None:
    made = seal(bytes(3 * CHUNK), PHRASE, CHEAP)
    places = [0, len(MAGIC), len(MAGIC) + 5, HEADER - 1, HEADER, HEADER + CHUNK + TAG + 7, len(made) - 1]
    for at in places:
        broken = bytearray(made)
        broken[at] ^= 1
        with pytest.raises(FlotaError):
            unseal(bytes(broken), PHRASE)


def test_seal_whose_chunks_are_cut_off_doubled_or_moved_does_not_open() -> None:
    made = seal(bytes(2 * CHUNK) + b"end", PHRASE, CHEAP)
    head, step = made[:HEADER], CHUNK + TAG
    one, two, three = (made[HEADER + n * step : HEADER + (n + 1) * step] for n in range(3))
    for broken in (head + one + two, head + one, head + two + one + three, head + one + one + two + three):
        with pytest.raises(FlotaError):
            unseal(broken, PHRASE)
    for end in range(HEADER + TAG):
        with pytest.raises(FlotaError):
            unseal(made[:end], PHRASE)


def test_seal_that_asks_for_endless_work_is_refused_before_any() -> None:
    made = bytearray(seal(b"x", PHRASE, CHEAP))
    made[len(MAGIC)] = 40
    with pytest.raises(Damaged, match="too much work"):
        unseal(bytes(made), PHRASE)
