"""The heads of HTTP/2's frames: honest peers pass in any pieces, floods of every kind are cut off."""

from __future__ import annotations

import h2.config
import h2.connection
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.docker.buildkit.frameguard import (
    FRAME,
    MOST_HEADERS,
    MOST_IDLE,
    MOST_RESETS,
    FrameGuard,
)
from model.errors import Exhausted

DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, WINDOW, CONTINUATION, UNKNOWN = 0, 1, 2, 3, 4, 6, 8, 9, 99


def frame(kind: int, payload: bytes = b"", stream: int = 1, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, 0)) + stream.to_bytes(4, "big") + payload


def conversation() -> bytes:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    client.send_headers(1, [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "x")])
    client.send_data(1, b"x" * 16_000)
    client.send_data(1, b"", end_stream=True)
    client.ping(b"12345678")
    return client.data_to_send()


@given(cut=st.integers(1, 40))
def test_honest_peer_passes_in_pieces_of_any_size(cut: int) -> None:
    guard, data = FrameGuard(24), conversation()
    for at in range(0, len(data), cut):
        guard.feed(data[at : at + cut])
    with pytest.raises(Exhausted):  # it still knows where frames begin
        guard.feed(frame(DATA, length=FRAME + 1))


@pytest.mark.parametrize("kind", [DATA, HEADERS, SETTINGS, UNKNOWN])
def test_frame_too_long_is_refused_by_its_head(kind: int) -> None:
    with pytest.raises(Exhausted, match="are the most"):
        FrameGuard().feed(frame(kind, length=(1 << 24) - 1))


def test_headers_without_an_end_are_refused_before_they_are_kept() -> None:
    guard, part = FrameGuard(), b"x" * 16_000
    guard.feed(frame(HEADERS, part))
    with pytest.raises(Exhausted, match="headers of"):
        for _ in range(1 + MOST_HEADERS // len(part)):
            guard.feed(frame(CONTINUATION, part))


@pytest.mark.parametrize("kind", [PRIORITY, SETTINGS, PING, WINDOW, UNKNOWN, DATA])
def test_flood_of_frames_that_bring_nothing_is_cut_off(kind: int) -> None:
    guard, one = FrameGuard(), frame(kind, b"" if kind == DATA else b"12345678")
    guard.feed(one * MOST_IDLE)
    with pytest.raises(Exhausted, match="bring nothing"):
        guard.feed(one)


def test_frames_between_data_of_either_way_are_no_flood() -> None:
    guard = FrameGuard()
    for _ in range(3):
        guard.feed(frame(PING, b"12345678") * MOST_IDLE)
        guard.feed(frame(DATA, b"x"))
        guard.feed(frame(WINDOW, b"1234") * MOST_IDLE)
        guard.moved()


def test_peer_that_gives_up_streams_without_end_is_cut_off() -> None:
    guard, one = FrameGuard(), frame(HEADERS, b"x") + frame(RESET, b"1234")
    guard.feed(one * MOST_RESETS)
    with pytest.raises(Exhausted, match="gives up"):
        guard.feed(one)
