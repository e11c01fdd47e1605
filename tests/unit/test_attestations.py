"""What stands beside an image in its index: statements about it, as documents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from image import attestations, indexes
from image.attestations import Attached, Predicate
from image.digest import of
from image.manifest import Descriptor, Index, choose, parse_document
from image.reference import parse
from model.errors import Damaged, Exhausted, NotFound
from model.status import Platform

AMD = Platform(os="linux", arch="amd64")
ARM = Platform(os="linux", arch="arm64", variant="v8")
ABOUT = of(b"a manifest")
SAID = (
    Predicate(kind="https://spdx.dev/Document", body=b'{"a":1}'),
    Predicate(kind="https://slsa.dev/provenance/v0.2", body=b'{"b":2}'),
)
ONE = attestations.attached(ABOUT, SAID, ["docker.io/library/app:1", "host:5000/x/app:2"], AMD)
KEPT = {of(data): data for data in ONE.documents}


def got(descriptor: Descriptor) -> bytes:
    if descriptor.digest not in KEPT:
        raise NotFound("no blob")
    return KEPT[descriptor.digest]


def test_statement_is_about_the_manifest_under_all_names() -> None:
    said = json.loads(ONE.statements[0])
    digest = {"sha256": ABOUT.removeprefix("sha256:")}
    assert said == {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://spdx.dev/Document",
        "subject": [
            {"name": "pkg:docker/app@1?platform=linux%2Famd64", "digest": digest},
            {"name": "pkg:docker/host%3A5000/x/app@2?platform=linux%2Famd64", "digest": digest},
        ],
        "predicate": {"a": 1},
    }


def test_manifest_has_a_layer_for_each_statement_and_a_configuration_of_no_platform() -> None:
    manifest, config = json.loads(ONE.manifest), json.loads(ONE.config)
    assert manifest["config"]["digest"] == of(ONE.config)
    assert [(layer["mediaType"], layer["digest"], layer["annotations"]) for layer in manifest["layers"]] == [
        ("application/vnd.in-toto+json", of(data), {"in-toto.io/predicate-type": one.kind})
        for data, one in zip(ONE.statements, SAID, strict=True)
    ]
    assert (config["os"], config["architecture"]) == ("unknown", "unknown")
    assert config["rootfs"]["diff_ids"] == [of(data) for data in ONE.statements]


def test_index_entry_says_whom_it_is_about_and_no_platform_takes_it() -> None:
    image: dict[str, Any] = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": ABOUT,
        "size": 9,
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    entry = attestations.described(ONE)
    assert entry["annotations"] == {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": ABOUT,
    }
    assert entry["platform"] == {"architecture": "unknown", "os": "unknown"}
    parsed = parse_document(indexes.made([image, entry]))
    assert isinstance(parsed, Index)
    assert [member.digest for member in indexes.images_of(parsed)] == [ABOUT]
    assert choose(parsed, AMD).digest == ABOUT
    assert attestations.abouts(parsed.manifests) == {ONE.digest: ABOUT}


def test_image_without_a_name_is_a_subject_too() -> None:
    assert attestations.subjects(ABOUT, [], AMD)[0]["name"] == "_"


def test_documents_are_gathered_as_they_were_made() -> None:
    assert attestations.gathered(ONE.digest, ABOUT, got) == ONE


def test_documents_of_which_one_is_gone_are_none() -> None:
    del KEPT[of(ONE.config)]
    try:
        assert attestations.gathered(ONE.digest, ABOUT, got) is None
    finally:
        KEPT[of(ONE.config)] = ONE.config


def test_documents_that_are_too_much_are_refused_before_they_are_read() -> None:
    blob = {"digest": of(b"x"), "size": 65 << 20, "mediaType": "application/vnd.in-toto+json"}
    asked: list[str] = []

    def get(descriptor: Descriptor) -> bytes:
        asked.append(descriptor.digest)
        return json.dumps({"schemaVersion": 2, "layers": [blob]}).encode()

    with pytest.raises(Exhausted):
        attestations.gathered(of(b"m"), ABOUT, get)
    assert asked == [of(b"m")]


@pytest.mark.parametrize("data", [b"[]", b"{}", b'{"manifests":[]}', b"\xff"])
def test_what_is_no_manifest_is_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        attestations.gathered(of(b"m"), ABOUT, lambda _: data)


@pytest.mark.parametrize(
    ("name", "platform", "url"),
    [
        ("alpine", None, "pkg:docker/alpine@latest"),
        ("team/app:1.2", ARM, "pkg:docker/team/app@1.2?platform=linux%2Farm64%2Fv8"),
        (f"ghcr.io/a/b@{ABOUT}", None, f"pkg:docker/ghcr.io/a/b@{ABOUT.replace(':', '%3A')}"),
        (f"alpine:3@{ABOUT}", None, f"pkg:docker/alpine@3?digest={ABOUT.replace(':', '%3A')}"),
    ],
)
def test_package_url_of_an_image_names_it_as_people_do(
    name: str, platform: Platform | None, url: str
) -> None:
    assert attestations.package_url(parse(name), platform) == url


def test_equal_statements_are_equal_bytes() -> None:
    again = attestations.attached(ABOUT, SAID, ["docker.io/library/app:1", "host:5000/x/app:2"], AMD)
    assert again == ONE and isinstance(again, Attached)


def test_statement_that_nobody_would_read_is_refused() -> None:
    body = b'{"a":"' + b"x" * (16 << 20) + b'"}'
    with pytest.raises(Exhausted):
        attestations.statement(Predicate(kind="k", body=body), [])
