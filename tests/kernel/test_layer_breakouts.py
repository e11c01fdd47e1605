"""Attacks that others found, against our extractor: each is refused, or lands inside."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from image.store import ImageStore
from tests.support.breakouts import (
    CONTAINERD,
    CPYTHON,
    DOCKER,
    REFUSED_WHITEOUTS,
    WHITEOUTS,
    archive,
)
from tests.support.images import chunks, image, oci_archive
from tests.support.layerplaces import LayerPlace

pytestmark = pytest.mark.kernel


def refused_or_inside(place: LayerPlace, data: bytes) -> None:
    """That nothing outside changed, the place's fixture looks at; here: that nothing from there came in."""
    result = place.unpack(data)
    if "error" in result:
        assert result["error"]["code"] in ("damaged", "unsupported"), result
        assert "\n" not in result["error"]["message"]
    outside = {os.lstat(path).st_ino for path in (place.victim, *place.victim.iterdir())}
    for path in place.target.rglob("*"):
        assert os.lstat(path).st_ino not in outside
        if path.is_file() and not path.is_symlink():
            assert path.read_bytes() not in (b"untouched", b"secret")


@pytest.mark.parametrize("entries", DOCKER.values(), ids=DOCKER)
def test_breakout_that_docker_knows_is_refused_or_stays_inside(
    place: LayerPlace, entries: tuple[str, ...]
) -> None:
    refused_or_inside(place, archive(*entries))


@pytest.mark.parametrize(("entries", "inside"), CONTAINERD.values(), ids=CONTAINERD)
def test_link_goes_where_containerd_takes_it(
    place: LayerPlace, entries: tuple[str, ...], inside: str
) -> None:
    refused_or_inside(place, archive(*entries))
    first, _, second = inside.partition(" == ")
    path = place.target / first
    if second:
        assert os.lstat(path).st_ino == os.lstat(place.target / second).st_ino
    else:
        assert path.read_bytes() == entries[-1].encode()


@pytest.mark.parametrize("entries", CPYTHON.values(), ids=CPYTHON)
def test_attack_on_cpythons_filters_is_refused_or_stays_inside(
    place: LayerPlace, entries: tuple[str, ...]
) -> None:
    refused_or_inside(place, archive(*entries))


COLLECTED = """
import base64, contextlib, json, os, sys, tempfile, unittest

found = []

class Kept(Exception):
    pass

@contextlib.contextmanager
def kept(case, tar, *words, **more):
    found.append(base64.b64encode(tar.fileobj.getvalue()).decode())
    raise Kept
    yield

os.chdir(tempfile.mkdtemp(dir=sys.argv[1]))
with contextlib.suppress(ImportError, AttributeError):
    from test import test_tarfile
    cases = type("Taken", (test_tarfile.TestExtractionFilters,), {"check_context": kept})
    for name in unittest.TestLoader().getTestCaseNames(cases):
        if "check_context" in getattr(cases, name).__code__.co_names:
            with contextlib.suppress(Kept):
                getattr(cases(name), name)()
    assert len(found) > 10, found
print(json.dumps(found))
"""


def archives_of_the_interpreter(folder: Path) -> list[bytes]:
    """What the interpreter's own tests of extraction filters extract, where it has them."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COLLECTED, folder], capture_output=True, check=True
    )
    return [base64.b64decode(text) for text in json.loads(done.stdout)]


def test_archives_of_the_interpreters_own_tests_are_refused_or_stay_inside(tmp_path: Path) -> None:
    for number, data in enumerate(archives_of_the_interpreter(tmp_path)):
        (tmp_path / f"base{number}").mkdir()
        place = LayerPlace(tmp_path / f"base{number}")
        before = place.census()
        refused_or_inside(place, data)
        assert place.census() == before


@pytest.mark.parametrize(("below", "layer", "there", "gone"), WHITEOUTS.values(), ids=WHITEOUTS)
async def test_whiteout_hides_what_it_names_and_nothing_else(
    store: ImageStore, below: tuple[str, ...], layer: tuple[str, ...], there: str, gone: str
) -> None:
    """B46."""
    built = image([archive(*below), archive(*layer)])
    [record] = await store.load(chunks(oci_archive(built)))
    await store.prepare_root("c", record.id)
    root = Path((await store.mount_root("c")).path)
    assert os.path.lexists(root / there) and not os.path.lexists(root / gone)


@pytest.mark.parametrize("name", REFUSED_WHITEOUTS)
def test_whiteout_of_a_folder_by_its_dots_is_refused(place: LayerPlace, name: str) -> None:
    """B46."""
    assert place.unpack(archive("etc/", "etc/passwd", name))["error"]["code"] == "damaged"
