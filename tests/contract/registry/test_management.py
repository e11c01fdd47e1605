"""OCI distribution-spec 1.1, category Content Management: one test per requirement, in its order."""

from __future__ import annotations

import json

import pytest

from tests.support.fleetregistry import Client
from tests.support.images import CONFIG, MANIFEST, descriptor, digest, image, member, tar

BUILT = image([tar(member("a", b"a"))])


@pytest.fixture
async def pushed(registry: Client, name: str) -> Client:
    await registry.push(name, BUILT, "1", "2")
    return registry


async def test_registry_conformance_management_1_deleted_tag_is_202_then_404(
    pushed: Client, name: str
) -> None:
    assert (await pushed.ask("DELETE", f"/v2/{name}/manifests/1")).status == 202
    assert (await pushed.ask("GET", f"/v2/{name}/manifests/1", Accept=MANIFEST)).status == 404
    for reference in ("2", BUILT.digest):
        reply = await pushed.ask("GET", f"/v2/{name}/manifests/{reference}", Accept=MANIFEST)
        assert reply.body == BUILT.manifest


async def test_registry_conformance_management_2_deleted_manifest_is_202_then_404_with_its_tags(
    pushed: Client, name: str
) -> None:
    assert (await pushed.ask("DELETE", f"/v2/{name}/manifests/{BUILT.digest}")).status == 202
    for reference in ("1", "2", BUILT.digest):
        reply = await pushed.ask("GET", f"/v2/{name}/manifests/{reference}", Accept=MANIFEST)
        assert reply.status == 404


@pytest.mark.parametrize("repository", ["", "/never"])
async def test_registry_conformance_management_3_manifest_not_there_is_404(
    pushed: Client, name: str, repository: str
) -> None:
    where = f"/v2/{name}{repository}/manifests/{digest(b'none')}"
    assert (await pushed.ask("DELETE", where)).status == 404


async def test_registry_conformance_management_4_deleted_blob_is_202_then_404(
    pushed: Client, name: str
) -> None:
    assert (await pushed.ask("DELETE", f"/v2/{name}/blobs/{BUILT.id}")).status == 202
    for method in ("GET", "HEAD"):
        assert (await pushed.ask(method, f"/v2/{name}/blobs/{BUILT.id}")).status == 404


async def test_registry_conformance_management_5_blob_not_there_is_404(pushed: Client, name: str) -> None:
    reply = await pushed.ask("DELETE", f"/v2/{name}/blobs/{digest(b'none')}")
    assert (reply.status, reply.json["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")


async def test_registry_conformance_management_6_deleted_referrer_leaves_the_list(
    pushed: Client, name: str
) -> None:
    data = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(BUILT.config, CONFIG),
            "layers": [],
            "subject": descriptor(BUILT.manifest, MANIFEST),
        }
    ).encode()
    assert (await pushed.push_manifest(name, digest(data), data)).status == 201
    where = f"/v2/{name}/referrers/{BUILT.digest}"
    assert len((await pushed.ask("GET", where)).json["manifests"]) == 1
    assert (await pushed.ask("DELETE", f"/v2/{name}/manifests/{digest(data)}")).status == 202
    assert (await pushed.ask("GET", where)).json["manifests"] == []
