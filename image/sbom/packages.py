"""What package managers say is installed: their databases' text to packages. Pure.

The text is of whoever made the image: lines that are no entry are passed over, fields are cut, control
characters go. Sources: deb-control(5), dpkg's status and status.d; apk-tools, "installed database v2"; the
Python packaging specification "Core metadata"; os-release(5); the package URL types deb, apk, rpm, pypi.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal
from urllib.parse import quote

from model.spec import Struct

Kind = Literal["deb", "apk", "rpm", "pypi"]
MAX_FIELD = 512
"""Characters of a field."""
_GONE = ("config-files", "not-installed", "half-installed")
_PYPI = re.compile(r"[-_.]+")


class Package(Struct):
    """`source` is the package that it was built from, if it is named otherwise, `where` the file that says
    that it is there."""

    kind: Kind
    name: str
    version: str
    arch: str = ""
    license: str = ""
    supplier: str = ""
    source: str = ""
    homepage: str = ""
    where: str = ""


class System(Struct):
    """Of os-release; empty where there is none."""

    ident: str = ""
    version: str = ""
    name: str = ""


class Inventory(Struct):
    """`packages` are sorted, each once. `notes`: what could not be read, for people."""

    packages: tuple[Package, ...] = ()
    system: System = System()
    notes: tuple[str, ...] = ()


def dpkg(data: bytes, where: str) -> Iterator[Package]:
    """Of `status`, or of one file of `status.d`, which has no Status."""
    for stanza in _stanzas(data):
        state = stanza.get("status", "install ok installed").split()
        if not state or state[-1] in _GONE or not stanza.get("package") or not stanza.get("version"):
            continue
        source = stanza.get("source", "").partition(" ")[0]
        yield Package(
            kind="deb",
            name=stanza["package"],
            version=stanza["version"],
            arch=stanza.get("architecture", ""),
            supplier=stanza.get("maintainer", ""),
            source=source if source != stanza["package"] else "",
            homepage=stanza.get("homepage", ""),
            where=where,
        )


def apk(data: bytes, where: str) -> Iterator[Package]:
    """Of `installed`: a letter, a colon and a value a line."""
    for block in re.split(rb"\n\s*\n", data):
        found: dict[str, str] = {}
        for line in block.split(b"\n"):
            key, colon, value = line.partition(b":")
            if colon and len(key) == 1:
                found.setdefault(key.decode("ascii", "replace"), text(value))
        if found.get("P") and found.get("V"):
            yield Package(
                kind="apk",
                name=found["P"],
                version=found["V"],
                arch=found.get("A", ""),
                license=found.get("L", ""),
                supplier=found.get("m", ""),
                source=found.get("o", "") if found.get("o") != found["P"] else "",
                homepage=found.get("U", ""),
                where=where,
            )


def python(data: bytes, where: str) -> Iterator[Package]:
    """Of METADATA or PKG-INFO: its head alone, the text below is for people."""
    head = re.split(rb"\r?\n\r?\n", data, maxsplit=1)[0]
    fields = next(iter(_stanzas(head)), {})
    if fields.get("name") and fields.get("version"):
        said = fields.get("license-expression") or fields.get("license", "")
        yield Package(
            kind="pypi",
            name=fields["name"],
            version=fields["version"],
            license="" if said.upper() == "UNKNOWN" else said,
            supplier=fields.get("author-email") or fields.get("author", ""),
            homepage=fields.get("home-page", ""),
            where=where,
        )


def system(data: bytes) -> System:
    found: dict[str, str] = {}
    for line in data.split(b"\n"):
        key, equals, value = line.strip().partition(b"=")
        if equals and not key.startswith(b"#"):
            found[text(key)] = text(value).strip("\"'")
    return System(
        ident=found.get("ID", ""), version=found.get("VERSION_ID", ""), name=found.get("PRETTY_NAME", "")
    )


def package_url(package: Package, on: System) -> str:
    """As the package URL specification spells it."""
    qualifiers: Mapping[str, str] = {}
    if package.kind == "pypi":
        path = _quoted(_PYPI.sub("-", package.name).lower())
    else:
        distribution = "-".join(filter(None, (on.ident, on.version)))
        qualifiers = {"arch": package.arch, "distro": distribution, "upstream": package.source}
        default = {"deb": "debian", "apk": "alpine", "rpm": ""}[package.kind]
        name = package.name if package.kind == "rpm" else package.name.lower()
        path = "/".join(filter(None, (_quoted((on.ident or default).lower()), _quoted(name))))
    version = package.version
    if package.kind == "rpm" and ":" in version:
        epoch, _, version = version.partition(":")
        qualifiers = {**qualifiers, "epoch": epoch}
    said = "&".join(f"{key}={_quoted(value)}" for key, value in sorted(qualifiers.items()) if value)
    return f"pkg:{package.kind}/{path}@{_quoted(version)}" + (f"?{said}" if said else "")


def text(data: bytes) -> str:
    """One line, cut, without what no document can hold."""
    said = data[: 4 * MAX_FIELD].decode("utf-8", "replace").strip()
    return "".join(letter for letter in said if letter.isprintable())[:MAX_FIELD]


def _stanzas(data: bytes) -> Iterator[dict[str, str]]:
    """Fields by their lower-case name; of a field of several lines the first."""
    fields: dict[str, str] = {}
    for line in data.split(b"\n"):
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif line[:1] not in (b" ", b"\t"):
            key, colon, value = line.partition(b":")
            if colon:
                fields.setdefault(text(key).lower(), text(value))
    if fields:
        yield fields


def _quoted(value: str) -> str:
    return quote(value, safe=".-_~")
