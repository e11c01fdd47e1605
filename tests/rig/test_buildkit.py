"""The stock docker command with DOCKER_BUILDKIT=1 against a real fleet: what is built, is there and runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE

pytestmark = pytest.mark.rig
DOCKER = "/usr/bin/docker"
PATIENCE = 120
TEXT = f"""FROM {IMAGE} AS made
ARG WHO=nobody
COPY src /src
RUN --mount=type=secret,id=s echo $WHO $(cat /run/secrets/s) > /said
FROM {IMAGE}
COPY --from=made /said /said
COPY --from=made /src /src
"""


def docker(fleet: Fleet, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    socket = f"unix://{fleet.rig.run_folder('n1')}/docker.sock"
    return subprocess.run(
        [DOCKER, "-H", socket, *words], capture_output=True, text=True, timeout=PATIENCE, check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "DOCKER_BUILDKIT": "1"},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "app"
    (made / "src").mkdir(parents=True)
    (made / "Dockerfile").write_text(TEXT)
    (made / "src/a").write_text("kept")
    (made / "src/b").write_text("left")
    (made / ".dockerignore").write_text("src/b\n")
    (tmp_path / "secret").write_text("hush")
    return made


def test_build_with_buildkit_makes_an_image_that_runs_and_a_second_is_cached(
    clean: Fleet, folder: Path
) -> None:
    words = (
        "build", "--progress=plain", "-t", "bk:1", "--build-arg", "WHO=me", "--secret",
        f"id=s,src={folder.parent}/secret", "--iidfile", f"{folder.parent}/iid", str(folder),
    )  # fmt: skip
    done = docker(clean, folder.parent, *words)
    assert done.returncode == 0, done.stderr
    assert "COPY src /src" in done.stderr and "load build definition" in done.stderr
    said = docker(clean, folder.parent, "run", "--rm", "bk:1", "sh", "-c", "cat /said; ls /src")
    assert said.stdout.split() == ["me", "hush", "a"], said.stderr
    found = docker(clean, folder.parent, "image", "inspect", "-f", "{{.Id}}", "bk:1")
    assert found.stdout.strip() == (folder.parent / "iid").read_text()
    again = docker(clean, folder.parent, *words)
    assert again.returncode == 0 and "CACHED" in again.stderr, again.stderr
    assert (folder.parent / "iid").read_text() == found.stdout.strip()


def test_build_with_buildkit_writes_files_and_tells_of_a_failure(clean: Fleet, folder: Path) -> None:
    words = ("build", "--build-arg", "WHO=me", "--secret", f"id=s,src={folder.parent}/secret")
    out = folder.parent / "out"
    done = docker(clean, folder.parent, *words, "-o", f"type=local,dest={out}", str(folder))
    assert done.returncode == 0, done.stderr
    assert (out / "said").read_text() == "me hush\n" and (out / "src/a").read_text() == "kept"
    (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo oh; exit 7\n")
    done = docker(clean, folder.parent, "build", "--progress=plain", str(folder))
    assert done.returncode == 1 and "#5 0." in done.stderr and "oh\n" in done.stderr, done.stderr
    assert "RUN echo oh; exit 7: exit code 7" in done.stderr
