"""Private registries: Debian's docker-registry behind a password file and behind a token service, the field's
own tools as peers, and secrets that are nowhere to be found."""

from __future__ import annotations

import base64
import ctypes
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from deploy.busybox import root_tar
from deploy.fleet import Fleet
from tests.support import tokenserver
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
USER, PASSWORD = "ada", "c4n4ry-5ecret-0f-the-registry"
CONFIG = """\
version: 0.1
storage:
  filesystem:
    rootdirectory: {folder}/data
  delete:
    enabled: true
http:
  addr: 127.0.0.1:{port}
{auth}"""
HTPASSWD = """\
auth:
  htpasswd:
    realm: flota
    path: {folder}/htpasswd
"""
TOKEN = """\
auth:
  token:
    realm: http://127.0.0.1:{token_port}/token
    service: registry
    issuer: flota-tests
    rootcertbundle: {folder}/cert.pem
"""


def bcrypted(password: str) -> str:
    """The only kind that docker-registry takes; by the system's libcrypt."""
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    made: bytes = crypt(password.encode(), b"$2b$05$" + b"abcdefghijklmnopqrstuu")
    assert made.startswith(b"$2b$05$")
    return made.decode()


@contextmanager
def registry(fleet: Fleet, folder: Path, kind: str, port: int) -> Iterator[str]:
    """docker-registry on n1's loopback."""
    host = f"127.0.0.1:{port}"
    with ExitStack() as stack:
        auth = {"htpasswd": HTPASSWD, "token": TOKEN}[kind].format(folder=folder, token_port=port + 1)
        (folder / "htpasswd").write_text(f"{USER}:{bcrypted(PASSWORD)}\n")
        (folder / "config.yml").write_text(CONFIG.format(folder=folder, port=port, auth=auth))
        commands = [["docker-registry", "serve", str(folder / "config.yml")]]
        if kind == "token":
            tokenserver.make_key(folder)
            words = [str(folder), str(port + 1), USER, PASSWORD]
            commands.append([sys.executable, "-m", "tests.support.tokenserver", *words])
        for number, command in enumerate(commands):
            process = fleet.rig.spawn("n1", command, log=str(folder / f"log{number}"))
            stack.callback(process.wait, 10)
            stack.callback(process.terminate)
        ask = ["skopeo", "list-tags", "--tls-verify=false", f"docker://{host}/x"]

        def answers() -> bool:
            return b"connection refused" not in fleet.rig.exec("n1", ask, check=False).stderr

        wait_until(answers, deadline=20, what="the registry")
        yield host


