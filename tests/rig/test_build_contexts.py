"""Contexts of all kinds on a fleet: by the command line, over the wire, to a host that is another."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.fleet import Fleet
from tests.rig.conftest import IMAGE
from tests.support.contexts import bound_socket, grow
from tests.support.gitserver import Repository, git
from tests.support.images import member, tar
from tests.support.waiting import wait_until

pytestmark = pytest.mark.rig
LIST = "cd /shown && for f in $(find . -type f | sort); do echo $f $(cat $f); done"
SHOW = f"FROM {IMAGE}\nCOPY sub /shown\nCMD {LIST}\n"


def shown(fleet: Fleet, host: str, *words: str, stdin: bytes | None = None) -> list[str]:
    """Lines of what an image of the context shows, built on one host and run there."""
    fleet.flota("n1", "build", "-q", "--host", host, "-t", "shown:1", *words, stdin=stdin)
    return fleet.flota("n1", "run", "--rm", "--node", host, "shown:1").splitlines()


@pytest.fixture
def repositories(clean: Fleet, tmp_path: Path) -> Iterator[str]:
    """A git host on n1 with the repository `a`: the URL before its name."""
    one = Repository(tmp_path / "served/a")
    one.commit({"Dockerfile": SHOW.encode(), "sub/f": b"tagged", "sub/run.sh": b"#!/bin/sh"})
    git(one.folder, "tag", "v1")
    one.commit({"sub/f": b"later"})
    address = clean.rig.hosts[0].address
    words = ["env", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"]
    words += ["git", "daemon", "--export-all", "--reuseaddr", f"--base-path={one.folder.parent}"]
    process = clean.rig.spawn("n1", words, log=str(tmp_path / "git-daemon"))
    url = f"git://{address}/a"
    probe = ["git", "ls-remote", url]
    wait_until(
        lambda: clean.rig.exec("n1", probe, check=False).returncode == 0, deadline=20, what="git daemon"
    )
    yield url
    process.terminate()
    process.wait(10)


def test_repository_is_a_context_and_is_added(clean: Fleet, repositories: str, tmp_path: Path) -> None:
    assert shown(clean, "n2", "--private-addresses", f"{repositories}#v1") == [
        "./f tagged",
        "./run.sh #!/bin/sh",
    ]
    assert shown(clean, "n2", "--private-addresses", repositories)[0] == "./f later"
    refused = clean.attempt("n1", "build", "--host", "n2", repositories)
    assert refused.returncode == 1 and b"--private-addresses" in refused.stderr
    text = f"FROM {IMAGE}\nADD --keep-git-dir=true {repositories}#v1 /shown/\n"
    text += "CMD cat /shown/sub/f /shown/.git/HEAD\n"
    grow(tmp_path / "adding", {"Dockerfile": text.encode()})
    lines = shown(clean, "n3", "--private-addresses", str(tmp_path / "adding"))
    assert lines[0].startswith("tagged") and len(lines[-1]) >= 40


def test_folder_tar_and_dockerfile_on_standard_input_are_contexts(clean: Fleet, tmp_path: Path) -> None:
    files: dict[str, bytes | str | None] = {
        "Dockerfile": SHOW.encode(),
        ".dockerignore": b"**/*.log\nsub/secret*\n!sub/secret-not\n",
        "sub/a": b"A",
        "sub/x.log": b"log",
        "sub/secret": b"key",
        "sub/secret-not": b"N",
        "elsewhere/huge": b"\0" * 5_000_000,
    }
    top = grow(tmp_path / "top", files)
    os.mkfifo(top / "sub/pipe")
    bound_socket(top / "sub/sock")
    assert shown(clean, "n2", str(top)) == ["./a A", "./secret-not N"]
    (top / "sub/a").write_bytes(b"B")
    assert shown(clean, "n2", str(top)) == ["./a B", "./secret-not N"]
    piped = tar(member("Dockerfile", SHOW.encode()), member("sub/t", b"T"))
    assert shown(clean, "n2", "-", stdin=piped) == ["./t T"]
    packed = subprocess.run(["xz", "-c"], input=piped, capture_output=True, check=True).stdout
    assert shown(clean, "n3", "-", stdin=packed) == ["./t T"]
    alone = f"FROM {IMAGE}\nRUN mkdir /shown && echo D >/shown/d\nCMD cat /shown/d\n".encode()
    assert shown(clean, "n2", "-", stdin=alone) == ["D"]
    other = SHOW.replace("sub", "elsewhere").replace("$(cat $f)", "$(wc -c <$f)").encode()
    assert shown(clean, "n2", "-f", "-", str(top), stdin=other) == ["./huge 5000000"]
