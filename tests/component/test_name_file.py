"""The file that a resolver serves, as its writer leaves it: appended to, begun anew, never half."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.namefile import LEAST, NameFile
from net.resolver import statefile
from net.resolver.serve import STATE
from net.resolver.state import ResolverState, Zone


def state(number: int, count: int = 3) -> ResolverState:
    names = {
        f"n{i}": (f"10.1.{number % 256}.{i % 256}",) if i == number % count else () for i in range(count)
    }
    return ResolverState(zones={"z": Zone(network="z", names=names)})


def said(folder: Path) -> ResolverState:
    return statefile.read((folder / STATE).read_bytes()).state


def test_changes_are_appended_until_they_outweigh_the_state(tmp_path: Path) -> None:
    file, path, begun = NameFile(tmp_path), tmp_path / STATE, set[int]()
    largest = 0
    for number in range(3000):
        file.put(state(number))
        begun.add(path.stat().st_ino)
        largest = max(largest, path.stat().st_size)
    assert said(tmp_path) == state(2999) and file.mark.size == path.stat().st_size
    assert 1 < len(begun) < 10 and largest < 2 * LEAST


def test_equal_state_writes_nothing(tmp_path: Path) -> None:
    file = NameFile(tmp_path)
    file.put(state(1))
    before = (tmp_path / STATE).stat().st_mtime_ns
    file.put(state(1))
    assert (tmp_path / STATE).stat().st_mtime_ns == before


def test_next_writer_goes_on_with_the_file(tmp_path: Path) -> None:
    one = NameFile(tmp_path)
    one.put(state(1, 100))
    one.put(state(2, 100))
    inode = (tmp_path / STATE).stat().st_ino
    two = NameFile(tmp_path)
    assert two.adopt() and two.mark == one.mark
    two.put(state(3, 100))
    assert (tmp_path / STATE).stat().st_ino == inode and said(tmp_path) == state(3, 100)


@pytest.mark.parametrize("damage", [b"", b"x", b'{"zones":{}}', b"{}\nnonsense\n", b'{}\n{"zones"'])
def test_damaged_file_is_not_gone_on_with(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / STATE).write_bytes(damage)
    file = NameFile(tmp_path)
    assert not file.adopt()
    file.put(state(1))
    assert said(tmp_path) == state(1)


def test_file_that_another_made_or_took_away_is_written_whole(tmp_path: Path) -> None:
    file = NameFile(tmp_path)
    file.put(state(1))
    (tmp_path / STATE).unlink()
    file.put(state(2))
    assert said(tmp_path) == state(2)
    (tmp_path / STATE).write_bytes(b"{}\n")
    file.put(state(3))
    assert said(tmp_path) == state(3)


def test_write_that_failed_is_made_good_by_the_next(tmp_path: Path) -> None:
    file, aside = NameFile(tmp_path), tmp_path / f"{STATE}.new"
    aside.mkdir()
    with pytest.raises(OSError):
        file.put(state(1))
    aside.rmdir()
    file.put(state(1))
    assert said(tmp_path) == state(1)
