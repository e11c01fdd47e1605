"""Tree objects of a client that makes them up."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest

from model.contexttree import MAX_ENTRIES, MAX_GROUP, Entry, Tree, decode, encode, grouped, key_of
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


def test_names_of_one_file_are_numbered_by_content_and_first_path() -> None:
    names = [(b"d/z", "x", 1), (b"a", "x", 2), (b"e", "x", 1), (b"c", "x", 2), (b"b", "y", 3), (b"f", "y", 3)]
    expected = {b"a": 1, b"c": 1, b"d/z": 2, b"e": 2, b"b": 1, b"f": 1}
    assert grouped(names) == grouped(reversed(names)) == expected


def test_name_that_is_alone_has_no_number() -> None:
    assert grouped([(b"a", "x", 1), (b"b", "x", 2), (b"c", "y", 1)]) == {}


def test_names_of_one_file_count_in_the_key() -> None:
    apart = Tree(entries=(file(b"a"), file(b"b")))
    joined = Tree(entries=(file(b"a", group=1), file(b"b", group=1)))
    assert key_of(apart) != key_of(joined)
    assert [entry.same for entry in decode(encode(joined)).entries] == [joined.entries[0].same] * 2
    assert apart.entries[0].same is None


@pytest.mark.parametrize(
    "entry",
    [
        Entry(name=b"a", digest="sha256:" + "0" * 64, group=-1),
        Entry(name=b"a", digest="sha256:" + "0" * 64, group=MAX_GROUP),
        Entry(name=b"a", kind="fifo", group=1),
        Entry(name=b"a", kind="link", target=b"b", group=1),
    ],
)
def test_number_that_can_not_be_is_refused(entry: Entry) -> None:
    with pytest.raises(Damaged, match="says what can't be"):
        decode(encode(Tree(entries=(entry,))))


def file(name: bytes, group: int = 0) -> Entry:
    return Entry(name=name, digest="sha256:" + "0" * 64, group=group)
