"""`flota registry token …` as a process against a fleet in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servedfleet import ServedFleet, served


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    with served(tmp_path) as made:
        yield made


def test_registry_token_is_made_listed_and_removed(fleet: ServedFleet) -> None:
    made = fleet.ok("registry", "token", "create", "--scope", "push", "--prefix", "team", "--ttl", "1h", "ci")
    assert made.splitlines() == ["Password: flota-registry-x", "docker login -u ci 127.0.0.1:5000"]
    assert fleet.ok("registry", "token", "create", "-q", "prod") == "flota-registry-x\n"
    (token, other) = fleet.json("registry", "token", "ls")
    assert (token["name"], token["scope"], token["prefix"]) == ("ci", "push", "team")
    assert (other["name"], other["scope"], other["prefix"]) == ("prod", "pull", "")
    table = fleet.ok("registry", "token", "ls").splitlines()
    assert table[0].split() == ["NAME", "ID", "SCOPE", "PREFIX", "EXPIRES"]
    assert table[1].split()[0] == "ci" and table[1].split()[-1] == "never"
    assert fleet.ok("registry", "token", "ls", "-q") == "ci\nprod\n"
    assert fleet.ok("registry", "token", "rm", "ci") == "ci\n"
    assert fleet.ok("registry", "token", "ls", "-q") == "prod\n"


@pytest.mark.parametrize(
    "words",
    [
        ("create",),
        ("create", "--scope", "all", "x"),
        ("create", "--ttl", "soon", "x"),
        ("rm",),
        ("rm", "nobody"),
    ],
)
def test_registry_token_words_that_are_wrong_are_refused_in_a_line(
    fleet: ServedFleet, words: tuple[str, ...]
) -> None:
    done = fleet.flota("registry", "token", *words)
    assert done.returncode != 0 and done.stderr and b"Traceback" not in done.stderr
    assert fleet.json("registry", "token", "ls") == []


def test_tags_of_the_registry_are_listed_and_removed(fleet: ServedFleet) -> None:
    table = fleet.ok("registry", "tags", "team/app").splitlines()
    assert table[0].split() == ["TAG", "DIGEST", "PLATFORMS"]
    assert table[1].split() == ["1", f"sha256:{'1' * 64}", "one"]
    assert fleet.ok("registry", "rm", "team/app:1") == "team/app:1\n"
    assert fleet.ok("registry", "tags", "-q", "team/app") == "2\n"
    done = fleet.flota("registry", "rm", "team/app:1", "team/app:2")
    assert done.returncode != 0 and done.stdout == b"team/app:2\n" and b"has no team/app:1" in done.stderr
    assert fleet.flota("registry", "tags", "never").returncode != 0


def test_registry_status_and_repositories_tell_what_is_copied(fleet: ServedFleet) -> None:
    told = fleet.ok("registry", "status").splitlines()
    assert told[0] == "Registry: 127.0.0.1:5000"
    assert told[1].startswith("Content: 1 repositories, 2 blobs, 30")
    assert told[2] == "Copies: only 0 of 2 hosts have all of it by now"
    assert fleet.json("registry", "status")[0]["wanted"] == 2
    table = fleet.ok("registry", "ls").splitlines()
    assert table[0].split() == ["REPOSITORY", "TAGS", "MANIFESTS", "SIZE", "COPIES", "LOST"]
    assert table[1].split()[:3] == ["team/app", "1", "1"]
    assert fleet.ok("registry", "ls", "-q") == "team/app\n"
