"""A daemon's pid file names it only while that very process lives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli import daemon


def test_daemon_is_found_by_its_claim_until_it_lets_go(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    assert daemon.alive(run, "agent") == 0
    daemon.claim(run, "agent")
    assert daemon.alive(run, "agent") == os.getpid()
    daemon.release(run, "agent")
    assert not (tmp_path / "run" / "agent.pid").exists()


@pytest.mark.parametrize("text", ["", "a b", f"{os.getpid()}", f"{os.getpid()} 1", "0 0", f"{2**22 + 1} -1"])
def test_pid_file_of_another_process_or_of_none_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "agent.pid").write_text(text)
    assert daemon.alive(str(tmp_path), "agent") == 0
