"""An inventory as an SPDX 2.3 document in JSON. Pure.

Invariant: equal inventories at an equal time give equal bytes; ids are made of what they name.
Source: SPDX specification 2.3, "Document creation information", "Package information", annex E (external
references).
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from image.attestations import Predicate, canonical
from image.config_blob import timestamp
from image.sbom.packages import Inventory, Package, System, package_url
from model.version import VERSION

KIND = "https://spdx.dev/Document"
_ID = re.compile(r"[^A-Za-z0-9.-]+")
_NONE = "NOASSERTION"
_ADDRESS = re.compile(r"<([^<>]*)>")
_EXPRESSION = re.compile(r"[\s()]+")
_OPERATORS = ("AND", "OR", "WITH")
_IS = {"deb": "dpkg", "apk": "apk", "rpm": "rpm", "pypi": "Python metadata"}


def predicate(inventory: Inventory, name: str, at: float) -> Predicate:
    """`name`: of the image, for people; `at`: Unix seconds."""
    system = inventory.system
    packages = [_package(one, system) for one in inventory.packages]
    head: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "creationInfo": {
            "created": timestamp(int(at)).replace(".000000Z", "Z"),
            "creators": [f"Tool: flota-{VERSION}"],
            **({"comment": "; ".join(inventory.notes)} if inventory.notes else {}),
        },
    }
    root = _root(name, system)
    content = {
        "packages": [root, *packages],
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": root["SPDXID"],
            },
            *(
                {
                    "spdxElementId": root["SPDXID"],
                    "relationshipType": "CONTAINS",
                    "relatedSpdxElement": package["SPDXID"],
                }
                for package in packages
            ),
        ],
    }
    unique = hashlib.sha256(canonical([head, content])).hexdigest()
    named = {**head, "documentNamespace": f"urn:flota:sbom:{unique}", **content}
    return Predicate(kind=KIND, body=canonical(named))


def _root(name: str, system: System) -> dict[str, Any]:
    """What contains the packages: the image."""
    return {
        "name": name,
        "SPDXID": "SPDXRef-Image",
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "primaryPackagePurpose": "CONTAINER",
        **({"comment": system.name} if system.name else {}),
    }


def _package(one: Package, system: System) -> dict[str, Any]:
    uri = package_url(one, system)
    unique = hashlib.sha256(f"{uri} {one.where}".encode()).hexdigest()[:16]
    found: dict[str, Any] = {
        "name": one.name,
        "SPDXID": f"SPDXRef-Package-{one.kind}-{_ID.sub('-', one.name)[:80]}-{unique}",
        "versionInfo": one.version,
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "sourceInfo": f"{_IS[one.kind]}: {one.where}",
        "licenseConcluded": _NONE,
        "licenseDeclared": _declared(one.license),
        "copyrightText": _NONE,
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": uri,
            }
        ],
    }
    if one.supplier:
        found["supplier"] = "Organization: " + _ADDRESS.sub(r"(\1)", one.supplier)
    if one.homepage.startswith(("http://", "https://")):
        found["homepage"] = one.homepage
    if one.license and found["licenseDeclared"] == _NONE:
        found["licenseComments"] = one.license
    return found


def _declared(said: str) -> str:
    """An expression of ids that the SPDX list has; what is none is told beside it, as it is."""
    words = [word for word in _EXPRESSION.split(said) if word]
    good = len(words) % 2 == 1 and said.count("(") == said.count(")")
    for at, word in enumerate(words):
        good = good and (word in _OPERATORS if at % 2 else word.removesuffix("+") in _LISTED)
    return said if good else _NONE


_LISTED = frozenset(
    [
        "0BSD",
        "AFL-2.1",
        "AGPL-3.0",
        "AGPL-3.0-only",
        "AGPL-3.0-or-later",
        "Apache-1.1",
        "Apache-2.0",
        "Artistic-1.0",
        "Artistic-2.0",
        "BSD-1-Clause",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSD-4-Clause",
        "BSL-1.0",
        "BlueOak-1.0.0",
        "CC0-1.0",
        "CC-",
        "BY-3.0",
        "CC-BY-4.0",
        "CDDL-1.0",
        "EPL-1.0",
        "EPL-2.0",
        "EUPL-1.2",
        "FSFAP",
        "FTL",
        "GFDL-1.3-or-later",
        "GPL-1.0-or-later",
        "GPL-2.0",
        "GPL-2.0-only",
        "GPL-2.0-or-later",
        "GPL-3.0",
        "GPL-3.0-only",
        "GPL-3.0-or-later",
        "HPND",
        "ICU",
        "IJG",
        "ISC",
        "LGPL-2.0-only",
        "LGPL-2.0-or-later",
        "LGPL-2.1",
        "LGPL-2.1-only",
        "LGPL-2.1-or-later",
        "LGPL-3.0",
        "LGPL-3.0-only",
        "LGPL-3.0-or-later",
        "MIT",
        "MIT-0",
        "MPL-1.1",
        "MPL-2.0",
        "NCSA",
        "OFL-1.1",
        "OpenSSL",
        "PSF-2.0",
        "PostgreSQL",
        "Python-2.0",
        "Unicode-DFS-2016",
        "Unlicense",
        "Vim",
        "W3C",
        "WTFPL",
        "X11",
        "ZPL-2.1",
        "Zlib",
        "bzip2-1.0.6",
        "curl",
    ]
)
"""Of the SPDX licence list those that packages bear."""
