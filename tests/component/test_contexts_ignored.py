"""The two files that a tar has for the build are out of what COPY sees where its ignore file says so."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.context.find import find
from image.context.ignored import without_ignored
from image.context.objects import Lease, Objects
from image.context.sinks import tar_into
from image.context.survey import lacking
from image.context.tarcontext import begun
from model.contexttree import key_of
from model.errors import InvalidInput
from tests.support.contexts import listed, store
from tests.support.images import member, tar


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return store(tmp_path / "objects")


@pytest.fixture
def lease(objects: Objects) -> Iterator[Lease]:
    with objects.leased() as one:
        yield one


def sent(objects: Objects, lease: Lease, ignore: str, file: str = "Dockerfile") -> str:
    data = tar(member(".dockerignore", ignore.encode()), member(file, b"FROM scratch\n"), member("a", b"a"))
    return tar_into(objects, lease, begun(io.BytesIO(data))[1])[0]


@pytest.mark.parametrize(
    ("ignore", "file", "left"),
    [
        ("Dockerfile\n.dockerignore\n", "Dockerfile", {"a"}),
        (".dockerignore", "Dockerfile", {"Dockerfile", "a"}),
        (".dockerfile.x\n", ".dockerfile.x", {".dockerignore", "a"}),
        ("a\n", "Dockerfile", {".dockerignore", "Dockerfile", "a"}),
        ("*\n!Dockerfile\n", "Dockerfile", {"Dockerfile", "a"}),
        ("", "Dockerfile", {".dockerignore", "Dockerfile", "a"}),
        ("docker", "./docker/Dockerfile", {".dockerignore", "docker", "a"}),
    ],
)
def test_context_is_without_the_files_of_the_build_that_are_ignored(
    ignore: str, file: str, left: set[str], objects: Objects, lease: Lease
) -> None:
    root = without_ignored(objects, lease, sent(objects, lease, ignore, file.removeprefix("./")), file)
    assert set(listed(objects, root)) == left
    assert not lacking(objects, lease, root), "sizes and keys are those of what is there"


def test_context_that_ignores_nothing_of_the_build_stays_the_same_object(
    objects: Objects, lease: Lease
) -> None:
    root = sent(objects, lease, "b")
    assert without_ignored(objects, lease, root, "Dockerfile") == root
    assert without_ignored(objects, lease, root, "none/such") == root
    assert key_of(objects.tree(root)) == key_of(objects.tree(without_ignored(objects, lease, root, "a")))


def test_ignore_file_with_a_fault_is_refused_by_its_line(objects: Objects, lease: Lease) -> None:
    with pytest.raises(InvalidInput, match=r"\.dockerignore:2"):
        without_ignored(objects, lease, sent(objects, lease, "a\n[\n"), "Dockerfile")


def test_folder_by_the_name_of_an_ignore_file_is_none(objects: Objects, lease: Lease) -> None:
    data = tar(member(".dockerignore/x", b"Dockerfile"), member("Dockerfile", b"FROM scratch\n"))
    root = tar_into(objects, lease, begun(io.BytesIO(data))[1])[0]
    assert without_ignored(objects, lease, root, "Dockerfile") == root
    assert find(objects.tree, root, ".dockerignore/x").kind == "file"
