"""OCI distribution-spec 1.1, category Content Discovery: one test per requirement, in its order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.fleetregistry import Client
from tests.support.images import CONFIG, INDEX, MANIFEST, descriptor, digest, image, member, tar

BUILT = image([tar(member("a", b"a"))])
TAGS = ["2", "1", "b", "A", "10", "a"]
SORTED = sorted(TAGS)
EMPTY = b"{}"


@pytest.fixture
async def tagged(registry: Client, name: str) -> Client:
    await registry.push(name, BUILT, *TAGS)
    return registry


def artifact(subject: bytes, *, config: str = CONFIG, **more: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(EMPTY, config),
        "layers": [],
        "subject": descriptor(subject, MANIFEST),
        **more,
    }
    return json.dumps(document).encode()


ABOUT = {"org.example.kind": "sbom"}
REFERRERS = {
    "by artifactType": (artifact(BUILT.manifest, artifactType="text/x-a", annotations=ABOUT), MANIFEST),
    "by config": (artifact(BUILT.manifest, config="text/x-b"), MANIFEST),
    "index": (
        json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": [],
                "subject": descriptor(BUILT.manifest, MANIFEST),
                "annotations": ABOUT,
            }
        ).encode(),
        INDEX,
    ),
}


@pytest.fixture
async def referred(registry: Client, name: str) -> Client:
    await registry.push(name, BUILT, "1")
    await registry.push_blob(name, EMPTY)
    for data, kind in REFERRERS.values():
        assert (await registry.push_manifest(name, digest(data), data, kind)).status == 201
    return registry


async def test_registry_conformance_discovery_1_tags_are_200_with_the_repositorys_name(
    tagged: Client, name: str
) -> None:
    reply = await tagged.ask("GET", f"/v2/{name}/tags/list")
    assert (reply.status, reply.json["name"], sorted(reply.json["tags"])) == (200, name, SORTED)


async def test_registry_conformance_discovery_2_tags_are_in_order(tagged: Client, name: str) -> None:
    assert (await tagged.ask("GET", f"/v2/{name}/tags/list")).json["tags"] == SORTED


async def test_registry_conformance_discovery_3_tags_of_no_repository_are_404(registry: Client) -> None:
    assert (await registry.ask("GET", "/v2/c/never/tags/list")).status == 404


async def test_registry_conformance_discovery_4_list_without_tags_is_empty(
    registry: Client, name: str
) -> None:
    await registry.push(name, BUILT)
    reply = await registry.ask("GET", f"/v2/{name}/tags/list")
    assert (reply.status, reply.json["tags"]) == (200, [])


@pytest.mark.parametrize("number", [1, 3, 6, 7])
async def test_registry_conformance_discovery_5_n_bounds_the_list(
    tagged: Client, name: str, number: int
) -> None:
    reply = await tagged.ask("GET", f"/v2/{name}/tags/list?n={number}")
    assert reply.json["tags"] == SORTED[:number]


async def test_registry_conformance_discovery_6_n_of_zero_is_an_empty_list_without_a_link(
    tagged: Client, name: str
) -> None:
    reply = await tagged.ask("GET", f"/v2/{name}/tags/list?n=0")
    assert (reply.json["tags"] or [], reply.headers.get("Link")) == ([], None)


@pytest.mark.parametrize("last", SORTED)
async def test_registry_conformance_discovery_7_list_begins_after_last(
    tagged: Client, name: str, last: str
) -> None:
    after = SORTED[SORTED.index(last) + 1 :]
    assert (await tagged.ask("GET", f"/v2/{name}/tags/list?n=2&last={last}")).json["tags"] == after[:2]
    assert (await tagged.ask("GET", f"/v2/{name}/tags/list?last={last}")).json["tags"] == after


async def test_registry_conformance_discovery_8_links_lead_through_all_tags(
    tagged: Client, name: str
) -> None:
    found: list[str] = []
    where = f"/v2/{name}/tags/list?n=2"
    for _ in SORTED:
        reply = await tagged.ask("GET", where)
        found += reply.json["tags"]
        if "Link" not in reply.headers:
            break
        where, _, relation = reply.headers["Link"].partition(">")
        assert relation == '; rel="next"'
        where = where.removeprefix("<")
    assert found == SORTED


async def test_registry_conformance_discovery_9_referrers_are_an_index_of_200(
    referred: Client, name: str
) -> None:
    reply = await referred.ask("GET", f"/v2/{name}/referrers/{BUILT.digest}")
    assert (reply.status, reply.headers["Content-Type"]) == (200, INDEX)
    assert (reply.json["schemaVersion"], reply.json["mediaType"]) == (2, INDEX)
    found = {entry["digest"]: entry for entry in reply.json["manifests"]}
    assert found.keys() == {digest(data) for data, _ in REFERRERS.values()}
    for data, kind in REFERRERS.values():
        assert (found[digest(data)]["mediaType"], found[digest(data)]["size"]) == (kind, len(data))


@pytest.mark.parametrize(
    ("which", "kind"), [("by artifactType", "text/x-a"), ("by config", "text/x-b"), ("index", None)]
)
async def test_registry_conformance_discovery_10_referrer_has_its_artifact_type(
    referred: Client, name: str, which: str, kind: str | None
) -> None:
    reply = await referred.ask("GET", f"/v2/{name}/referrers/{BUILT.digest}")
    found = {entry["digest"]: entry for entry in reply.json["manifests"]}
    assert found[digest(REFERRERS[which][0])].get("artifactType") == kind


@pytest.mark.parametrize(
    ("which", "about"), [("by artifactType", ABOUT), ("by config", None), ("index", ABOUT)]
)
async def test_registry_conformance_discovery_11_referrer_has_its_annotations(
    referred: Client, name: str, which: str, about: dict[str, str] | None
) -> None:
    reply = await referred.ask("GET", f"/v2/{name}/referrers/{BUILT.digest}")
    found = {entry["digest"]: entry for entry in reply.json["manifests"]}
    assert found[digest(REFERRERS[which][0])].get("annotations") == about


@pytest.mark.parametrize("repository", ["", "/never"])
async def test_registry_conformance_discovery_12_no_referrers_are_an_empty_list(
    referred: Client, name: str, repository: str
) -> None:
    reply = await referred.ask("GET", f"/v2/{name}{repository}/referrers/{digest(b'nobody')}")
    assert (reply.status, reply.json["manifests"]) == (200, [])


@pytest.mark.parametrize("found", ["sha256:abc", "latest", f"sha256:{'z' * 64}"])
async def test_registry_conformance_discovery_13_referrers_of_no_digest_are_400(
    referred: Client, name: str, found: str
) -> None:
    assert (await referred.ask("GET", f"/v2/{name}/referrers/{found}")).status == 400


@pytest.mark.parametrize(("kind", "which"), [("text/x-a", "by artifactType"), ("text/x-b", "by config")])
async def test_registry_conformance_discovery_14_filter_is_applied_and_told(
    referred: Client, name: str, kind: str, which: str
) -> None:
    reply = await referred.ask("GET", f"/v2/{name}/referrers/{BUILT.digest}?artifactType={kind}")
    assert reply.headers["OCI-Filters-Applied"] == "artifactType"
    assert [entry["digest"] for entry in reply.json["manifests"]] == [digest(REFERRERS[which][0])]
