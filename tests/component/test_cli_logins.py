"""The operator's logins: Docker's file, credential helpers, and what the commands say of them."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import logins
from model.errors import CommandFailed, InvalidInput
from model.image import ImageRecord
from model.registries import NOBODY, Login
from tests.support.servedfleet import ServedFleet, served

HELPER = """\
#!/usr/bin/env python3
import json, pathlib, sys
store = pathlib.Path({store!r})
kept = json.loads(store.read_text()) if store.exists() else {{}}
text = sys.stdin.read().strip()
if sys.argv[1] == "get":
    if text not in kept:
        print("credentials not found in native keychain")
        sys.exit(1)
    print(json.dumps(kept[text]))
elif sys.argv[1] == "store":
    entry = json.loads(text)
    kept[entry["ServerURL"]] = entry
    store.write_text(json.dumps(kept))
elif sys.argv[1] == "erase":
    kept.pop(text, None)
    store.write_text(json.dumps(kept))
else:
    sys.exit("unknown")
"""
ADA = Login(user="ada", password="s3cret:with colon")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker/config.json"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    with served(tmp_path) as made:
        yield made


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`docker-credential-box` on PATH; the file in which it keeps things."""
    store, program = tmp_path / "store.json", tmp_path / "bin/docker-credential-box"
    program.parent.mkdir()
    program.write_text(HELPER.format(store=str(store)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return store


def write(file: Path, config: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(config))


def test_login_is_kept_in_a_file_of_its_owner_alone_beside_what_others_wrote(file: Path) -> None:
    write(file, {"auths": {"b.example": {"auth": "Yjpi"}}, "HttpHeaders": {"X": "y"}})
    file.chmod(0o644)
    logins.store("https://a.example:5000/v2/", ADA)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    config = json.loads(file.read_text())
    assert config["HttpHeaders"] == {"X": "y"} and set(config["auths"]) == {"a.example:5000", "b.example"}
    assert logins.find("a.example:5000") == ADA
    assert logins.find("b.example") == Login(user="b", password="b")
    assert logins.find("c.example") == NOBODY
    assert os.listdir(file.parent) == ["config.json"]


def test_docker_hubs_login_has_dockers_key(file: Path) -> None:
    logins.store("docker.io", ADA)
    assert list(json.loads(file.read_text())["auths"]) == ["https://index.docker.io/v1/"]
    assert logins.find("docker.io") == ADA
    assert logins.erase("index.docker.io") and not logins.erase("docker.io")


def test_login_that_is_stored_counts_before_what_others_wrote_for_the_registry(file: Path) -> None:
    others = {"docker.io": {"auth": "b2xkOm9sZA=="}, "https://index.docker.io/v1/access-token": {}}
    write(file, {"auths": others})
    assert logins.find("docker.io") == Login(user="old", password="old")
    logins.store("docker.io", ADA)
    assert logins.find("docker.io") == ADA
    assert json.loads(file.read_text())["auths"]["docker.io"] == others["docker.io"]


def test_identity_token_is_preferred_to_the_password(file: Path) -> None:
    write(file, {"auths": {"a.example": {"auth": base64.b64encode(b"ada:").decode(), "identitytoken": "t"}}})
    assert logins.find("a.example") == Login(user="ada", identity="t")


def test_helper_of_a_registry_keeps_its_login_out_of_the_file(file: Path, helper: Path) -> None:
    write(file, {"credHelpers": {"a.example": "box"}})
    assert logins.find("a.example") == NOBODY
    assert logins.store("a.example", ADA) == "docker-credential-box"
    assert "s3cret" not in file.read_text() and json.loads(file.read_text())["auths"] == {"a.example": {}}
    assert logins.find("a.example") == ADA
    logins.store("b.example", ADA)
    assert "auth" in json.loads(file.read_text())["auths"]["b.example"]
    assert logins.erase("a.example") and json.loads(helper.read_text()) == {}


def test_helper_for_all_gives_identity_tokens_by_dockers_word(file: Path, helper: Path) -> None:
    write(file, {"credsStore": "box"})
    entry = {"ServerURL": "a.example", "Username": "<token>", "Secret": "t"}
    helper.write_text(json.dumps({"a.example": entry}))
    assert logins.find("a.example") == Login(identity="t")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"credsStore": "absent-helper"}, "is not installed"),
        ({"credHelpers": {"a.example": "../../evil"}}, "no name of a credential helper"),
        ({"auths": {"a.example": {"auth": "%%%"}}}, r"auths.a.example.auth is no login"),
    ],
)
def test_what_can_not_be_used_is_told(file: Path, config: object, words: str) -> None:
    write(file, config)
    with pytest.raises((InvalidInput, CommandFailed), match=words):
        logins.find("a.example")


