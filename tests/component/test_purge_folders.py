"""What `flota down --purge` leaves in this host's folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.commands.daemons import _empty, down


def state(folder: Path) -> Path:
    data = folder / "agent" / "volumes" / "data" / "_data"
    data.mkdir(parents=True)
    (data / "file").write_text("mine")
    (folder / "agent" / "images").mkdir()
    (folder / "agent" / "images" / "blob").touch()
    (folder / "agent" / "link").symlink_to(folder / "agent" / "images")
    (folder / "agent" / "enrollment.json").touch()
    (folder / "settings.json").touch()
    (folder / "somebody's").touch()
    return data


def test_volumes_that_are_kept_are_all_that_stays_of_ours(tmp_path: Path) -> None:
    data = state(tmp_path)
    _empty(str(tmp_path), str(tmp_path / "agent" / "volumes"))
    assert (data / "file").read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "agent").iterdir()) == ["volumes"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent", "somebody's"]


def test_purge_takes_volumes_too_where_nothing_else_is_said(tmp_path: Path) -> None:
    state(tmp_path)
    _empty(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["somebody's"]


@pytest.mark.parametrize("words", [["--keep-volumes"]])
def test_volumes_can_not_be_kept_of_nothing(words: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(down, [*words, "--root", str(tmp_path), "--run", str(tmp_path)])
    assert done.exit_code and "is about a purge" in str(done.exception)
