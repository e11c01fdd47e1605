"""The fleet's registry on real hosts: hosts come in by their certificates, tools by tokens; it lives on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.fleet import FLOTA, Fleet
from tests.support.images import image, member, oci_archive, tar
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.rig, pytest.mark.timeout(300)]
PORT = 5000
BUILT = image([tar(member("a", b"a" * 100_000)), tar(member("b", b"b"))])


def restart(fleet: Fleet, *words: str, kill: signal.Signals = signal.SIGTERM) -> None:
    """The controller, on n1."""
    pid = fleet.pid("n1", "controller")
    os.kill(pid, kill)
    wait_until(lambda: pid not in fleet.rig.processes("n1"), deadline=20, what="the controller ends")
    fleet.rig.exec("n1", [FLOTA, "controller", "--detach", *words], timeout=60)
    fleet.wait_ready(3)


@pytest.fixture(scope="module")
def registry(fleet: Fleet) -> Iterator[str]:
    """Switched on, and off again: its name."""
    address = next(host.address for host in fleet.rig.hosts if host.name == "n1")
    restart(fleet, "--registry", str(PORT))
    yield f"{address}:{PORT}"
    restart(fleet, "--registry", "")
    for host in ("n1", "n2", "n3"):
        wait_until(lambda at=host: not trusted(fleet, at), deadline=20, what="certificates are gone")


def trusted(fleet: Fleet, host: str) -> list[str]:
    done = fleet.rig.exec(host, ["ls", "/var/lib/flota/agent/certs.d"], check=False)
    return done.stdout.decode().split()


def skopeo(fleet: Fleet, host: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    return fleet.rig.exec(host, ["skopeo", "copy", *words], timeout=60, check=False)


@pytest.fixture
def archive(tmp_path: Path) -> str:
    path = tmp_path / "image.tar"
    path.write_bytes(oci_archive(BUILT, name="app:1"))
    return f"oci-archive:{path}"


def test_hosts_push_and_pull_by_their_own_certificates_over_a_kill(
    clean: Fleet, registry: str, archive: str, tmp_path: Path
) -> None:
    info = json.loads(clean.flota("n1", "info", "--format", "json"))
    assert info["registry"] == registry
    for host in ("n1", "n2", "n3"):
        wait_until(lambda at=host: trusted(clean, at) == [registry], deadline=20, what="certificates")
    own = f"/var/lib/flota/agent/certs.d/{registry}"
    pushed = skopeo(clean, "n2", "--dest-cert-dir", own, archive, f"docker://{registry}/team/app:1")
    assert pushed.returncode == 0, pushed.stderr
    restart(clean, kill=signal.SIGKILL)
    pulled = skopeo(
        clean, "n3", "--src-cert-dir", own, f"docker://{registry}/team/app:1", f"dir:{tmp_path / 'n3'}"
    )
    assert pulled.returncode == 0, pulled.stderr
    for found, blob in BUILT.blobs.items():
        assert (tmp_path / "n3" / found.removeprefix("sha256:")).read_bytes() == blob


def test_tool_without_a_certificate_needs_a_token(
    clean: Fleet, registry: str, archive: str, tmp_path: Path
) -> None:
    ca = tmp_path / "ca"
    ca.mkdir()
    text = clean.rig.exec("n2", ["curl", "-sk", f"https://{registry.replace(':5000', ':7420')}/v1/ca"]).stdout
    (ca / "ca.crt").write_bytes(text)
    secret = clean.flota("n1", "registry", "token", "create", "-q", "--scope", "push", "ci").strip()
    target = f"docker://{registry}/team/other:1"
    nobody = skopeo(clean, "n2", "--dest-cert-dir", str(ca), archive, target)
    assert nobody.returncode != 0
    words = ("--dest-cert-dir", str(ca), "--dest-creds", f"ci:{secret}", archive, target)
    done = skopeo(clean, "n2", *words)
    assert done.returncode == 0, done.stderr
    assert clean.flota("n1", "registry", "token", "rm", "ci").strip() == "ci"
    assert skopeo(clean, "n2", *words).returncode != 0


def status(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.flota("n1", "registry", "status", "--format", "json"))
    return found


def whole(fleet: Fleet) -> bool:
    found = status(fleet)
    return found["whole"] == 2 and not found["lost"]


def test_lost_disk_of_the_registry_is_filled_again_from_the_other_hosts(
    clean: Fleet, registry: str, archive: str, tmp_path: Path
) -> None:
    own = f"/var/lib/flota/agent/certs.d/{registry}"
    wait_until(lambda: trusted(clean, "n2") == [registry], deadline=20, what="certificates")
    pushed = skopeo(clean, "n2", "--dest-cert-dir", own, archive, f"docker://{registry}/team/kept:1")
    assert pushed.returncode == 0, pushed.stderr
    wait_until(lambda: whole(clean), deadline=60, what="two hosts have all of it")
    assert {host["name"] for host in status(clean)["hosts"] if host["complete"]} == {"n2", "n3"}
    (row,) = [r for r in clean.json("registry", "ls") if r["name"] == "team/kept"]
    assert row["copies"] == 2
    pid = clean.pid("n1", "controller")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in clean.rig.processes("n1"), deadline=20, what="the controller ends")
    clean.rig.exec("n1", ["rm", "-r", "/var/lib/flota/controller/registry"])
    clean.rig.exec("n1", [FLOTA, "controller", "--detach"], timeout=60)
    clean.wait_ready(3)
    wait_until(lambda: whole(clean), deadline=60, what="all is back")
    pulled = skopeo(
        clean, "n3", "--src-cert-dir", own, f"docker://{registry}/team/kept:1", f"dir:{tmp_path / 'n3'}"
    )
    assert pulled.returncode == 0, pulled.stderr
    for found, blob in BUILT.blobs.items():
        assert (tmp_path / "n3" / found.removeprefix("sha256:")).read_bytes() == blob
