"""Lists of manifests that are put together by hand: pure rules."""

from __future__ import annotations

import json

import pytest

from cli.parse.manifests import (
    ManifestList,
    amended,
    annotated,
    document,
    members_of,
    origins,
    repository_of,
)
from model.errors import AlreadyExists, InvalidInput, NotFound
from model.remoteimages import RemoteImage

IMAGE = "application/vnd.oci.image.manifest.v1+json"


def remote(ref: str, number: int, *platforms: str) -> RemoteImage:
    text = json.dumps({"schemaVersion": 2, "config": {}, "layers": []})
    digest = f"sha256:{number:064}"
    return RemoteImage(ref=ref, digest=digest, size=9, media_type=IMAGE, document=text, platforms=platforms)


AMD = members_of("r.example/amd:1", remote("r.example/amd:1", 1, "linux/amd64"))
ARM = members_of("r.example/arm:1", remote("r.example/arm:1", 2, "linux/arm/v7"))
LIST = amended(None, "r.example/all:1", (*AMD, *ARM), amend=False)


def test_list_is_an_index_of_its_images_with_their_platforms() -> None:
    index = json.loads(document(LIST))
    assert index["schemaVersion"] == 2 and index["mediaType"].endswith("image.index.v1+json")
    assert index["manifests"][0] == {
        "mediaType": IMAGE, "digest": f"sha256:{1:064}", "size": 9,
        "platform": {"os": "linux", "architecture": "amd64"},
    }  # fmt: skip
    assert index["manifests"][1]["platform"] == {"os": "linux", "architecture": "arm", "variant": "v7"}


def test_index_brings_all_that_it_names() -> None:
    inner = RemoteImage(ref="r.example/all:1", digest="x", document=document(LIST))
    found = members_of("r.example/all:1", inner)
    assert [member.digest for member in found] == [f"sha256:{1:064}", f"sha256:{2:064}"]
    assert document(ManifestList(ref="other", members=found)) == document(LIST)


def test_index_that_does_not_say_what_it_names_brings_images() -> None:
    bare = json.dumps({"schemaVersion": 2, "manifests": [{"digest": f"sha256:{1:064}", "size": 9}]})
    (found,) = members_of("r.example/all:1", RemoteImage(ref="r.example/all:1", digest="x", document=bare))
    assert (found.media_type, found.platform) == (IMAGE, {})


def test_list_that_is_there_is_only_added_to_by_will() -> None:
    with pytest.raises(AlreadyExists):
        amended(LIST, LIST.ref, AMD, amend=False)
    assert amended(LIST, LIST.ref, AMD, amend=True) == LIST


def test_annotation_changes_what_is_said_and_keeps_the_rest() -> None:
    found = annotated(LIST, "r.example/arm:1", {"variant": "v6", "os": "", "os.features": []})
    assert found.members[1].platform == {"os": "linux", "architecture": "arm", "variant": "v6"}
    assert found.members[0] == LIST.members[0]
    by_digest = annotated(LIST, f"r.example/amd@sha256:{1:064}", {"architecture": "arm64"})
    assert by_digest.members[0].platform["architecture"] == "arm64"


def test_annotation_of_what_is_not_in_the_list_is_refused() -> None:
    with pytest.raises(NotFound, match="has no manifest other"):
        annotated(LIST, "other", {"os": "linux"})


def test_image_without_a_platform_and_an_empty_list_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no platform"):
        members_of("a", remote("a", 1))
    with pytest.raises(InvalidInput, match="names no manifest"):
        document(ManifestList(ref="a"))


def test_origins_are_the_other_repositories_once_each() -> None:
    assert origins(LIST) == (f"r.example/amd@sha256:{1:064}", f"r.example/arm@sha256:{2:064}")
    own = members_of("r.example/all:2", remote("r.example/all:2", 3, "linux/amd64"))
    assert origins(amended(None, "r.example/all:1", own, amend=False)) == ()


@pytest.mark.parametrize(
    ("ref", "repository"),
    [("a", "a"), ("a:1", "a"), ("h:5000/a", "h:5000/a"), ("h:5000/a:1@sha256:00", "h:5000/a")],
)
def test_repository_is_a_name_without_tag_and_digest(ref: str, repository: str) -> None:
    assert repository_of(ref) == repository
