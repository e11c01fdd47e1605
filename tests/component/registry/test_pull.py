"""OCI distribution-spec 1.1, category Pull: end points 1 to 3, by number."""

from __future__ import annotations

import pytest

from tests.support.fleetregistry import Client, Served
from tests.support.images import INDEX, MANIFEST, digest, image, index, member, tar

NAME = "tools/box"
LAYER = tar(member("bin/x", b"x" * 5000))
BUILT = image([LAYER])


@pytest.fixture
async def pushed(client: Client) -> Client:
    await client.push(NAME, BUILT, "1", "latest")
    return client


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_end1_base_of_a_registry_answers_200(client: Client, path: str, method: str) -> None:
    reply = await client.ask(method, path)
    assert reply.status == 200
    assert reply.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


@pytest.mark.parametrize("blob", list(BUILT.blobs))
async def test_end2_blob_that_is_there_is_sent_with_its_digest(pushed: Client, blob: str) -> None:
    reply = await pushed.ask("GET", f"/v2/{NAME}/blobs/{blob}")
    assert (reply.status, reply.body) == (200, BUILT.blobs[blob])
    assert reply.headers["Docker-Content-Digest"] == blob
    assert reply.headers["Content-Length"] == str(len(BUILT.blobs[blob]))
    assert reply.headers["Content-Type"] == "application/octet-stream"
    head = await pushed.ask("HEAD", f"/v2/{NAME}/blobs/{blob}")
    assert (head.status, head.body) == (200, b"")
    for name in ("Docker-Content-Digest", "Content-Length", "Content-Type", "ETag"):
        assert head.headers[name] == reply.headers[name]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", [NAME, "never/seen"])
async def test_end2_blob_that_is_not_there_is_404(pushed: Client, method: str, name: str) -> None:
    reply = await pushed.ask(method, f"/v2/{name}/blobs/{digest(b'other')}")
    assert reply.status == 404
    assert method == "HEAD" or reply.code == "BLOB_UNKNOWN"


async def test_end2_blob_of_another_repository_is_404(pushed: Client) -> None:
    await pushed.push_blob("other", b"theirs")
    assert (await pushed.ask("GET", f"/v2/{NAME}/blobs/{digest(b'theirs')}")).status == 404
    assert (await pushed.ask("GET", f"/v2/other/blobs/{digest(b'theirs')}")).status == 200


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=20-", 20, None),
        ("bytes=-7", -7, None),
        ("bytes=5-99999999", 5, None),
        ("bytes=-99999999", 0, None),
        ("bytes=0-", 0, None),
    ],
)
async def test_end2_range_of_a_blob_is_sent_as_206(
    pushed: Client, asked: str, first: int, end: int | None
) -> None:
    data = BUILT.config
    reply = await pushed.ask("GET", f"/v2/{NAME}/blobs/{BUILT.id}", Range=asked)
    assert (reply.status, reply.body) == (206, data[first:end])
    start = first % len(data)
    last = (end or len(data)) - 1
    assert reply.headers["Content-Range"] == f"bytes {start}-{last}/{len(data)}"
    assert reply.headers["Content-Length"] == str(len(reply.body))


@pytest.mark.parametrize(
    "asked", ["bytes=5-4", "bytes=a-b", "bytes=-", "lines=0-1", "bytes=0-1,3-4", "5-6", "bytes=٣-4"]
)
async def test_end2_range_that_is_none_sends_all(pushed: Client, asked: str) -> None:
    reply = await pushed.ask("GET", f"/v2/{NAME}/blobs/{BUILT.id}", Range=asked)
    assert (reply.status, reply.body) == (200, BUILT.config)


@pytest.mark.parametrize("asked", ["bytes=100000-", "bytes=100000-100001", "bytes=-0"])
async def test_end2_range_beyond_the_blob_is_416(pushed: Client, asked: str) -> None:
    reply = await pushed.ask("GET", f"/v2/{NAME}/blobs/{BUILT.id}", Range=asked)
    assert reply.status == 416
    assert reply.headers["Content-Range"] == f"bytes */{len(BUILT.config)}"


async def test_end2_blob_that_the_client_has_is_304(pushed: Client) -> None:
    reply = await pushed.ask("GET", f"/v2/{NAME}/blobs/{BUILT.id}", If_None_Match=f'"{BUILT.id}"')
    assert (reply.status, reply.body) == (304, b"")


@pytest.mark.parametrize("reference", ["1", "latest", BUILT.digest])
async def test_end3_manifest_is_sent_byte_by_byte(pushed: Client, reference: str) -> None:
    reply = await pushed.ask("GET", f"/v2/{NAME}/manifests/{reference}", Accept=MANIFEST)
    assert (reply.status, reply.body) == (200, BUILT.manifest)
    assert reply.headers["Content-Type"] == MANIFEST
    assert reply.headers["Docker-Content-Digest"] == BUILT.digest
    head = await pushed.ask("HEAD", f"/v2/{NAME}/manifests/{reference}")
    assert (head.status, head.body) == (200, b"")
    for name in ("Docker-Content-Digest", "Content-Length", "Content-Type"):
        assert head.headers[name] == reply.headers[name]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "reference", ["2", ".INVALID_MANIFEST_NAME", digest(b"none"), "sha256:abc", "a" * 200]
)
async def test_end3_manifest_that_is_not_there_is_404(pushed: Client, method: str, reference: str) -> None:
    reply = await pushed.ask(method, f"/v2/{NAME}/manifests/{reference}")
    assert reply.status == 404
    assert method == "HEAD" or reply.code == "MANIFEST_UNKNOWN"


async def test_end3_manifest_of_a_repository_nobody_pushed_to_is_404(pushed: Client) -> None:
    assert (await pushed.ask("GET", "/v2/never/seen/manifests/latest")).status == 404


async def test_end3_index_is_sent_whatever_the_client_accepts(pushed: Client) -> None:
    arm = image([LAYER], arch="arm64")
    await pushed.push(NAME, arm)
    data = index((BUILT, "amd64"), (arm, "arm64"))
    assert (await pushed.push_manifest(NAME, "multi", data, INDEX)).status == 201
    for accept in ("*/*", INDEX, MANIFEST):
        reply = await pushed.ask("GET", f"/v2/{NAME}/manifests/multi", Accept=accept)
        assert (reply.body, reply.headers["Content-Type"]) == (data, INDEX)


async def test_blob_that_changed_on_disk_is_never_sent_whole(served: Served) -> None:
    client = served.client
    data = b"y" * 3_000_000
    found = await client.push_blob(NAME, data)
    path = served.registry.content.files.blob(found)
    with open(path, "r+b") as file:
        file.seek(2_999_999)
        file.write(b"z")
    with pytest.raises(Exception, match=r"payload|Connection|closed"):
        await client.ask("GET", f"/v2/{NAME}/blobs/{found}")
    assert (await client.ask("HEAD", f"/v2/{NAME}/blobs/{found}")).status == 404
    await client.push_blob(NAME, data)
    assert (await client.ask("GET", f"/v2/{NAME}/blobs/{found}")).body == data


async def test_blob_whose_file_is_missing_is_404_until_pushed_again(served: Served) -> None:
    found = await served.client.push_blob(NAME, b"data")
    served.registry.content.files.blob(found).unlink()
    assert (await served.client.ask("HEAD", f"/v2/{NAME}/blobs/{found}")).status == 404
    await served.client.push_blob(NAME, b"data")
    assert (await served.client.ask("GET", f"/v2/{NAME}/blobs/{found}")).body == b"data"
