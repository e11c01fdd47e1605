"""Databases of package managers, which whoever made an image wrote: sound packages, or the reader's error."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image.sbom import packages, rpm, rpmdb
from image.sbom.packages import MAX_FIELD, Package, package_url
from tests.unit.test_sbom import BASH, DEBIAN, STATUS, TABLE, database

FULL = os.environ.get("FLOTA_FULL") == "1"
examples = settings(
    max_examples=10_000 if FULL else 150, deadline=None, suppress_health_check=list(HealthCheck)
)
Edits = list[tuple[int, bytes]]
EDITS = st.lists(st.tuples(st.integers(0, 9000), st.binary(min_size=1, max_size=9)), max_size=5)
APK = b"P:musl\nV:1.2\nA:x86_64\nL:MIT\n\nP:busybox\nV:1\no:busybox\n"
METADATA = b"Metadata-Version: 2.1\nName: Foo.Bar\nVersion: 1.0\nLicense: UNKNOWN\n\ntext: of people\n"
RPMS = database(TABLE, rows=(BASH, b"junk", BASH))


def edited(seed: bytes, edits: Edits, cut: int) -> bytes:
    data = bytearray(seed[:cut] if cut % 3 == 0 else seed)
    for at, piece in edits:
        begin = at % (len(data) + 1)
        data[begin : begin + len(piece)] = piece
    return bytes(data)


def sound(found: Package) -> None:
    fields = (found.name, found.version, found.arch, found.license, found.supplier, found.source)
    assert found.name and found.version
    assert all(len(field) <= 3 * MAX_FIELD and (not field or field.isprintable()) for field in fields)
    assert "\n" not in package_url(found, DEBIAN)


@pytest.mark.parametrize(
    ("parse", "seed"), [(packages.dpkg, STATUS), (packages.apk, APK), (packages.python, METADATA)]
)
@examples
@given(edits=EDITS, cut=st.integers(0, 2000), junk=st.binary(max_size=200))
def test_text_of_any_package_manager_gives_sound_packages(
    parse: Callable[[bytes, str], Iterator[Package]], seed: bytes, edits: Edits, cut: int, junk: bytes
) -> None:
    for data in (edited(seed, edits, cut), junk):
        for found in parse(data, "/where"):
            sound(found)


@examples
@given(edits=EDITS, cut=st.integers(0, 1000))
def test_header_of_rpm_gives_a_sound_package_or_none(edits: Edits, cut: int) -> None:
    found = rpm.package(edited(BASH, edits, cut), "/where")
    if found is not None:
        sound(found)


@examples
@given(edits=EDITS, cut=st.integers(0, 20_000))
def test_database_of_rpm_gives_sound_packages_or_its_error(edits: Edits, cut: int) -> None:
    with contextlib.suppress(rpmdb.Error):
        for found in rpmdb.packages(edited(RPMS, edits, cut), "/where"):
            sound(found)


@examples
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_release_of_any_bytes_is_a_system(data: bytes) -> None:
    found = packages.system(data)
    assert all(len(field) <= MAX_FIELD for field in (found.ident, found.version, found.name))
