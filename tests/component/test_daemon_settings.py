"""What `flota join`, `agent` and `controller` remember of what they were told. As root, though nothing of the
kernel is touched: each fails before it would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.join import PREFIX

pytestmark = pytest.mark.kernel
TOKEN = f"{PREFIX}{'a' * 52}-secret"
NOWHERE = "127.0.0.1:1"


def flota(folder: Path, command: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    places = ("--root", str(folder / "root"), "--run", str(folder / "run"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FLOTA_")} | {"FLOTA_SYSTEMD": "0"}
    return subprocess.run(
        [sys.executable, "-m", "cli.main", command, *places, *words],
        capture_output=True, timeout=30, check=False, env=kept,
    )  # fmt: skip


def test_join_that_fails_is_not_remembered(tmp_path: Path) -> None:
    done = flota(tmp_path, "join", "--behind-nat", "--address", "192.0.2.7", TOKEN, NOWHERE)
    assert done.returncode == 1 and NOWHERE.encode() in done.stderr, done.stderr
    assert not (tmp_path / "root" / "settings.json").exists()


@pytest.mark.parametrize(
    ("command", "words", "says"),
    [
        ("agent", ("--network-driver", "nosuch"), b"nosuch"),
        ("controller", ("--network-driver", "nosuch"), b"nosuch"),
        ("controller", ("--listen", "192.0.2.256"), b"192.0.2.256"),
    ],
)
def test_daemon_that_does_not_start_is_not_remembered(
    tmp_path: Path, command: str, words: tuple[str, ...], says: bytes
) -> None:
    settings = tmp_path / "root" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"name": "n1"}))
    done = flota(tmp_path, command, "--detach", "--address", "192.0.2.7", *words)
    assert done.returncode == 1 and says in done.stderr, done.stderr
    assert json.loads(settings.read_text()) == {"name": "n1"}
