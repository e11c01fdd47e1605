"""Daemons that tests start: what of them is told, and that none is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemons import daemon


def test_daemon_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    argv = ["sh", "-c", "echo the disk is full >&2; exit 3"]
    with (
        pytest.raises(AssertionError, match=r"(?s)sh ended with 3.*the disk is full"),
        daemon(argv, tmp_path / "log", lambda: False, start=30),
    ):
        pass


def test_daemon_that_never_answers_is_told_with_its_last_words_and_ended(tmp_path: Path) -> None:
    argv = ["sh", "-c", f"echo $$ >{tmp_path}/pid; echo waiting; exec sleep 1000"]
    with (
        pytest.raises(AssertionError, match=r"(?s)not within 0.5 s.*waiting"),
        daemon(argv, tmp_path / "log", lambda: False, start=0.5),
    ):
        pass
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_daemon_that_does_not_end_is_killed(tmp_path: Path) -> None:
    argv = ["sh", "-c", f"trap '' TERM; touch {tmp_path}/up; while :; do sleep 0.1; done"]
    with daemon(argv, tmp_path / "log", (tmp_path / "up").exists, start=30, end=0.3) as process:
        pass
    assert process.returncode == -9
