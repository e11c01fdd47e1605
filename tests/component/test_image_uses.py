"""When images were used last: noted on disk while they are used."""

from __future__ import annotations

from pathlib import Path

from image.uses import Uses


def test_image_used_while_the_times_are_written_keeps_its_time(tmp_path: Path) -> None:
    uses = Uses(tmp_path / "used.json")
    uses.used("a", 5)
    uses.used("gone", 5)
    noted = uses.noted({"a", "b"}, 6)
    uses.used("b", 7)  # the loop goes on while a thread writes
    uses.write(noted)
    assert (uses.last("b", 0, 9), uses.last("gone", 0, 9)) == (7, 0)
    again = Uses(tmp_path / "used.json")
    again.open()
    assert (again.last("a", 0, 9), again.last("b", 0, 9)) == (5, 0)
