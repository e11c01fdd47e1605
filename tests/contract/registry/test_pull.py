"""OCI distribution-spec 1.1, category Pull: one test per requirement, in the specification's order."""

from __future__ import annotations

import pytest

from tests.support.fleetregistry import Client
from tests.support.images import INDEX, MANIFEST, digest, image, index, member, tar

BUILT = image([tar(member("bin/x", b"x" * 5000))])
LAYER = next(found for found in BUILT.blobs if found != BUILT.id)
NONE = digest(b"none")
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture
async def pushed(registry: Client, name: str) -> Client:
    await registry.push(name, BUILT, "1")
    return registry


async def test_registry_conformance_base_1_v2_is_200(registry: Client) -> None:
    assert (await registry.ask("GET", "/v2/")).status == 200


@pytest.mark.parametrize("reference", ["1", BUILT.digest])
async def test_registry_conformance_pull_1_manifest_is_200_with_its_bytes(
    pushed: Client, name: str, reference: str
) -> None:
    reply = await pushed.ask("GET", f"/v2/{name}/manifests/{reference}", Accept=MANIFEST)
    assert (reply.status, reply.body) == (200, BUILT.manifest)


@pytest.mark.parametrize("reference", ["1", BUILT.digest])
async def test_registry_conformance_pull_2_manifest_has_its_digest_in_a_header(
    pushed: Client, name: str, reference: str
) -> None:
    reply = await pushed.ask("GET", f"/v2/{name}/manifests/{reference}", Accept=MANIFEST)
    assert reply.headers["Docker-Content-Digest"] == BUILT.digest


async def test_registry_conformance_pull_3_content_type_is_that_of_the_push(
    pushed: Client, name: str
) -> None:
    data = index((BUILT, "amd64"))
    assert (await pushed.push_manifest(name, "multi", data, INDEX)).status == 201
    docker = BUILT.manifest.replace(MANIFEST.encode(), DOCKER.encode())
    assert (await pushed.push_manifest(name, "docker", docker, DOCKER)).status == 201
    for tag, kind in (("1", MANIFEST), ("multi", INDEX), ("docker", DOCKER)):
        reply = await pushed.ask("GET", f"/v2/{name}/manifests/{tag}", Accept=kind)
        assert reply.headers["Content-Type"] == kind  # and without parameters


@pytest.mark.parametrize("reference", ["2", NONE])
async def test_registry_conformance_pull_4_manifest_not_there_is_404(
    pushed: Client, name: str, reference: str
) -> None:
    reply = await pushed.ask("GET", f"/v2/{name}/manifests/{reference}", Accept=MANIFEST)
    assert (reply.status, reply.json["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")


async def test_registry_conformance_pull_5_manifest_of_no_repository_is_404(registry: Client) -> None:
    assert (await registry.ask("GET", "/v2/c/never/manifests/1", Accept=MANIFEST)).status == 404


@pytest.mark.parametrize("found", [BUILT.id, LAYER])
async def test_registry_conformance_pull_6_blob_is_200_with_its_bytes_and_digest(
    pushed: Client, name: str, found: str
) -> None:
    reply = await pushed.ask("GET", f"/v2/{name}/blobs/{found}")
    assert (reply.status, reply.body) == (200, BUILT.blobs[found])
    assert reply.headers["Docker-Content-Digest"] == found


async def test_registry_conformance_pull_7_blob_not_there_is_404(pushed: Client, name: str) -> None:
    reply = await pushed.ask("GET", f"/v2/{name}/blobs/{NONE}")
    assert (reply.status, reply.json["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")


@pytest.mark.parametrize(
    ("asked", "kept"),
    [("bytes=0-9", slice(0, 10)), ("bytes=5-", slice(5, None)), ("bytes=-7", slice(-7, None))],
)
async def test_registry_conformance_pull_8_range_of_a_blob_is_206(
    pushed: Client, name: str, asked: str, kept: slice
) -> None:
    reply = await pushed.ask("GET", f"/v2/{name}/blobs/{LAYER}", Range=asked)
    assert (reply.status, reply.body) == (206, BUILT.blobs[LAYER][kept])
    assert reply.headers["Content-Range"].endswith(f"/{len(BUILT.blobs[LAYER])}")


@pytest.mark.parametrize("path", ["manifests/1", f"manifests/{BUILT.digest}", f"blobs/{LAYER}"])
async def test_registry_conformance_pull_9_head_is_200_with_digest_and_size(
    pushed: Client, name: str, path: str
) -> None:
    reply = await pushed.ask("HEAD", f"/v2/{name}/{path}", Accept=MANIFEST)
    assert (reply.status, reply.body) == (200, b"")
    found, size = (LAYER, len(BUILT.blobs[LAYER])) if "blobs" in path else (BUILT.digest, len(BUILT.manifest))
    assert reply.headers["Docker-Content-Digest"] == found
    assert reply.headers["Content-Length"] == str(size)


@pytest.mark.parametrize("path", ["manifests/2", f"manifests/{NONE}", f"blobs/{NONE}"])
async def test_registry_conformance_pull_10_head_of_what_is_not_there_is_404(
    pushed: Client, name: str, path: str
) -> None:
    assert (await pushed.ask("HEAD", f"/v2/{name}/{path}", Accept=MANIFEST)).status == 404


async def test_registry_conformance_pull_11_range_beyond_a_blob_is_416(pushed: Client, name: str) -> None:
    beyond = f"bytes={len(BUILT.blobs[LAYER])}-"
    assert (await pushed.ask("GET", f"/v2/{name}/blobs/{LAYER}", Range=beyond)).status == 416
