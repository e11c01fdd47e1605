"""A state file as its two sides see it: told whole, then by lines, never half; read on where it grew."""

from __future__ import annotations

from pathlib import Path

import pytest

from net.supervise.feed import LEAST, StateFeed
from net.supervise.files import SERVED, STATE, Mark, mark_of
from net.supervise.place import Place


def feed_of(folder: Path) -> StateFeed:
    return StateFeed(str(folder), group=0, what="words")


class Reader:
    """Keeps what it was given: whole states, and lines."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(str(folder), "1")
        self.whole: list[bytes] = []
        self.lines: list[bytes] = []

    def look(self) -> None:
        self.place.look(self.whole.append, self.lines.append)


def test_lines_are_appended_until_they_outweigh_the_state(tmp_path: Path) -> None:
    feed, path, files, said = feed_of(tmp_path), tmp_path / STATE, set[int](), b"base\n"
    feed.update(said)
    largest = 0
    for number in range(20_000):
        line = b"line %d\n" % number
        said += line
        if not feed.extend(line):
            said = b"base %d\n" % number
            feed.update(said)
        files.add(path.stat().st_ino)
        largest = max(largest, path.stat().st_size)
    assert path.read_bytes() == said == feed.data and 1 < len(files) < 10 and largest < 2 * LEAST


def test_next_writer_goes_on_with_the_file(tmp_path: Path) -> None:
    feed_of(tmp_path).update(b"base\n")
    inode = (tmp_path / STATE).stat().st_ino
    assert feed_of(tmp_path).extend(b"one\n") and feed_of(tmp_path).extend(b"two\n")
    assert (tmp_path / STATE).read_bytes() == b"base\none\ntwo\n"
    assert (tmp_path / STATE).stat().st_ino == inode


@pytest.mark.parametrize("left", [b"", b"base", b"base\nhal"])
def test_file_that_ends_within_a_line_is_told_anew(tmp_path: Path, left: bytes) -> None:
    (tmp_path / STATE).write_bytes(left)
    assert not feed_of(tmp_path).extend(b"one\n")


def test_file_that_another_made_or_took_away_is_written_whole(tmp_path: Path) -> None:
    feed, path = feed_of(tmp_path), tmp_path / STATE
    feed.update(b"base\n")
    path.unlink()
    assert feed.extend(b"one\n") and path.read_bytes() == b"base\none\n"
    path.write_bytes(b"x")
    assert feed.extend(b"two\n") and path.read_bytes() == b"base\none\ntwo\n"


def test_reader_gets_lines_alone_and_whole_states_when_the_file_is_another(tmp_path: Path) -> None:
    feed, reader = feed_of(tmp_path), Reader(tmp_path)
    reader.look()
    assert not reader.whole
    feed.update(b"base\n")
    feed.extend(b"one\n")
    reader.look()
    assert reader.whole == [b"base\none\n"] and not reader.lines
    feed.extend(b"two\n")
    feed.extend(b"three\n")
    reader.look()
    reader.look()
    assert reader.lines == [b"two\nthree\n"]
    with open(tmp_path / STATE, "ab") as file:
        file.write(b"fo")
        file.flush()
        reader.look()
        assert len(reader.lines) == 1, "a line counts once its end is there"
        file.write(b"ur\n")
    reader.look()
    assert reader.lines[1:] == [b"four\n"]
    feed.update(b"other\n")
    reader.look()
    assert reader.whole[1:] == [b"other\n"]
    reader.place.close()


def test_reader_that_refused_a_line_looks_at_no_more_of_them(tmp_path: Path) -> None:
    feed, place = feed_of(tmp_path), Place(str(tmp_path), "1")
    seen: list[bytes] = []

    def refuse(lines: bytes) -> None:
        raise ValueError(lines.decode().strip())

    feed.update(b"base\n")
    place.look(seen.append, refuse)
    feed.extend(b"bad\n")
    place.look(seen.append, refuse)
    feed.extend(b"good\n")
    place.look(seen.append, seen.append)
    assert seen == [b"base\n"]
    feed.update(b"new\n")
    place.look(seen.append, seen.append)
    assert seen == [b"base\n", b"new\n"]
    place.close()


def test_state_that_could_not_be_read_is_read_at_the_next_look(tmp_path: Path) -> None:
    feed, reader = feed_of(tmp_path), Reader(tmp_path)
    feed.update(b"base\n")
    reader.look()
    (tmp_path / STATE).unlink()
    (tmp_path / STATE).symlink_to(STATE)
    reader.look()
    reader.place.tell()
    assert b"refused" in (tmp_path / SERVED).read_bytes()
    (tmp_path / STATE).unlink()
    assert feed.extend(b"one\n")
    reader.look()
    assert reader.whole == [b"base\n", b"base\none\n"] and not reader.lines
    reader.place.tell()
    assert b"refused" not in (tmp_path / SERVED).read_bytes()
    reader.place.close()


def test_marks_tell_how_far_one_has_come_in_which_file() -> None:
    early, late, other = mark_of(b"a\nb\n"), mark_of(b"a\nb\nc\nhalf"), mark_of(b"x\nb\n")
    assert late.reaches(early) and not early.reaches(late) and not other.reaches(early)
    assert late.size == 6 and mark_of(b"whole").size == 5 and not Mark().reaches(early)
