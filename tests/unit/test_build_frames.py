"""Frames of a build's connection, and what a host keeps for a client that does not read."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.build.outbox import OUTPUT, Outbox
from model.build import (
    FROM_CLIENT,
    FROM_HOST,
    MAX_FRAME,
    BuildRequest,
    Done,
    FromHost,
    Object,
    Scan,
    Start,
    StepBegan,
    StepEnded,
    StepMoved,
    StepSaid,
    Taken,
    Unframer,
    Want,
    pack,
)
from model.errors import InvalidInput

SOME = [
    Start(request=BuildRequest(dockerfile=b"FROM scratch\n", names=("a:1",))),
    Object(ask=3, digest="sha256:ab", data=b"x" * 1000, last=True),
    Taken(size=7),
]


@given(st.lists(st.sampled_from(SOME), max_size=6), st.lists(st.integers(0, 5000)))
def test_frames_however_cut_give_the_messages(messages: list[object], cuts: list[int]) -> None:
    data = b"".join(pack(m) for m in messages)  # type: ignore[arg-type]
    unframer, got = Unframer(FROM_CLIENT), []
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for begin, end in pairwise(places):
        got += unframer.feed(data[begin:end])
    assert got == messages and unframer.between


@pytest.mark.parametrize(
    "data",
    [
        (MAX_FRAME + 1).to_bytes(4, "big"),
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"\0\0\0\1\xc1",
        b"\0\0\0\1\x80",
        (9).to_bytes(4, "big") + msgspec.msgpack.encode({"type": "nosuch"})[:9],
        pack(Scan(ask=1)),
        (3).to_bytes(4, "big") + b"\x92\x01\x02",
        (1 << 20).to_bytes(4, "big") + b"\x91" * (1 << 20),
    ],
    ids=["too-large", "huge", "empty", "no-msgpack", "no-type", "unknown-type", "a-hosts", "no-map", "deep"],
)
def test_frame_that_is_none_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="malformed stream of a build"):
        Unframer(FROM_CLIENT).feed(data)


def test_message_that_is_too_large_is_not_sent() -> None:
    with pytest.raises(InvalidInput, match="are the most"):
        pack(Object(ask=1, digest="d", data=bytes(MAX_FRAME)))


def all_of(outbox: Outbox) -> list[FromHost]:
    return [outbox.take() for _ in range(len(outbox))]


def test_outbox_of_one_that_reads_gives_all_in_order() -> None:
    outbox = Outbox()
    said: list[FromHost] = [
        StepBegan(step=1, name="a"), StepSaid(step=1, data=b"x"), StepSaid(step=1, data=b"y"),
        StepEnded(step=1), Done(),
    ]  # fmt: skip
    for message in said:
        outbox.put(message)
    assert all_of(outbox) == said


def test_outbox_of_one_that_reads_no_more_keeps_a_bounded_part_and_counts_the_rest() -> None:
    outbox, line = Outbox(), b"z" * 1000
    for _ in range(10_000):
        outbox.put(StepSaid(step=1, data=line))
        outbox.put(StepSaid(step=2, data=line))
    outbox.put(StepEnded(step=1))
    told = all_of(outbox)
    kept = sum(len(m.data) for m in told if isinstance(m, StepSaid) and not m.stderr)
    gaps = {m.step: m.data for m in told if isinstance(m, StepSaid) and m.stderr}
    assert OUTPUT // 2 < kept <= OUTPUT
    assert set(gaps) == {1, 2}
    left_out = sum(int(data.split()[0].lstrip(b"[")) for data in gaps.values())
    assert kept + left_out == 20_000 * len(line)
    assert told[-1] == StepEnded(step=1)


def test_outbox_after_a_gap_goes_on_in_order() -> None:
    outbox = Outbox(output=200)
    for data in (b"a" * 100, b"b" * 100, b"c" * 100):
        outbox.put(StepSaid(step=1, data=data))
    first, gap = outbox.take(), outbox.take()
    outbox.put(StepSaid(step=1, data=b"d"))
    assert isinstance(first, StepSaid) and first.data == b"a" * 100
    assert isinstance(gap, StepSaid) and b"[200 bytes of output were left out" in gap.data
    assert outbox.take() == StepSaid(step=1, data=b"d")


def test_outbox_keeps_the_latest_word_of_a_movement() -> None:
    outbox = Outbox()
    for current in range(100_000):
        outbox.put(StepMoved(step=1, what="layer", current=current))
    assert all_of(outbox) == [StepMoved(step=1, what="layer", current=99_999)]


def test_outbox_never_leaves_out_what_the_protocol_needs() -> None:
    outbox = Outbox(output=10)
    digests = ("sha256:" + "0" * 64,) * 50
    wants: list[FromHost] = [Want(ask=n, context="", digests=digests) for n in range(100)]
    for want in wants:
        outbox.put(want)
    assert outbox.full and all_of(outbox) == wants and not outbox.full


def test_host_messages_are_read_by_a_client() -> None:
    message = Done(names=("a:1",), host="n1")
    assert Unframer(FROM_HOST).feed(pack(message)) == [message]