def test_file_that_is_no_json_is_told_and_left(file: Path) -> None:
    write(file, {})
    file.write_text("{oops")
    with pytest.raises(InvalidInput, match=r"config\.json can't be read"):
        logins.store("a.example", ADA)
    assert file.read_text() == "{oops"


# -- commands ---------------------------------------------------------------------------------------
def test_login_is_checked_then_kept_then_sent_where_it_belongs(fleet: ServedFleet, file: Path) -> None:
    words = ("login", "-u", "ada", "--password-stdin", "a.example")
    done = fleet.flota(*words, stdin=b"wrong\n")
    assert done.returncode == 1 and b"password is wrong" in done.stderr and not file.exists()
    done = fleet.flota(*words, stdin=b"right\n")
    assert (done.returncode, done.stdout) == (0, b"Login Succeeded\n") and b"unencrypted" in done.stderr
    fleet.ok("pull", "-q", "a.example/app:1")
    fleet.ok("pull", "-q", "b.example/app:1")
    seen = [host.logins for host in fleet.fleet.hosts.values()]
    assert [one[-2:] for one in seen] == [[Login(user="ada", password="right"), NOBODY]] * 3
    assert "existing credentials" in fleet.flota("login", "a.example").stderr.decode()
    assert fleet.ok("logout", "a.example") == "Removing login credentials for a.example\n"
    assert fleet.ok("logout", "a.example") == "Not logged in to a.example\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("login", "a.example"), b"no terminal to ask"),
        (("login", "--password-stdin", "a.example"), b"needs --username"),
        (("login", "-u", "a", "-p", "b", "--password-stdin", "a.example"), b"only one of them"),
    ],
)
def test_login_that_can_not_be_read_is_refused(
    fleet: ServedFleet, words: tuple[str, ...], said: bytes
) -> None:
    done = fleet.flota(*words)
    assert done.returncode == 1 and said in done.stderr


def test_runs_and_services_bring_the_login_of_their_registry(fleet: ServedFleet, file: Path) -> None:
    logins.store("a.example", ADA)
    for host in fleet.fleet.hosts.values():
        host._add("a.example/app:1")
    fleet.ok("run", "-d", "a.example/app:1", "sleep")
    assert fleet.fleet.logins[-1] == ADA
    fleet.ok("service", "create", "--name", "bare", "a.example/app:1", "sleep")
    assert ADA not in fleet.fleet.logins[1:]
    fleet.ok("service", "create", "--with-registry-auth", "--name", "kept", "a.example/app:1", "sleep")
    assert ADA in fleet.fleet.logins[2:]


@pytest.mark.parametrize("config", ['{"credsStore": "absent-helper"}', "{oops"])
def test_file_that_can_not_be_used_hinders_nothing_that_needs_no_login(
    fleet: ServedFleet, file: Path, config: str
) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(config)
    done = fleet.flota("run", "-d", "box:1", "sleep")
    assert done.returncode == 0 and b"without a login: " in done.stderr
    assert fleet.flota("service", "create", "--name", "web", "box:1", "sleep").returncode == 0
    words = ("service", "create", "--with-registry-auth", "--name", "kept", "box:1", "sleep")
    done = fleet.flota(*words)
    assert done.returncode == 1 and b"without a login" not in done.stderr
    assert set(images_of(fleet)) == {"web"}


def images_of(fleet: ServedFleet) -> dict[str, str]:
    specs = [one["service"]["spec"] for one in fleet.json("service", "ls")]
    return {spec["name"]: spec["container"]["image"] for spec in specs}