@pytest.fixture(params=["htpasswd", "token"])
def private(
    clean: Fleet, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    folder = tmp_path / "registry"
    folder.mkdir()
    with registry(clean, folder, request.param, 5100 if request.param == "htpasswd" else 5110) as host:
        yield host


@pytest.fixture
def logged_in(clean: Fleet, private: str) -> str:
    words = ("login", "-u", USER, "--password-stdin", "--node", "n1", private)
    assert "Login Succeeded" in clean.flota("n1", *words, stdin=PASSWORD.encode())
    return private


@pytest.fixture
def skopeo(clean: Fleet) -> Callable[..., str]:
    """With the registry's user, in n1's network."""

    def run(verb: str, *words: str) -> str:
        side = {"copy": ["--src-tls-verify=false", "--dest-tls-verify=false"]}
        flags = side.get(verb, ["--tls-verify=false"])
        who = ["--creds", f"{USER}:{PASSWORD}"] if verb != "copy" else []
        return clean.rig.exec("n1", ["skopeo", verb, *flags, *who, *words]).stdout.decode()

    return run


def test_a_login_is_tried_before_it_is_kept_and_only_its_owner_can_read_it(
    clean: Fleet, private: str, tmp_path: Path
) -> None:
    words = ("login", "-u", USER, "--password-stdin", "--node", "n1", private)
    with pytest.raises(RuntimeError, match="password is wrong"):
        clean.flota("n1", *words, stdin=b"another")
    file = tmp_path / "docker/config.json"
    assert not file.exists()
    clean.flota("n1", *words, stdin=PASSWORD.encode())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(json.loads(file.read_text())["auths"]) == [private]
    assert "Removing" in clean.flota("n1", "logout", private)
    assert json.loads(file.read_text())["auths"] == {}


def test_what_is_pushed_is_what_others_pull(
    clean: Fleet, logged_in: str, skopeo: Callable[..., str], tmp_path: Path
) -> None:
    name = f"{logged_in}/team/box:1"
    clean.flota("n1", "tag", "box:1", name)
    clean.flota("n1", "push", "--node", "n1", name)
    found = json.loads(skopeo("inspect", f"docker://{name}"))
    pinned = f"{logged_in}/team/box@{found['Digest']}"
    record = clean.json("images", "--node", "n1", "-f", f"reference={name}")[0]["image"]
    assert pinned in record["digests"]
    layout = f"oci:{tmp_path}/oci:1"
    skopeo("copy", "--src-creds", f"{USER}:{PASSWORD}", f"docker://{name}", layout)
    subprocess.run(["umoci", "unpack", "--image", f"{tmp_path}/oci:1", f"{tmp_path}/bundle"], check=True)
    assert (tmp_path / "bundle/rootfs/bin/sh").exists()
    assert f"{logged_in}/team/box" in clean.flota("n1", "search", "--node", "n1", f"{logged_in}/box")
    shown = json.loads(clean.flota("n1", "manifest", "inspect", "-v", "--node", "n1", name))
    assert shown["Descriptor"]["digest"] == found["Digest"]
    clean.flota("n1", "rmi", "-f", "--node", "n1", name)
    assert clean.flota("n1", "run", "--rm", "--node", "n1", "box:1", "echo", "there").strip() == "there"


@pytest.mark.parametrize("private", ["token"], indirect=True)
def test_an_image_keeps_its_digest_and_annotations_through_pull_and_push(
    clean: Fleet, logged_in: str, skopeo: Callable[..., str], tmp_path: Path
) -> None:
    layout = tmp_path / "oci"
    subprocess.run(["umoci", "init", "--layout", str(layout)], check=True)
    subprocess.run(["umoci", "new", "--image", f"{layout}:1"], check=True)
    (tmp_path / "noise").write_bytes(os.urandom(3 << 20))
    for target in ("/bin/sh", "/noise"):
        source = "/bin/busybox" if target == "/bin/sh" else str(tmp_path / "noise")
        subprocess.run(["umoci", "insert", "--image", f"{layout}:1", source, target], check=True)
    noted = ["--manifest.annotation", "org.example.note=kept", "--config.cmd", "/bin/sh"]
    subprocess.run(["umoci", "config", "--image", f"{layout}:1", *noted], check=True)
    source = f"{logged_in}/from/here:1"
    skopeo("copy", "--dest-creds", f"{USER}:{PASSWORD}", f"oci:{layout}:1", f"docker://{source}")
    before = json.loads(skopeo("inspect", f"docker://{source}"))["Digest"]
    clean.flota("n1", "pull", "--node", "n1", source)
    target = f"{logged_in}/to/there:2"
    clean.flota("n1", "tag", "--node", "n1", source, target)
    said = clean.rig.exec("n1", [*_flota(), "push", "--node", "n1", target]).stderr.decode()
    assert "Mounted from from/here" in said
    assert json.loads(skopeo("inspect", f"docker://{target}"))["Digest"] == before
    raw = json.loads(skopeo("inspect", "--raw", f"docker://{target}"))
    assert raw["annotations"]["org.example.note"] == "kept"


def _flota() -> list[str]:
    from deploy.fleet import FLOTA

    return [FLOTA]


@pytest.mark.parametrize("private", ["token"], indirect=True)
def test_without_a_login_nothing_is_pulled_or_pushed(clean: Fleet, private: str) -> None:
    for words in (("pull", "--node", "n1", f"{private}/team/box:1"),):
        done = clean.attempt("n1", *words)
        assert done.returncode == 1 and b"flota login" in done.stderr, done.stderr
    clean.flota("n1", "tag", "--node", "n1", "box:1", f"{private}/team/box:1")
    done = clean.attempt("n1", "push", "--node", "n1", f"{private}/team/box:1")
    assert done.returncode == 1 and b"denies access" in done.stderr
    clean.flota("n1", "rmi", "--node", "n1", f"{private}/team/box:1")


def test_a_saved_archive_is_read_by_others_in_both_forms(
    clean: Fleet, tmp_path: Path, skopeo: Callable[..., str]
) -> None:
    archive = tmp_path / "box.tar"
    clean.flota("n1", "save", "-o", str(archive), "box:1")
    skopeo("copy", f"docker-archive:{archive}", f"oci:{tmp_path}/a:1")
    skopeo("copy", f"oci-archive:{archive}", f"oci:{tmp_path}/b:1")
    for name in "ab":
        subprocess.run(
            ["umoci", "unpack", "--image", f"{tmp_path}/{name}:1", f"{tmp_path}/u{name}"], check=True
        )
        assert (tmp_path / f"u{name}/rootfs/bin/sh").exists()
    before = clean.json("images", "-f", "reference=box")[0]["image"]["id"]
    clean.flota("n1", "load", "-i", str(archive))
    assert {i["image"]["id"] for i in clean.json("images", "-f", "reference=box")} == {before}


def _published(fleet: Fleet, host: str, name: str) -> str:
    """An image of its own in the registry, and nowhere else."""
    full = f"{host}/{name}"
    fleet.flota("n1", "import", "--node", "n1", "-c", f"LABEL only={name}", "-", full, stdin=root_tar())
    fleet.flota("n1", "push", "--node", "n1", full)
    fleet.flota("n1", "rmi", "-f", "--node", "n1", full)
    return full


def _everything(fleet: Fleet) -> Iterator[tuple[str, bytes]]:
    """All that flota wrote or says: files, API replies, command lines, environments."""
    for host in fleet.rig.hosts:
        pids = fleet.rig.processes(host.name)
        for folder in ("var/lib/flota", "run/flota"):
            for path in sorted(Path(f"/proc/{pids[0]}/root/{folder}").rglob("*")):
                if path.is_file() and "layers" not in path.parts:
                    with suppress(OSError):  # a namespace, or gone meanwhile
                        yield str(path), path.read_bytes()
        for pid in pids:
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"tokenserver" not in words:
                    yield f"/proc/{pid}", words + Path(f"/proc/{pid}/environ").read_bytes()
    for words in (("ps", "-a"), ("service", "ls"), ("events", "--since", "1h", "--until", "0s")):
        yield " ".join(words), fleet.flota("n1", *words, "--format", "json").encode()
    for one in (*fleet.json("ps", "-a"), *fleet.json("service", "ls")):
        ident = (one.get("service") or one.get("instance"))["id"]
        yield "inspect", fleet.flota("n1", "inspect", ident).encode()
        yield "why", fleet.flota("n1", "why", ident).encode()


def _secrets() -> list[bytes]:
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode())
    return [PASSWORD.encode(), pair, base64.b64encode(PASSWORD.encode())[:-3]]


