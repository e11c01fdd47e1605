"""What a bundle is made of, and the words to the installer and back."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from deploy import bundle, releases
from deploy.bundle import HOME, LOCK, PACKAGES, Target, _why, build, release_name
from model.errors import Damaged, Exhausted, InUse, InvalidInput, Unavailable, Unsupported
from model.version import VERSION

PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text())


def locked(text: str) -> dict[str, str]:
    pairs = (line.partition("==") for line in re.findall(r"^\S+==\S+", text, re.MULTILINE))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, _, version in pairs}


def test_version_is_that_of_the_project() -> None:
    assert PROJECT["project"]["version"] == VERSION


def test_lock_has_digests_of_every_dependency() -> None:
    entries = re.split(
        r"^(?=\S+==)", re.sub(r"^#.*\n", "", LOCK.read_text(), flags=re.MULTILINE), flags=re.MULTILINE
    )
    for entry in filter(None, entries):
        assert re.fullmatch(r"\S+==\S+( \\\n +--hash=sha256:[0-9a-f]{64})+\n", entry), entry[:60]


def test_packages_are_those_of_the_wheel() -> None:
    assert list(PACKAGES) == PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_lock_has_every_dependency_in_the_version_that_is_tested() -> None:
    shipped, tested = locked(LOCK.read_text()), locked((HOME / "requirements.lock").read_text())
    assert shipped.items() <= tested.items()
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    needed: set[str] = set()
    while wanted:
        one = wanted.pop()
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name not in needed and (one.marker is None or one.marker.evaluate({"extra": ""})):
            needed.add(name)
            wanted += [Requirement(text) for text in requires(name) or ()]
    assert needed == set(shipped)


def test_release_name_is_version_and_content() -> None:
    assert re.fullmatch(re.escape(VERSION) + r"-[0-9a-f]{12}", release_name())
    assert release_name() == release_name()


def test_what_vagrant_leaves_in_a_clone_is_in_no_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "HOME", tmp_path)
    kept = ("cli/main.py", "deploy/rig/qemu.py")
    left = (
        "deploy/vagrant/x.key",
        "deploy/vagrant/x.box",
        "deploy/vagrant/.vagrant/private_key",
        "cli/.a/b.py",
    )
    for name in (*kept, *left):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [name for name, _ in bundle._own_files()] == list(kept)


@pytest.mark.parametrize(
    "target", [Target(python="3.8"), Target(python="2.7"), Target(python="3.11; rm"), Target(machine="../x")]
)
def test_target_that_no_host_is_of_is_refused(target: Target, tmp_path: Path) -> None:
    with pytest.raises((InvalidInput, Unsupported)):
        build(target, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("/usr/bin/python3: No module named pip\n", Unsupported, "pip"),
        (
            "ERROR: No such version\nERROR: No matching distribution found for isal==1",
            Unsupported,
            "isal",
        ),
        (
            "Retrying: connection broken\nERROR: No matching distribution found for a",
            Unavailable,
            "fetched",
        ),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have…\n"
            "    idna==3.20 from https://index/idna.whl#sha256=ab (from -r lock (line 1)):\n"
            "        Expected sha256 00\n",
            Damaged,
            "idna==3.20: the index has another file",
        ),
        ("ERROR: Could not install: [Errno 28] No space left on device", Exhausted, "room"),
        ("", Unavailable, "nothing"),
    ],
)
def test_pips_last_words_become_an_error_of_ours(said: str, kind: type[Exception], words: str) -> None:
    error = _why(Target(), said)
    assert type(error) is kind
    assert words in str(error)


def test_installer_words_say_only_what_is_meant() -> None:
    assert releases.install("1-a", "00", root="/o") == (
        *("python3", "-", "install", "--root", "/o"),
        *("--archive", "/o/incoming/1-a.tar.gz", "--sha256", "00"),
    )
    said = releases.switch("1-a", ("agent", "controller"), command="", python="python3.12")
    assert said[-4:] == ("--release", "1-a", "--daemons", "agent,controller")


def test_installers_answer_is_read_whatever_stands_before_it() -> None:
    found = releases.answer("h1", 0, b'motd\n{"current": "1-a", "running": ["1-a"], "more": 1}\n', b"")
    assert (found.current, found.running, found.previous) == ("1-a", ("1-a",), "")


def test_installers_refusal_is_raised_with_the_hosts_name() -> None:
    with pytest.raises(InUse, match=r"h1: busy\. Wait"):
        releases.answer("h1", 1, b'{"error": {"code": "in_use", "message": "busy", "hint": "Wait"}}', b"")


@pytest.mark.parametrize("out", [b"", b"[]", b"\xff", b'{"releases": 3}'])
def test_installer_that_did_not_run_is_told_in_its_own_last_words(out: bytes) -> None:
    with pytest.raises(Unavailable, match="h1: the installer did not run: sh: python3: not found"):
        releases.answer("h1", 127, out, b"sh: python3: not found\n")


def test_installer_is_read_by_old_pythons_too() -> None:
    """So that they get to say what they lack; 3.8 is the oldest grammar that `ast` vouches for."""
    text = (HOME / "deploy/installer.py").read_text()
    parsed = ast.parse(text, feature_version=(3, 7))
    for node in ast.walk(parsed):
        if isinstance(node, ast.FunctionDef):
            for argument in (*node.args.args, *node.args.kwonlyargs):
                assert not isinstance(argument.annotation, ast.Subscript), f"line {node.lineno}"
            assert not isinstance(node.returns, ast.Subscript), f"line {node.lineno}"
