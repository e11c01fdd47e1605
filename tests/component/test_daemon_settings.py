"""What `flota join`, `agent` and `controller` remember of what they were told. As root, though nothing of the
kernel is touched: each fails before it would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.join import PREFIX, Enrollment
from aio.processes import process_started
from controller.pki import Authority
from model.codec import encode_json

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


def test_join_of_a_member_that_fails_starts_its_agent_again_as_it_was(tmp_path: Path) -> None:
    authority, root, run = Authority.new("fleet"), tmp_path / "root", tmp_path / "run"
    (root / "agent").mkdir(parents=True)
    run.mkdir()
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    own = Enrollment(
        host_id="1", fleet_id="fleet", controllers=(), certificate="", key=key.decode(),
        ca=authority.pem.decode(), name="n1",
    )  # fmt: skip
    (root / "agent" / "enrollment.json").write_bytes(encode_json(own))
    # so that none really runs
    (root / "settings.json").write_text(json.dumps({"network_driver": ["nosuch"]}))
    agent = subprocess.Popen(["sleep", "60"])
    try:
        (run / "agent.pid").write_text(f"{agent.pid} {process_started(agent.pid)}\n")
        threading.Thread(target=agent.wait, daemon=True).start()
        done = flota(tmp_path, "join", "--behind-nat", f"{PREFIX}{authority.digest}-secret", NOWHERE)
        assert done.returncode == 1 and agent.wait(5) == -signal.SIGTERM
    finally:
        agent.kill()
    assert "nosuch" in (root / "log" / "agent.log").read_text(), "it is started again"
    assert json.loads((root / "settings.json").read_text()) == {"network_driver": ["nosuch"]}


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
