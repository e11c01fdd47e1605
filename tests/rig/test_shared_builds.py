"""One build cache for all hosts of a fleet: what was built on one is on no other built again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.rig.support import told

pytestmark = [pytest.mark.rig, pytest.mark.timeout(300)]
FILE = f"""\
FROM {IMAGE}
COPY data /data
RUN head -c 16 /dev/urandom | md5sum > /made
RUN cat /made /data > /both
"""


def built(fleet: Fleet, host: str, context: Path, name: str, *more: str) -> tuple[str, str]:
    """The image's id, and what the build said."""
    words = ["build", "--host", host, "--progress", "plain", "-t", name, "--iidfile", str(context / "iid")]
    done = fleet.attempt("n1", *words, *more, str(context))
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return (context / "iid").read_text(), said


def cached(said: str) -> int:
    return len(re.findall(r"^#\d+ CACHED", said, re.MULTILINE))


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(FILE)
    (folder / "data").write_text(str(tmp_path))
    return folder


def test_build_on_a_second_host_is_all_cached_and_gives_the_same_image(clean: Fleet, context: Path) -> None:
    first, said = built(clean, "n1", context, "shared:1")
    assert cached(said) == 0
    second, said = built(clean, "n2", context, "shared:1")
    assert cached(said) == 3, said
    assert second == first, "what a RUN drew by lot on n1 is in it"
    assert len(re.findall(r"^#\d+ CACHED.*\bn1\b", said, re.MULTILINE)) == 3, said
    _, said = built(clean, "n2", context, "shared:1")
    assert cached(said) == 3 and not re.search(r"^#\d+ CACHED.*\bn1\b", said, re.MULTILINE), said
    holders = {i["host"] for i in told(clean, "/v1/images") if i["image"]["id"] == first}
    assert len(holders) == 2


def test_build_takes_its_steps_from_a_folder_of_the_client(clean: Fleet, context: Path) -> None:
    folder = context.parent / "cache"
    first, _ = built(clean, "n1", context, "kept:1", "--cache-to", f"type=local,dest={folder}")
    assert (folder / "index.json").exists()
    clean.flota("n1", "builder", "prune", "--all", "--force")
    assert told(clean, "/v1/builder/cache") and not any(
        one.get("entries") for one in told(clean, "/v1/builder/cache")
    )
    second, said = built(clean, "n3", context, "kept:1", "--cache-from", f"type=local,src={folder}")
    assert second == first
    assert cached(said) == 3, said
