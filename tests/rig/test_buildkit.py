"""The stock docker command with DOCKER_BUILDKIT=1 against a real fleet: what is built, is there and runs."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.support.waiting import wait_until

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


def command(fleet: Fleet, *words: str) -> list[str]:
    return [DOCKER, "-H", f"unix://{fleet.rig.run_folder('n1')}/docker.sock", *words]


def environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "DOCKER_BUILDKIT": "1"}


def docker(fleet: Fleet, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(fleet, *words), capture_output=True, text=True, timeout=PATIENCE, check=False,
        env=environment(home),
    )  # fmt: skip


def running(mark: str) -> bool:
    """Whether a process has that among its words."""
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in one.read_bytes().split(b"\0"):
                return True
        except OSError:
            continue  # it has ended meanwhile
    return False


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
    assert done.returncode == 1 and re.search(r"^#\d+ \d+\.\d+ oh$", done.stderr, re.MULTILINE), done.stderr
    assert "RUN echo oh; exit 7: exit code 7" in done.stderr


def test_build_with_buildkit_that_is_interrupted_leaves_no_step_behind(clean: Fleet, folder: Path) -> None:
    mark = str(1_000_000 + time.monotonic_ns() % 1_000_000)
    (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN sleep {mark}\n")
    words = command(clean, "build", "--progress=plain", str(folder))
    with subprocess.Popen(words, stderr=subprocess.PIPE, env=environment(folder.parent)) as client:
        try:
            wait_until(lambda: running(mark), deadline=PATIENCE, what="the step")
            client.send_signal(signal.SIGINT)
            client.communicate(timeout=PATIENCE)
            assert client.returncode != 0
        finally:
            client.kill()
    wait_until(lambda: not running(mark), deadline=PATIENCE, what="its end")


def test_build_with_buildkit_of_one_stage_writes_a_tar_and_reads_its_context_from_stdin(
    clean: Fleet, folder: Path
) -> None:
    home, out = folder.parent, folder.parent / "out.tar"
    words = ("build", "--target", "made", "--secret", f"id=s,src={home}/secret", "-o", f"type=tar,dest={out}")
    done = docker(clean, home, *words, str(folder))
    assert done.returncode == 0, done.stderr
    with tarfile.open(out) as made:
        said = made.extractfile("said")
        assert said is not None and said.read() == b"nobody hush\n"
        assert "src/a" in made.getnames() and "src/b" not in made.getnames()
    sent = io.BytesIO()
    gnu = tarfile.GNU_FORMAT  # the command takes what begins with a header of pax for a Dockerfile
    with tarfile.open(fileobj=sent, mode="w", format=gnu) as context:
        context.add(folder, ".")
    piped = subprocess.run(
        command(clean, "build", "-q", "--secret", f"id=s,src={home}/secret", "-"), input=sent.getvalue(),
        capture_output=True, timeout=PATIENCE, check=False, env=environment(home),
    )  # fmt: skip
    assert piped.returncode == 0 and piped.stdout.startswith(b"sha256:"), piped.stderr
