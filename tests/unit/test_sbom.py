"""Packages as their managers' databases tell of them, and the SPDX document that is made of them."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import struct
import time
import zlib

import msgspec
import pytest

from image.sbom import packages, rpm, rpmdb, scanjob, scanner, spdx
from image.sbom.packages import Inventory, Package, System, package_url
from model.errors import Damaged, Exhausted, Internal

DEBIAN = System(ident="debian", version="12", name="Debian GNU/Linux 12")
STATUS = b"""Package: libc6
Status: install ok installed
Maintainer: GNU Libc <libc@example.org>
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+deb12u4
Homepage: https://gnu.org/libc
Description: the library
 Version: 9.9
 Package: not-one

Package: gone
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok half-installed
Version: 1

Package: nameless-version
Status: install ok installed
"""


def header(*values: tuple[int, bytes | int]) -> bytes:
    index = data = b""
    for tag, value in values:
        if isinstance(value, int):
            data += bytes(-len(data) % 4)
            index += struct.pack(">IIII", tag, 4, len(data), 1)
            data += struct.pack(">I", value)
        else:
            index += struct.pack(">IIII", tag, 6, len(data), 1)
            data += value + b"\0"
    return struct.pack(">II", len(values), len(data)) + index + data


BASH = header(
    (1000, b"bash"), (1001, b"5.2"), (1002, b"1.fc40"), (1003, 2), (1022, b"x86_64"), (1044, b"bash.src.rpm")
)


# -- databases ----------------------------------------------------------------------------------------
def test_dpkg_tells_of_what_is_installed_alone() -> None:
    [found] = packages.dpkg(STATUS, "/s")
    assert found == Package(
        kind="deb", name="libc6", version="2.36-9+deb12u4", arch="amd64", source="glibc", where="/s",
        supplier="GNU Libc <libc@example.org>", homepage="https://gnu.org/libc",
    )  # fmt: skip


def test_file_of_a_distroless_image_needs_no_status() -> None:
    assert [one.name for one in packages.dpkg(b"Package: tzdata\nVersion: 1\n", "/d")] == ["tzdata"]


def test_apk_tells_of_a_package_a_block() -> None:
    text = (
        b"C:Q1x\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\nm:A <a@b>\nF:lib\nR:ld.so\n\n"
        b"P:busybox\nV:1.36\no:bb\n\nV:2\n"
    )
    first, second = packages.apk(text, "/a")
    assert (first.name, first.version, first.license, first.source) == ("musl", "1.2.5-r0", "MIT", "")
    assert (second.name, second.source) == ("busybox", "bb")


def test_python_metadata_is_read_to_the_end_of_its_head() -> None:
    data = b"Metadata-Version: 2.1\r\nName: Foo.Bar\r\nVersion: 1.0\r\nLicense: UNKNOWN\r\n\r\nName: evil\r\n"
    [found] = packages.python(data, "/m")
    assert (found.name, found.version, found.license) == ("Foo.Bar", "1.0", "")
    assert list(packages.python(b"Name: x\n", "/m")) == []


def test_rpm_header_gives_version_release_and_epoch() -> None:
    found = rpm.package(BASH, "/r")
    assert found is not None
    assert (found.name, found.version, found.arch, found.source) == (
        "bash",
        "2:5.2-1.fc40",
        "x86_64",
        "bash.src.rpm",
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        BASH[:-1],
        struct.pack(">II", 0xFFFFFFFF, 0xFFFFFFFF),
        struct.pack(">IIIIII", 1, 4, 1000, 6, 0xFFFFFF00, 1) + b"abcd",
        header((1000, b"gpg-pubkey"), (1001, b"1")),
    ],
)
def test_what_is_no_rpm_header_is_no_package(data: bytes) -> None:
    assert rpm.package(data, "/r") is None


@pytest.mark.parametrize("tag", [1000, 5000])
def test_header_that_leads_to_one_endless_value_again_and_again_is_read_quickly(tag: int) -> None:
    size, count = 8 << 20, 65_000
    data = struct.pack(">II", count, size) + struct.pack(">IIII", tag, 6, 0, 1) * count + b"x" * size
    began = time.thread_time()
    assert rpm.package(data, "/r") is None
    assert time.thread_time() - began < 3.0


def test_value_that_is_very_long_is_cut() -> None:
    found = rpm.package(header((1000, b"n" * 90_000), (1001, b"1")), "/r")
    assert found is not None and found.name == "n" * packages.MAX_FIELD


def test_any_bytes_as_a_header_end_in_a_package_or_none() -> None:
    for number in range(200):
        cut = bytearray(BASH)
        cut[(7 * number) % len(cut)] ^= 1 << number % 8
        found = rpm.package(bytes(cut), "/r")
        assert found is None or found.name


def test_fields_are_cut_and_of_one_line_and_printable() -> None:
    [found] = packages.dpkg(b"Package: a\x1b[31m\xff\nVersion: " + b"9" * 5000 + b"\n", "/s")
    assert "\x1b" not in found.name and len(found.version) == packages.MAX_FIELD


def test_os_release_is_read_with_and_without_quotes() -> None:
    assert packages.system(b'# c\nID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n') == System(
        ident="debian", version="12", name="Debian 12"
    )


@pytest.mark.parametrize(
    ("package", "on", "url"),
    [
        (
            Package(kind="deb", name="libc6", version="2.36-9+b1", arch="amd64", source="glibc"),
            DEBIAN,
            "pkg:deb/debian/libc6@2.36-9%2Bb1?arch=amd64&distro=debian-12&upstream=glibc",
        ),
        (Package(kind="apk", name="musl", version="1"), System(), "pkg:apk/alpine/musl@1"),
        (
            Package(kind="rpm", name="Bash", version="2:5.2-1", arch="x86_64"),
            System(ident="fedora", version="40"),
            "pkg:rpm/fedora/Bash@5.2-1?arch=x86_64&distro=fedora-40&epoch=2",
        ),
        (Package(kind="pypi", name="Foo_.bar", version="1.0"), DEBIAN, "pkg:pypi/foo-bar@1.0"),
        (Package(kind="deb", name="a/../b?c", version="1"), System(), "pkg:deb/debian/a%2F..%2Fb%3Fc@1"),
    ],
)
def test_package_url_is_spelt_as_its_type_has_it(package: Package, on: System, url: str) -> None:
    assert package_url(package, on) == url


# -- rpm's database -----------------------------------------------------------------------------------
def database(*statements: str, rows: tuple[bytes, ...] = ()) -> bytes:
    with contextlib.closing(sqlite3.connect(":memory:")) as made:
        for statement in statements:
            made.execute(statement)
        for row in rows:
            made.execute("INSERT INTO Packages(blob) VALUES (?)", (row,))
        made.commit()
        return made.serialize()


TABLE = "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)"


@pytest.mark.parametrize("logged", [False, True])
def test_rpm_database_gives_its_packages(logged: bool) -> None:
    data = database(TABLE, rows=(BASH, b"junk"))
    if logged:  # as one in WAL mode says of itself
        data = data[:18] + b"\2\2" + data[20:]
    assert [one.name for one in rpmdb.packages(data, "/r")] == ["bash"]


def test_empty_file_is_a_database_of_no_packages() -> None:
    assert list(rpmdb.packages(b"", "/r")) == []


def test_rpm_database_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpmdb, "STEPS", 3_000_000)
    endless = (
        "CREATE VIEW Packages AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) "
        "SELECT x AS blob FROM c"
    )
    with pytest.raises(rpmdb.Error):
        list(rpmdb.packages(database(endless), "/r"))


@pytest.mark.parametrize("blob", ["blob", "x''", "1", "'text'"])
def test_rpm_database_that_gives_one_header_again_and_again_is_ended(blob: str) -> None:
    again = (
        "CREATE VIEW Packages AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 100000) "
        f"SELECT {blob} AS blob FROM c, held"
    )
    held = f"CREATE TABLE held AS SELECT x'{BASH.hex()}' AS blob"
    with pytest.raises(rpmdb.Error, match="more than it holds"):
        list(rpmdb.packages(database(held, again), "/r"))


@pytest.mark.parametrize("data", [b"x" * 100, database(TABLE)[:600], database("CREATE TABLE a (b)")])
def test_what_is_no_rpm_database_is_told(data: bytes) -> None:
    with pytest.raises(rpmdb.Error):
        list(rpmdb.packages(data, "/r"))


# -- the document --------------------------------------------------------------------------------------
INVENTORY = Inventory(
    packages=(
        Package(kind="deb", name="libc6", version="1", license="", supplier="A <a@b>", where="/s"),
        Package(
            kind="apk", name="musl", version="1", license="MIT AND (Apache-2.0 OR GPL-2.0-only)", where="/a"
        ),
        Package(kind="pypi", name="x", version="1", license="MIT License", where="/p"),
    ),
    system=DEBIAN,
    notes=("/r can't be read",),
)


def test_document_has_what_spdx_demands() -> None:
    found = json.loads(spdx.predicate(INVENTORY, "app:1", 0).body)
    assert (found["spdxVersion"], found["dataLicense"], found["SPDXID"]) == (
        "SPDX-2.3", "CC0-1.0", "SPDXRef-DOCUMENT",
    )  # fmt: skip
    assert found["creationInfo"]["created"] == "1970-01-01T00:00:00Z"
    assert found["creationInfo"]["creators"][0].startswith("Tool: flota-")
    assert "/r can't be read" in found["creationInfo"]["comment"]
    ids = [one["SPDXID"] for one in found["packages"]]
    assert len(set(ids)) == len(ids) == 4
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-")
    assert all(set(ident.removeprefix("SPDXRef-")) <= allowed for ident in ids)
    known = {*ids, "SPDXRef-DOCUMENT"}
    for one in found["relationships"]:
        assert {one["spdxElementId"], one["relatedSpdxElement"]} <= known
    described = [one for one in found["relationships"] if one["relationshipType"] == "DESCRIBES"]
    assert [one["relatedSpdxElement"] for one in described] == [ids[0]]
    assert [one["licenseDeclared"] for one in found["packages"][1:]] == [
        "NOASSERTION", "MIT AND (Apache-2.0 OR GPL-2.0-only)", "NOASSERTION",
    ]  # fmt: skip
    assert found["packages"][3]["licenseComments"] == "MIT License"
    assert found["packages"][1]["supplier"] == "Organization: A (a@b)"


def test_document_is_the_same_for_the_same_and_another_for_another() -> None:
    one = spdx.predicate(INVENTORY, "app:1", 7)
    assert one == spdx.predicate(INVENTORY, "app:1", 7)
    other = spdx.predicate(Inventory(), "app:1", 7)
    assert json.loads(one.body)["documentNamespace"] != json.loads(other.body)["documentNamespace"]


# -- what the process says -----------------------------------------------------------------------------
def test_answer_of_the_process_is_its_inventory() -> None:
    said = zlib.compress(msgspec.msgpack.encode(scanjob.Result(inventory=INVENTORY)))
    assert scanner.answer(said).inventory == INVENTORY


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", Damaged),
        (b"Traceback: no", Internal),
        (zlib.compress(b"\xc1"), Internal),
        (os.urandom(1 << 20), Exhausted),
        (zlib.compress(bytes(scanner.MAX_SAID + 1)), Exhausted),
    ],
    ids=["killed", "words", "no answer", "too long", "bomb"],
)
def test_answer_that_is_none_is_refused(said: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        scanner.answer(said)
