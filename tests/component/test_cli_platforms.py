"""Words about platforms, manifest lists and imported URLs, from the command line to a host."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.servedfleet import ServedFleet, served


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedFleet]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with served(tmp_path) as found:
        yield found


def platforms(fleet: ServedFleet) -> set[str]:
    """That hosts were told since the last time."""
    found = {platform for host in fleet.fleet.hosts.values() for platform in host.platforms}
    for host in fleet.fleet.hosts.values():
        host.platforms.clear()
    return found - {""}


def test_platform_reaches_the_hosts_by_every_verb(fleet: ServedFleet, tmp_path: Path) -> None:
    arm = ("--platform", "linux/arm64")
    for words in (
        ("pull", *arm, "box:1"),
        ("push", *arm, "box:1"),
        ("save", *arm, "-o", str(tmp_path / "a.tar"), "box:1"),
        ("history", *arm, "box:1"),
        ("image", "inspect", *arm, "box:1"),
        ("rmi", *arm, "box:1"),
    ):
        fleet.ok(*words)
        assert platforms(fleet) == {"linux/arm64"}, words
    fleet.ok("load", *arm, stdin=b"archive")
    assert platforms(fleet) == {"linux/arm64"}
    fleet.ok("import", *arm, "-", "root:1", stdin=b"root")
    assert platforms(fleet) == {"linux/arm64"}


def test_all_platforms_and_referrers_are_asked_for(fleet: ServedFleet) -> None:
    fleet.ok("pull", "--all-platforms", "box:1")
    assert platforms(fleet) == {"all"}
    fleet.ok("push", "--referrers", "box:1")
    assert platforms(fleet) == {" with referrers"}
    done = fleet.flota("pull", "--all-platforms", "--platform", "linux/arm64", "box:1")
    assert done.returncode == 1 and b"goes without --platform" in done.stderr


def test_list_is_put_together_annotated_pushed_and_forgotten(fleet: ServedFleet) -> None:
    for host in fleet.fleet.hosts.values():
        host.remote |= {"r.example/amd:1": "sha256:" + "ab" * 32, "r.example/arm:1": "sha256:" + "cd" * 32}
    target = "r.example/all:1"
    fleet.ok("manifest", "create", target, "r.example/amd:1")
    again = fleet.flota("manifest", "create", target, "r.example/arm:1")
    assert again.returncode == 1 and b"--amend" in again.stderr
    fleet.ok("manifest", "create", "--amend", target, "r.example/arm:1")
    fleet.ok("manifest", "annotate", "--arch", "arm64", "--variant", "v8", target, "r.example/arm:1")
    shown = json.loads(fleet.ok("manifest", "inspect", target))
    assert shown["manifests"][1]["platform"] == {"os": "linux", "architecture": "arm64", "variant": "v8"}
    assert fleet.ok("manifest", "push", "--purge", target).startswith("sha256:")
    ((ref, request),) = [pushed for host in fleet.fleet.hosts.values() for pushed in host.indexes]
    assert ref == target and json.loads(request.document) == shown
    assert [origin.partition("@")[0] for origin in request.origins] == ["r.example/amd", "r.example/arm"]
    gone = fleet.flota("manifest", "rm", target)
    assert gone.returncode == 1 and b"no manifest list" in gone.stderr


class _Served(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        announced = {"/root.tar": 4, "/short.tar": 9}.get(self.path)
        if announced is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        self.wfile.write(b"root")

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Served)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_url_is_imported_on_every_host(fleet: ServedFleet, site: str) -> None:
    fleet.ok("import", f"{site}/root.tar", "root:1")
    assert {bytes(upload) for host in fleet.fleet.hosts.values() for upload in host.uploads} == {b"root"}


@pytest.mark.parametrize(
    ("source", "words"),
    [("/none.tar", b"404"), ("/short.tar", b"broke 5 bytes before its end")],
)
def test_url_that_gives_less_than_all_is_told(
    fleet: ServedFleet, site: str, source: str, words: bytes
) -> None:
    done = fleet.flota("import", f"{site}{source}", "root:1")
    assert done.returncode == 1 and words in done.stderr and b"Traceback" not in done.stderr


def test_file_that_is_not_there_is_told_in_a_line(fleet: ServedFleet) -> None:
    done = fleet.flota("import", "/nowhere/root.tar")
    assert done.returncode == 1 and done.stderr.startswith(b"flota: /nowhere/root.tar: no such file")


def test_images_of_a_repository_are_listed_by_its_name(fleet: ServedFleet) -> None:
    assert "box" in fleet.ok("images", "box") and "box" not in fleet.ok("images", "nothing-like-it")
    bad = fleet.flota("images", "--filter", "before=absent:1")
    assert bad.returncode == 1 and b"no such image: absent:1" in bad.stderr