def _found(fleet: Fleet) -> list[str]:
    """Where a secret is. The operator's own file shows that one would be found."""
    kept = Path(os.environ["DOCKER_CONFIG"], "config.json").read_bytes()
    assert any(secret in kept for secret in _secrets())
    return [where for where, data in _everything(fleet) for secret in _secrets() if secret in data]


@pytest.mark.parametrize("private", ["htpasswd"], indirect=True)
def test_a_service_pulls_by_the_login_that_it_was_given_which_is_nowhere_to_be_found(
    clean: Fleet, logged_in: str
) -> None:
    name = _published(clean, logged_in, "svc/box:1")
    here = ("--constraint", "node.hostname==n1", "--restart-condition", "none")
    clean.flota("n1", "service", "create", "--name", "bare", *here, name, "sleep", "600")
    info = clean.json("service", "ls")[0]["service"]["spec"]["container"]["image"]
    assert info.startswith(f"{name}@sha256:")
    wait_until(lambda: "denies access" in clean.flota("n1", "why", "bare"), deadline=30, what="a refusal")
    clean.flota("n1", "service", "rm", "bare")
    words = ("--with-registry-auth", "--name", "kept", *here, name, "sleep", "600")
    clean.flota("n1", "service", "create", *words)

    def runs() -> bool:
        found = [one for one in clean.json("ps") if one["instance"].get("service_name") == "kept"]
        return bool(found) and found[0]["status"].get("phase") == "running"

    wait_until(runs, deadline=30, what="the service")
    assert _found(clean) == []
    clean.flota("n1", "service", "rm", "kept")
    ident = clean.json("images", "-f", "label=only=svc/box:1")[0]["image"]["id"]
    wait_until(lambda: not clean.json("ps", "-a"), deadline=20, what="no container")
    clean.flota("n1", "rmi", "-f", "--node", "n1", ident)


@pytest.mark.parametrize("private", ["token"], indirect=True)
def test_a_run_pulls_by_the_operators_login(clean: Fleet, logged_in: str) -> None:
    name = _published(clean, logged_in, "run/box:1")
    assert clean.flota("n1", "run", "--rm", "--node", "n1", name, "echo", "hi").strip() == "hi"
    assert _found(clean) == []
    clean.flota("n1", "rmi", "-f", "--node", "n1", name)
