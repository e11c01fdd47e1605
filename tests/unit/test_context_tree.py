"""Tree objects of a client that makes them up."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest

from model.contexttree import MAX_ENTRIES, Entry, decode
from model.errors import Damaged


def test_tree_of_more_entries_than_may_be_costs_nothing() -> None:
    one = msgspec.msgpack.encode(Entry(name=b"a", kind="fifo"))
    data = b"\x81\xa7entries\xdd" + (MAX_ENTRIES + 1).to_bytes(4, "big") + one * (MAX_ENTRIES + 1)
    tracemalloc.start()
    try:
        with pytest.raises(Damaged, match=f"length <= {MAX_ENTRIES}"):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
