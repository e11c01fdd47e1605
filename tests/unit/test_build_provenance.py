"""How an image was built, as it is stated: by the engine, with files and processes in memory."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import pytest
from msgspec.structs import replace

from image.attestations import Predicate
from image.build.base import Material
from image.build.provenance import public
from image.sbom.packages import Inventory, Package
from model.build import ANY, Context, StepBegan
from model.errors import Exhausted, Unsupported
from model.image import ImageRecord
from tests.support.builds import Lab, base

TEXT = """ARG WHAT=all
FROM base AS unused
RUN never
FROM base
ARG WHAT
RUN --mount=type=secret,id=key make $WHAT
COPY src /dst
CMD ["run"]
"""
PINNED = "sha256:" + "ab" * 32
ASKED: dict[str, Any] = {
    "args": {"WHAT": "canary-arg", "HTTPS_PROXY": "http://canary-proxy"},
    "labels": {"l": "canary-label"},
    "secrets": ("key",),
    "ssh": ("default",),
    "names": ("app",),
}


def pinned() -> ImageRecord:
    return replace(base(), digests=(f"docker.io/library/base@{PINNED}", "other.host/x@sha256:" + "cd" * 32))


def lab() -> Lab:
    it = Lab([pinned()])
    it.runner.contents = {"src": "1"}
    return it


async def stated(it: Lab, text: str = TEXT, **wishes: Any) -> dict[str, Any]:
    await it.build(text, **wishes)
    ((said,),) = it.images.stated
    found: dict[str, Any] = json.loads(said.body)
    return found


async def test_nothing_is_stated_that_nobody_asked_for() -> None:
    it = lab()
    done = await it.build(TEXT)
    assert it.images.stated == [()] and done.metadata == {}


async def test_min_tells_what_went_in_and_when_and_no_value_that_was_given() -> None:
    it = lab()
    await it.clock.advance(1_700_000_000)
    said = await stated(it, provenance="min", **ASKED)
    assert it.images.stated[0][0].kind == "https://slsa.dev/provenance/v0.2"
    assert said["builder"] == {"id": "urn:flota:builder"}
    assert said["materials"] == [
        {"uri": "pkg:docker/base@latest?platform=linux%2Famd64", "digest": {"sha256": "ab" * 32}}
    ]
    assert said["invocation"] == {
        "configSource": {"entryPoint": "Dockerfile"},
        "parameters": {"frontend": "dockerfile.v0", "locals": [{"name": "context"}]},
        "environment": {"platform": "linux/amd64"},
    }
    metadata = said["metadata"]
    assert metadata["completeness"] == {"parameters": False, "environment": True, "materials": False}
    assert metadata["buildStartedOn"].startswith("20") and metadata["buildStartedOn"].endswith("Z")
    assert len(metadata["buildInvocationID"]) == 64
    assert "canary" not in json.dumps(said) and "buildConfig" not in said


async def test_max_tells_arguments_and_steps_and_no_secret_and_no_proxy() -> None:
    it = lab()
    said = await stated(it, provenance="max", **ASKED)
    parameters = said["invocation"]["parameters"]
    assert parameters["args"] == {"build-arg:WHAT": "canary-arg", "label:l": "canary-label"}
    assert parameters["secrets"] == [{"id": "key", "optional": True}]
    assert parameters["ssh"] == [{"id": "default", "optional": True}]
    assert "canary-proxy" not in json.dumps(said)
    steps = said["buildConfig"]["steps"]
    image = it.images.images[it.images.find("app").id]
    assert [step.get("layer", "") for step in steps if "layer" in step] == list(image.layers[1:])
    assert [step["line"] for step in steps if "layer" in step] == [6, 7]
    assert not any("never" in step["instruction"] for step in steps)
    [info] = said["metadata"]["urn:flota:build:v1#metadata"]["source"]["infos"]
    assert base64.b64decode(info["data"]).decode() == TEXT


async def test_secrets_that_are_asked_for_as_they_come_are_not_listed_and_not_all() -> None:
    asked = {**ASKED, "args": {}, "secrets": (ANY,), "ssh": (ANY,)}
    said = await stated(lab(), provenance="max", **asked)
    assert not {"secrets", "ssh"} & set(said["invocation"]["parameters"])
    assert said["metadata"]["completeness"]["parameters"] is False
    said = await stated(lab(), provenance="max", **{**asked, "secrets": ("key",), "ssh": ()})
    assert said["metadata"]["completeness"]["parameters"] is True


async def test_version_one_has_the_same_in_its_own_places() -> None:
    it = lab()
    said = await stated(it, provenance="max", provenance_version="v1", builder_id="https://ci/7", **ASKED)
    assert it.images.stated[0][0].kind == "https://slsa.dev/provenance/v1"
    definition, details = said["buildDefinition"], said["runDetails"]
    assert definition["externalParameters"]["configSource"] == {"path": "Dockerfile"}
    assert definition["resolvedDependencies"][0]["digest"] == {"sha256": "ab" * 32}
    assert definition["internalParameters"]["buildConfig"]["steps"]
    assert details["builder"]["id"] == "https://ci/7"
    assert {"invocationId", "startedOn", "finishedOn"} <= details["metadata"].keys()
    assert "canary-proxy" not in json.dumps(said)


@pytest.mark.parametrize("version", ["v0.2", "v1"])
async def test_with_an_epoch_equal_builds_state_equal_bytes(version: str) -> None:
    found: list[Predicate] = []
    for seconds in (5, 5000):
        it = lab()
        await it.clock.advance(seconds)
        await it.build(
            TEXT, provenance="max", provenance_version=version, args={"SOURCE_DATE_EPOCH": "1600000000"}
        )
        found += it.images.stated[0]
    assert found[0] == found[1] and b"2020-09-13T12:26:40" in found[0].body


async def test_base_that_no_registry_has_had_is_known_by_its_id() -> None:
    it = Lab()
    said = await stated(it, "FROM base\nRUN a\n", provenance="min")
    [material] = said["materials"]
    assert material["uri"].endswith("&known_by=config")
    assert material["digest"] == {"sha256": base().id.removeprefix("sha256:")}
    assert said["metadata"]["completeness"]["materials"] is True
    assert said["metadata"]["urn:flota:build:v1#hermetic"] is False  # its RUN had a network


async def test_build_without_network_and_without_files_is_hermetic() -> None:
    said = await stated(Lab(), "FROM base\nRUN --network=none a\n", provenance="min")
    assert said["metadata"]["urn:flota:build:v1#hermetic"] is True


async def test_what_was_fetched_is_material_once_and_without_its_login() -> None:
    it = lab()
    commit = Material(uri="https://host/a.git#main", digest={"sha1": "1" * 40})
    it.fetcher.materials = [commit, commit, Material(uri="https://host/f", digest={"sha256": "2" * 64})]
    it.fetcher.trees["https://u:canary@host/a.git#main"] = "root"
    context = Context(kind="git", ref="https://u:canary@host/a.git#main")
    said = await stated(it, provenance="max", contexts=(context,))
    assert [one["uri"] for one in said["materials"]] == [
        "https://host/a.git#main",
        "https://host/f",
        "pkg:docker/base@latest?platform=linux%2Famd64",
    ]
    assert said["invocation"]["configSource"] == {
        "uri": "https://host/a.git#main", "digest": {"sha1": "1" * 40}, "entryPoint": "Dockerfile",
    }  # fmt: skip
    assert "canary" not in json.dumps(said)


async def test_metadata_file_has_the_provenance_by_buildx_key() -> None:
    it = lab()
    done = await it.build(TEXT, provenance="min")
    assert json.loads(done.metadata["buildx.build.provenance"])["buildType"] == "urn:flota:build:v1"


async def test_of_several_platforms_each_has_its_own() -> None:
    it = Lab([pinned()])
    it.runner.contents = {"src": "1"}
    done = await it.build(
        "FROM scratch\nCOPY src /\n", provenance="min", platforms=("linux/amd64", "linux/arm64")
    )
    assert [len(some) for some in it.images.stated] == [1, 1]
    assert set(done.metadata) == {
        "buildx.build.provenance/linux/amd64", "buildx.build.provenance/linux/arm64",
    }  # fmt: skip


# -- what is in it ------------------------------------------------------------------------------------
async def test_list_of_contents_is_of_the_files_of_the_result() -> None:
    it = lab()
    seen: list[str] = []

    async def scan(root: str) -> Inventory:
        seen.extend(it.snapshots.works[root].root for _ in "1")
        return Inventory(packages=(Package(kind="apk", name="musl", version="1"),))

    it.parts = dataclasses.replace(it.parts, scan=scan)
    await it.build(TEXT, sbom=True, provenance="min", names=("app",))
    spdx, provenance = it.images.stated[0]
    assert (spdx.kind, len(seen)) == ("https://spdx.dev/Document", 1)
    assert json.loads(spdx.body)["name"] == "app:latest"
    assert provenance.kind.endswith("v0.2")
    names = [said.name for said in it.session.heard if isinstance(said, StepBegan)]
    assert names[-3:] == [
        "listing the image's packages", "stating the image's provenance", "exporting the image",
    ]  # fmt: skip
    assert it.snapshots.open == 0


async def test_list_that_fails_fails_the_build_and_leaves_no_image() -> None:
    it = lab()

    async def scan(root: str) -> Inventory:
        raise Exhausted("too many")

    it.parts = dataclasses.replace(it.parts, scan=scan)
    before = set(it.images.images)
    with pytest.raises(Exhausted):
        await it.build(TEXT, sbom=True)
    assert set(it.images.images) == before


async def test_builder_that_lists_nothing_says_so() -> None:
    with pytest.raises(Unsupported, match="lists no image's packages"):
        await lab().build(TEXT, sbom=True)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h/a?token=t#main", "https://h/a#main"),
        ("git@h:a/b.git", "git@h:a/b.git"),
        ("https://h:8/a@b", "https://h:8/a@b"),
    ],
)
def test_url_is_stated_without_what_may_be_secret(url: str, shown: str) -> None:
    assert public(url) == shown