def test_service_is_pinned_to_the_digest_that_its_registry_says(fleet: ServedFleet) -> None:
    digest = "sha256:" + "cd" * 32
    for host in fleet.fleet.hosts.values():
        host.remote["a.example/app:1"] = digest
    fleet.ok("service", "create", "--name", "web", "a.example/app:1", "sleep")
    pinned = f"a.example/app:1@{digest}"
    assert fleet.json("service", "ls")[0]["service"]["spec"]["container"]["image"] == pinned
    fleet.ok("service", "create", "--no-resolve-image", "--name", "tag", "a.example/app:1", "sleep")
    done = fleet.flota("service", "create", "--name", "away", "a.example/gone:1", "sleep")
    assert done.returncode == 0 and b"could not be accessed on a registry" in done.stderr
    images = {
        s["service"]["spec"]["name"]: s["service"]["spec"]["container"]["image"]
        for s in fleet.json("service", "ls")
    }
    assert images == {"web": pinned, "tag": "a.example/app:1", "away": "a.example/gone:1"}
    fleet.ok("service", "update", "--image", "a.example/app:1", "away")
    images = {
        s["service"]["spec"]["name"]: s["service"]["spec"]["container"]["image"]
        for s in fleet.json("service", "ls")
    }
    assert images["away"] == pinned


@pytest.mark.parametrize(
    ("image", "repository", "asked"),
    [
        ("team/app:1", "a.example/app", False),  # pushed there from here: Docker Hub's team is somebody else
        ("team/app:1", "docker.io/team/app", True),
        ("app", "docker.io/library/app", True),
        ("a.example:5000/app", "a.example:5000/app", True),
    ],
)
def test_service_is_pinned_only_where_its_names_registry_is_known_to_have_it(
    fleet: ServedFleet, image: str, repository: str, asked: bool
) -> None:
    digest = "sha256:" + "cd" * 32
    for host in fleet.fleet.hosts.values():
        record = ImageRecord(id="sha256:" + "12" * 32, names=(image,), digests=(f"{repository}@{digest}",))
        host.images[image], host.remote[image] = record, digest
    fleet.ok("service", "create", "--name", "web", image, "sleep")
    assert images_of(fleet)["web"].endswith(f"@{digest}") is asked
    if not asked:
        assert images_of(fleet)["web"] == image


def test_push_save_search_and_manifest_speak_with_one_host(fleet: ServedFleet, tmp_path: Path) -> None:
    logins.store("docker.io", ADA)
    done = fleet.flota("push", "box:1")
    assert done.returncode == 0 and b"digest: sha256:" in done.stderr and done.stdout == b"box:1\n"
    assert sum(len(host.logins) for host in fleet.fleet.hosts.values()) == 1
    assert fleet.flota("push", "absent:1").returncode == 1
    archive = tmp_path / "box.tar"
    fleet.ok("save", "-o", str(archive), "box:1")
    assert archive.read_bytes().startswith(b"archive of sha256:abab")
    assert fleet.flota("save", "box:1").stdout == archive.read_bytes()
    done = fleet.flota("save", "-o", str(tmp_path / "none.tar"), "absent:1")
    assert done.returncode == 1 and sorted(os.listdir(tmp_path)).count("none.tar") == 0
    assert "box-0" in fleet.ok("search", "box")
    for host in fleet.fleet.hosts.values():
        host.remote["box:1"] = "sha256:" + "ab" * 32
    assert json.loads(fleet.ok("manifest", "inspect", "box:1")) == {"schemaVersion": 2}
    assert json.loads(fleet.ok("manifest", "inspect", "-v", "box:1"))["Descriptor"]["size"] == 20


def test_images_show_their_digests_and_those_without_a_tag_their_repository(fleet: ServedFleet) -> None:
    digest = "sha256:" + "ef" * 32
    for host in fleet.fleet.hosts.values():
        record = ImageRecord(id="sha256:" + "12" * 32, digests=(f"docker.io/library/pinned@{digest}",))
        host.images["pinned"] = record
    line = next(one for one in fleet.ok("images", "--digests").splitlines() if "pinned" in one)
    assert line.split()[:3] == ["pinned", "<none>", digest]
    assert digest not in fleet.ok("images")


def test_all_tags_of_a_repository_are_pulled(fleet: ServedFleet) -> None:
    for host in fleet.fleet.hosts.values():
        host.remote |= {"a.example/app:1": "x", "a.example/app:2": "x", "a.example/other:3": "x"}
    assert fleet.ok("pull", "-q", "-a", "a.example/app").split() == ["a.example/app:1", "a.example/app:2"]
    done = fleet.flota("pull", "-a", "a.example/app:1")
    assert done.returncode == 1 and b"goes without a tag" in done.stderr
