"""The stock docker command against a fleet's Docker socket: images of all hosts, builds for all."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.busybox import root_tar
from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.dockercommand import Docker
from tests.rig.test_registries import registry
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
DOCKERFILE = f'FROM {IMAGE}\nCOPY page /page\nRUN cat /page >/copy\nENV A=b\nCMD ["cat", "/copy"]\n'


@pytest.fixture
def docker(clean: Fleet, monkeypatch: pytest.MonkeyPatch) -> Docker:
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    return Docker(clean)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "page").write_text("a page\n")
    return folder


@pytest.fixture
def private(clean: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A registry that n1 alone reaches, as the header says to which host calls go."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    config = {"HttpHeaders": {"X-PortainerAgent-Target": "n1"}}
    (tmp_path / "docker/config.json").write_text(json.dumps(config))
    folder = tmp_path / "registry"
    folder.mkdir()
    with registry(clean, folder, "htpasswd", 5130) as host:
        yield host


def where(docker: Docker, name: str) -> list[str]:
    found: list[str] = docker.inspect(name)["Nodes"]
    return found


def test_image_is_built_from_a_folder_and_runs_on_every_host(docker: Docker, context: Path) -> None:
    said = docker("build", "-t", "page:1", str(context))
    assert "Step 3/5 : RUN cat /page >/copy" in said and said.endswith("Successfully tagged page:1")
    assert sorted(where(docker, "page:1")) == ["n1", "n2", "n3"], said
    for host in ("n1", "n2", "n3"):
        assert docker("run", "--rm", "--label", f"flota.node={host}", "page:1") == "a page"
    assert " ---> Using cache" in docker("build", "-t", "page:2", str(context))
    assert docker("rmi", "page:2") == "Untagged: page:2"
    assert "Deleted: sha256:" in docker("rmi", "page:1")
    assert docker("images", "-q", "page") == ""


def test_failing_step_ends_the_build_with_its_code(docker: Docker, context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN exit 9\n")
    failed = docker.attempt("build", str(context))
    assert failed.returncode == 9
    assert b"The command '/bin/sh -c exit 9' returned a non-zero code: 9" in failed.stderr


def test_image_is_pushed_from_one_host_and_pulled_on_it_with_a_login(
    docker: Docker, clean: Fleet, private: str
) -> None:
    refused = docker.attempt("login", "-u", "ada", "-p", "wrong", private)
    assert refused.returncode == 1 and b"401" in refused.stderr
    docker("login", "-u", "ada", "-p", "c4n4ry-5ecret-0f-the-registry", private)
    name = f"{private}/team/box:1"
    docker("tag", IMAGE, name)
    said = docker("push", name)
    assert "1: digest: sha256:" in said
    digest = said.split("digest: ")[1].split()[0]
    docker("rmi", name)
    again = docker.attempt("pull", name)  # the registry is n1's alone
    assert digest.encode() in again.stdout
    assert "n1" in where(docker, name)


def test_archives_and_commits_are_of_the_fleet(docker: Docker, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    docker("tag", IMAGE, "other:1")
    docker("save", "-o", str(archive), "other:1")
    docker("rmi", "other:1")
    assert docker("load", "-i", str(archive)) == "Loaded image: other:1"
    assert sorted(where(docker, "other:1")) == ["n1", "n2", "n3"]
    docker("run", "-d", "--name", "made", "other:1", "sh", "-c", "echo new >/new; sleep 1000")
    wait_until(
        lambda: docker.attempt("exec", "made", "test", "-e", "/new").returncode == 0, deadline=10, what="it"
    )
    ident = docker("commit", "-a", "me", "-m", "words", "-c", 'CMD ["cat", "/new"]', "made", "committed:1")
    seen = docker.inspect("committed:1")
    assert seen["Id"] == ident and seen["Comment"] == "words"
    assert docker("run", "--rm", "committed:1") == "new"
    assert docker("rmi", "other:1") == "Untagged: other:1"  # the image has another name yet
    docker("rm", "-f", "made")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(str(archive), "etc/archive")
    imported = docker("import", "-", "imp:1", stdin=buffer.getvalue())
    assert imported.startswith("sha256:") and docker.inspect("imp:1")["Id"] == imported


def test_disk_usage_and_prunes_are_of_the_fleet(docker: Docker, clean: Fleet, context: Path) -> None:
    docker("build", "-t", "page:1", str(context))
    assert "Build Cache" in docker("system", "df")
    assert "Total reclaimed space" in docker("builder", "prune", "-af")
    assert "Total reclaimed space" in docker("image", "prune", "-af")
    assert docker("images", "-q") == ""
    clean.load_everywhere(IMAGE, root_tar())  # the tests that follow have it again
