"""OCI distribution-spec 1.1, category Push: end points 4 to 7 and 11, by number."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from tests.support.fleetregistry import Client, Served
from tests.support.images import INDEX, MANIFEST, descriptor, digest, image, index, member, tar

NAME = "tools/box"
DATA = bytes(range(256)) * 40
FOUND = digest(DATA)
BUILT = image([tar(member("a", b"a"))])
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


async def pulled(client: Client, name: str = NAME, found: str = FOUND) -> bytes:
    reply = await client.ask("GET", f"/v2/{name}/blobs/{found}")
    assert reply.status == 200, reply
    return reply.body


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


async def test_end4a_upload_is_begun_with_202_and_a_location(client: Client) -> None:
    reply = await client.ask("POST", f"/v2/{NAME}/blobs/uploads/")
    assert (reply.status, reply.body) == (202, b"")
    assert reply.headers["Location"].startswith(f"/v2/{NAME}/blobs/uploads/")
    assert reply.headers["Location"].endswith(reply.headers["Docker-Upload-UUID"])
    assert reply.headers["Range"] == "0-0"


async def test_end4b_blob_in_a_single_post_is_201_and_pullable(client: Client) -> None:
    reply = await client.ask("POST", f"/v2/{NAME}/blobs/uploads/?digest={FOUND}", DATA)
    assert (reply.status, reply.headers["Location"]) == (201, f"/v2/{NAME}/blobs/{FOUND}")
    assert reply.headers["Docker-Content-Digest"] == FOUND
    assert (await client.ask("GET", reply.headers["Location"])).body == DATA


async def test_end4b_single_post_of_another_digest_is_400_and_leaves_nothing(served: Served) -> None:
    reply = await served.client.ask("POST", f"/v2/{NAME}/blobs/uploads/?digest={FOUND}", DATA + b"x")
    assert (reply.status, reply.code) == (400, "DIGEST_INVALID")
    assert served.registry.content.files.uploads() == [] and len(served.registry.uploads) == 0


async def test_end5_chunks_in_order_are_202_and_become_a_blob(client: Client) -> None:
    where = await client.begin(NAME)
    for start in range(0, len(DATA), 4000):
        piece = DATA[start : start + 4000]
        reply = await client.ask("PATCH", where, piece, Content_Range=f"{start}-{start + len(piece) - 1}")
        assert reply.status == 202
        assert reply.headers["Range"] == f"0-{start + len(piece) - 1}"
        where = reply.headers["Location"]
    reply = await client.ask("PUT", f"{where}?digest={FOUND}")
    assert (reply.status, reply.headers["Location"]) == (201, f"/v2/{NAME}/blobs/{FOUND}")
    assert await pulled(client) == DATA


async def test_end5_last_chunk_may_come_with_the_closing_put(client: Client) -> None:
    where = await client.begin(NAME)
    await client.ask("PATCH", where, DATA[:100], Content_Range="0-99")
    words = f"100-{len(DATA) - 1}"
    reply = await client.ask("PUT", f"{where}?digest={FOUND}", DATA[100:], Content_Range=words)
    assert reply.status == 201
    assert await pulled(client) == DATA


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("start", [0, 99, 101, 5000])
async def test_end5_chunk_out_of_order_is_416_and_changes_nothing(
    client: Client, start: int, method: str
) -> None:
    where = await client.begin(NAME)
    await client.ask("PATCH", where, DATA[:100], Content_Range="0-99")
    query = f"?digest={FOUND}" if method == "PUT" else ""
    reply = await client.ask(method, where + query, DATA[:50], Content_Range=f"{start}-{start + 49}")
    assert (reply.status, reply.code) == (416, "BLOB_UPLOAD_INVALID")
    assert (reply.headers["Range"], reply.headers["Location"]) == ("0-99", where)
    status = await client.ask("GET", where)
    assert (status.status, status.headers["Range"], status.body) == (204, "0-99", b"")
    done = await client.ask("PUT", f"{where}?digest={FOUND}", DATA[100:])
    assert done.status == 201


@pytest.mark.parametrize("said", ["0-10", "0-200"])
async def test_end5_chunk_of_another_length_than_its_range_is_400(client: Client, said: str) -> None:
    where = await client.begin(NAME)
    reply = await client.ask("PATCH", where, DATA[:100], Content_Range=said)
    assert (reply.status, reply.code) == (400, "SIZE_INVALID")
    assert (await client.ask("GET", where)).headers["Range"] == "0-0"


@pytest.mark.parametrize(
    "said", ["x", "9-3", "0-", "-5", "bytes=0-99", "٠-٩٩", "0-" + "9" * 30, "0-99,100-199"]
)
async def test_end5_content_range_that_is_none_is_400(client: Client, said: str) -> None:
    reply = await client.ask("PATCH", await client.begin(NAME), DATA[:100], Content_Range=said)
    assert (reply.status, reply.code) == (400, "BLOB_UPLOAD_INVALID")


async def test_end5_stream_without_a_range_is_appended(client: Client) -> None:
    where = await client.begin(NAME)
    reply = await client.ask("PATCH", where, in_pieces(DATA))
    assert (reply.status, reply.headers["Range"]) == (202, f"0-{len(DATA) - 1}")
    assert (await client.ask("PUT", f"{where}?digest={FOUND}")).status == 201
    assert await pulled(client) == DATA


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3_500_000])
async def test_end6_post_then_put_of_any_size_is_201(client: Client, size: int) -> None:
    data = b"q" * size
    found = await client.push_blob(NAME, data)
    assert await pulled(client, found=found) == data


@pytest.mark.parametrize("query", ["", "?digest=", "?digest=sha256:abc", "?digest=md5:0000", "?other=1"])
async def test_end6_put_without_a_digest_is_400_and_the_upload_lives(client: Client, query: str) -> None:
    where = await client.begin(NAME)
    reply = await client.ask("PUT", where + query, DATA)
    assert (reply.status, reply.code) == (400, "DIGEST_INVALID")
    assert (await client.ask("PUT", f"{where}?digest={FOUND}", DATA)).status == 201


async def test_end6_put_of_another_digest_is_400_and_ends_the_upload(served: Served) -> None:
    client = served.client
    where = await client.begin(NAME)
    reply = await client.ask("PUT", f"{where}?digest={digest(b'other')}", DATA)
    assert (reply.status, reply.code) == (400, "DIGEST_INVALID")
    gone = await client.ask("GET", where)
    assert (gone.status, gone.code) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert served.registry.content.files.uploads() == []
    for found in (FOUND, digest(b"other")):
        assert (await client.ask("HEAD", f"/v2/{NAME}/blobs/{found}")).status == 404


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
@pytest.mark.parametrize("ident", ["0" * 32, "x", "..", "%2e%2e%2findex.db"])
async def test_upload_that_is_not_known_is_404(client: Client, method: str, ident: str) -> None:
    reply = await client.ask(method, f"/v2/{NAME}/blobs/uploads/{ident}?digest={FOUND}")
    assert reply.status == 404


async def test_upload_of_another_repository_is_404(client: Client) -> None:
    where = await client.begin(NAME)
    other = where.replace(NAME, "other")
    assert (await client.ask("PATCH", other, DATA)).code == "BLOB_UPLOAD_UNKNOWN"


async def test_upload_that_is_deleted_is_gone(served: Served) -> None:
    where = await served.client.begin(NAME)
    await served.client.ask("PATCH", where, DATA)
    assert (await served.client.ask("DELETE", where)).status == 204
    assert (await served.client.ask("GET", where)).status == 404
    assert served.registry.content.files.uploads() == []


async def test_end11_blob_is_mounted_from_another_repository(client: Client) -> None:
    await client.push_blob("source", DATA)
    reply = await client.ask("POST", f"/v2/{NAME}/blobs/uploads/?mount={FOUND}&from=source")
    assert (reply.status, reply.headers["Location"]) == (201, f"/v2/{NAME}/blobs/{FOUND}")
    assert reply.headers["Docker-Content-Digest"] == FOUND
    assert await pulled(client) == DATA
    assert (await client.ask("DELETE", f"/v2/source/blobs/{FOUND}")).status == 202
    assert await pulled(client) == DATA


async def test_end11_blob_is_mounted_without_a_source_named(client: Client) -> None:
    await client.push_blob("source", DATA)
    assert (await client.ask("POST", f"/v2/{NAME}/blobs/uploads/?mount={FOUND}")).status == 201
    assert await pulled(client) == DATA


@pytest.mark.parametrize("source", ["from=never/seen", "from=..%2F..", "from=SOURCE", ""])
async def test_end11_mount_of_what_is_not_there_begins_an_upload(client: Client, source: str) -> None:
    reply = await client.ask("POST", f"/v2/{NAME}/blobs/uploads/?mount={FOUND}&{source}")
    assert reply.status == 202
    assert (await client.ask("PUT", f"{reply.headers['Location']}?digest={FOUND}", DATA)).status == 201


async def test_end11_mount_needs_the_right_to_pull_from_the_source(client: Client) -> None:
    await client.push_blob("secret/source", DATA)
    team = client.who("team")
    for query in (f"mount={FOUND}&from=secret/source", f"mount={FOUND}"):
        assert (await team.ask("POST", f"/v2/team/app/blobs/uploads/?{query}")).status == 202
    assert (await team.ask("HEAD", f"/v2/team/app/blobs/{FOUND}")).status == 404


@pytest.mark.parametrize("reference", ["v1.0_x-y", "A" * 128, BUILT.digest])
async def test_end7_manifest_is_201_with_its_location(client: Client, reference: str) -> None:
    for blob in BUILT.blobs.values():
        await client.push_blob(NAME, blob)
    reply = await client.push_manifest(NAME, reference, BUILT.manifest)
    assert (reply.status, reply.headers["Location"]) == (201, f"/v2/{NAME}/manifests/{reference}")
    assert reply.headers["Docker-Content-Digest"] == BUILT.digest
    assert (await client.ask("GET", reply.headers["Location"])).body == BUILT.manifest
    assert (await client.ask("GET", f"/v2/{NAME}/manifests/{BUILT.digest}")).body == BUILT.manifest


async def test_end7_tag_pushed_again_is_moved(client: Client) -> None:
    other = image([tar(member("b", b"b"))])
    await client.push(NAME, BUILT, "1")
    await client.push(NAME, other, "1")
    assert (await client.ask("GET", f"/v2/{NAME}/manifests/1")).body == other.manifest
    assert (await client.ask("GET", f"/v2/{NAME}/manifests/{BUILT.digest}")).body == BUILT.manifest


async def test_end7_manifest_whose_blobs_are_missing_is_404(client: Client) -> None:
    await client.push_blob(NAME, BUILT.config)
    await client.push("other", BUILT, "1")
    reply = await client.push_manifest(NAME, "1", BUILT.manifest)
    assert (reply.status, reply.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    missing = [entry["digest"] for entry in reply.json["errors"][0]["detail"]]
    assert missing == [found for found in BUILT.blobs if found != BUILT.id]
    assert (await client.ask("GET", f"/v2/{NAME}/manifests/1")).status == 404


async def test_end7_index_whose_manifests_are_missing_is_404(client: Client) -> None:
    data = index((BUILT, "amd64"))
    reply = await client.push_manifest(NAME, "1", data, INDEX)
    assert (reply.status, reply.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    await client.push(NAME, BUILT)
    assert (await client.push_manifest(NAME, "1", data, INDEX)).status == 201


def docker_manifest() -> bytes:
    raw = json.loads(BUILT.manifest)
    raw["mediaType"] = DOCKER
    return json.dumps(raw).encode()


async def test_end7_dockers_types_are_kept_as_they_came(client: Client) -> None:
    await client.push(NAME, BUILT)
    data = docker_manifest()
    assert (await client.push_manifest(NAME, "d", data, DOCKER)).status == 201
    entry = descriptor(data, DOCKER, platform={"os": "linux", "architecture": "amd64"})
    body = {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [entry]}
    assert (await client.push_manifest(NAME, "l", json.dumps(body).encode(), DOCKER_LIST)).status == 201
    reply = await client.ask("GET", f"/v2/{NAME}/manifests/d")
    assert (reply.body, reply.headers["Content-Type"]) == (data, DOCKER)


async def test_end7_layer_from_elsewhere_need_not_be_there(client: Client) -> None:
    await client.push_blob(NAME, BUILT.config)
    raw = json.loads(BUILT.manifest)
    raw["layers"][0] |= {"urls": ["https://192.0.2.1/layer"]}
    assert (await client.push_manifest(NAME, "1", json.dumps(raw).encode())).status == 201


def altered(**changes: object) -> bytes:
    raw = {**json.loads(BUILT.manifest), **changes}
    return json.dumps({key: value for key, value in raw.items() if value is not None}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b'{"schemaVersion": 2, "schemaVersion": 2}',
        altered(schemaVersion=1),
        altered(mediaType=INDEX),
        altered(manifests=[]),
        altered(config=None),
        altered(config="x"),
        altered(layers={}),
        altered(layers=[{"digest": "sha256:x", "size": 1}]),
        altered(layers=[{"digest": FOUND, "size": -1}]),
        altered(layers=[{"digest": FOUND, "size": "1"}]),
        altered(layers=[{"digest": "sha384:" + "0" * 96, "size": 1}]),
        altered(subject="x"),
        altered(annotations={"a": 1}),
        b'{"schemaVersion":2,"config":' * 2000,
    ],
    ids=lambda data: data[:40].decode(),
)
async def test_end7_manifest_that_is_none_is_400(client: Client, data: bytes) -> None:
    for blob in BUILT.blobs.values():
        await client.push_blob(NAME, blob)
    reply = await client.push_manifest(NAME, "1", data)
    assert (reply.status, reply.code) == (400, "MANIFEST_INVALID")
    assert (await client.ask("GET", f"/v2/{NAME}/manifests/1")).status == 404


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/json", "application/vnd.oci.image.config.v1+json"]
)
async def test_end7_manifest_of_an_unknown_type_is_400(client: Client, kind: str) -> None:
    await client.push(NAME, BUILT)
    reply = await client.push_manifest(NAME, "1", BUILT.manifest, kind)
    assert (reply.status, reply.code) == (400, "MANIFEST_INVALID")


async def test_end7_manifest_under_another_digest_is_400(client: Client) -> None:
    await client.push(NAME, BUILT)
    reply = await client.push_manifest(NAME, FOUND, BUILT.manifest)
    assert (reply.status, reply.code) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("announced", [True, False])
async def test_end7_manifest_of_more_than_4_mib_is_413(client: Client, announced: bool) -> None:
    data = altered(annotations={"a": "x" * (4 << 20)})
    body = data if announced else in_pieces(data)
    reply = await client.ask("PUT", f"/v2/{NAME}/manifests/1", body, Content_Type=MANIFEST)
    assert reply.status == 413


async def test_end7_manifest_of_4_mib_is_201(client: Client) -> None:
    await client.push(NAME, BUILT)
    room = (4 << 20) - len(altered(annotations={"a": ""}))
    data = altered(annotations={"a": "x" * room})
    assert len(data) == 4 << 20
    assert (await client.push_manifest(NAME, "big", data)).status == 201


@pytest.mark.parametrize("tag", ["-x", ".x", "a" * 129, "a%20b", "a%00", "%C3%A9"])
async def test_end7_tag_that_is_none_is_400(client: Client, tag: str) -> None:
    await client.push(NAME, BUILT)
    reply = await client.push_manifest(NAME, tag, BUILT.manifest)
    assert (reply.status, reply.code) == (400, "MANIFEST_INVALID")


async def test_end7_subject_is_told_of_and_need_not_exist(client: Client) -> None:
    for blob in BUILT.blobs.values():
        await client.push_blob(NAME, blob)
    data = altered(subject=descriptor(b"nobody's", MANIFEST))
    reply = await client.push_manifest(NAME, digest(data), data)
    assert (reply.status, reply.headers["OCI-Subject"]) == (201, digest(b"nobody's"))
    plain = await client.push_manifest(NAME, "plain", BUILT.manifest)
    assert "OCI-Subject" not in plain.headers


NO_NAMES = ["UPPER", "a//b", "-a", "a_", "a.", "a/b.", "_uploads", "a/_uploads", "a" * 256, "a/.b"]


@pytest.mark.parametrize("name", [*NO_NAMES, "a%2f%2fb", "a%00", "%C3%A9", "%252e%252e"])
@pytest.mark.parametrize(("method", "path"), [("POST", "blobs/uploads/"), ("PUT", "manifests/1")])
async def test_repository_name_that_is_none_is_400(served: Served, name: str, method: str, path: str) -> None:
    reply = await served.client.ask(method, f"/v2/{name}/{path}", Content_Type=MANIFEST)
    assert (reply.status, reply.code) == (400, "NAME_INVALID")
    assert served.registry.content.index.totals()[0] == 0


@pytest.mark.parametrize(
    "name", ["a", "a/b/c", "a.b_c__d--e/f", "blobs/uploads", "manifests", "tags/list", "x" * 255]
)
async def test_repository_name_of_the_grammar_is_taken(client: Client, name: str) -> None:
    await client.push(name, BUILT, "1")
    assert (await client.ask("GET", f"/v2/{name}/manifests/1")).body == BUILT.manifest
    assert (await client.ask("GET", f"/v2/{name}/tags/list")).json == {"name": name, "tags": ["1"]}
    assert (await client.ask("GET", f"/v2/{name}/blobs/{BUILT.id}")).body == BUILT.config
