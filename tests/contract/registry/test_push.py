"""OCI distribution-spec 1.1, category Push: one test per requirement, in the specification's order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.fleetregistry import Answer, Client
from tests.support.images import CONFIG, INDEX, MANIFEST, descriptor, digest, image, member, tar

DATA = bytes(range(256)) * 40
FOUND = digest(DATA)
BUILT = image([tar(member("a", b"a"))])
OCTETS = "application/octet-stream"


def closing(where: str, found: str = FOUND) -> str:
    return f"{where}{'&' if '?' in where else '?'}digest={found}"


async def pulled(registry: Client, reply: Answer) -> bytes:
    """What the Location of a finished push gives."""
    found = await registry.ask("GET", reply.headers["Location"])
    assert found.status == 200, found
    return found.body


def manifest(**more: Any) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(DATA, CONFIG), "layers": [], **more}
    ).encode()


async def test_registry_conformance_push_1_session_is_202_with_a_location_of_its_own(
    registry: Client, name: str
) -> None:
    first, second = [await registry.ask("POST", f"/v2/{name}/blobs/uploads/") for _ in range(2)]
    assert first.status == second.status == 202
    assert first.headers["Location"] != second.headers["Location"]


async def test_registry_conformance_push_2_post_then_put_is_201_and_pullable(
    registry: Client, name: str
) -> None:
    where = closing(await registry.begin(name))
    reply = await registry.ask("PUT", where, DATA, Content_Type=OCTETS)
    assert reply.status == 201 and await pulled(registry, reply) == DATA


async def test_registry_conformance_push_3_single_post_is_201_or_a_session(
    registry: Client, name: str
) -> None:
    reply = await registry.ask("POST", f"/v2/{name}/blobs/uploads/?digest={FOUND}", DATA, Content_Type=OCTETS)
    assert reply.status in (201, 202)
    if reply.status == 202:
        reply = await registry.ask("PUT", closing(reply.headers["Location"]), DATA)
    assert reply.status == 201 and await pulled(registry, reply) == DATA


@pytest.mark.parametrize("found", ["sha256:totallywrong", f"{FOUND}00", digest(b"other"), "md5:0123"])
async def test_registry_conformance_push_4_wrong_digest_is_400(
    registry: Client, name: str, found: str
) -> None:
    reply = await registry.ask("PUT", closing(await registry.begin(name), found), DATA)
    assert (reply.status, reply.json["errors"][0]["code"]) == (400, "DIGEST_INVALID")


async def test_registry_conformance_push_5_chunks_are_202_with_location_and_range(
    registry: Client, name: str
) -> None:
    where = await registry.begin(name)
    for start in range(0, len(DATA), 4000):
        piece = DATA[start : start + 4000]
        end = start + len(piece) - 1
        reply = await registry.ask("PATCH", where, piece, Content_Range=f"{start}-{end}")
        assert (reply.status, reply.headers["Range"]) == (202, f"0-{end}")
        where = reply.headers["Location"]
    reply = await registry.ask("PUT", closing(where))
    assert reply.status == 201 and await pulled(registry, reply) == DATA


async def test_registry_conformance_push_6_last_chunk_may_come_with_the_put(
    registry: Client, name: str
) -> None:
    first = await registry.ask("PATCH", await registry.begin(name), DATA[:100], Content_Range="0-99")
    words = f"100-{len(DATA) - 1}"
    reply = await registry.ask(
        "PUT", closing(first.headers["Location"]), DATA[100:], Content_Range=words, Content_Type=OCTETS
    )
    assert reply.status == 201 and await pulled(registry, reply) == DATA


async def test_registry_conformance_push_7_last_chunk_out_of_order_is_416(
    registry: Client, name: str
) -> None:
    first = await registry.ask("PATCH", await registry.begin(name), DATA[:100], Content_Range="0-99")
    where = closing(first.headers["Location"])
    reply = await registry.ask("PUT", where, DATA[100:], Content_Range=f"101-{len(DATA)}")
    assert reply.status == 416


async def test_registry_conformance_push_8_stream_of_unknown_length_is_202(
    registry: Client, name: str
) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(DATA), 1000):
            yield DATA[start : start + 1000]

    reply = await registry.ask("PATCH", await registry.begin(name), stream(), Content_Type=OCTETS)
    assert reply.status == 202
    reply = await registry.ask("PUT", closing(reply.headers["Location"]))
    assert reply.status == 201 and await pulled(registry, reply) == DATA


@pytest.mark.parametrize("start", [0, 50, 101])
async def test_registry_conformance_push_9_chunk_out_of_order_is_416(
    registry: Client, name: str, start: int
) -> None:
    first = await registry.ask("PATCH", await registry.begin(name), DATA[:100], Content_Range="0-99")
    where = first.headers["Location"]
    words = f"{start}-{start + 99}"
    assert (await registry.ask("PATCH", where, DATA[100:200], Content_Range=words)).status == 416


async def test_registry_conformance_push_10_status_is_204_with_location_and_range(
    registry: Client, name: str
) -> None:
    first = await registry.ask("PATCH", await registry.begin(name), DATA[:100], Content_Range="0-99")
    reply = await registry.ask("GET", first.headers["Location"])
    assert (reply.status, reply.headers["Range"], reply.body) == (204, "0-99", b"")
    last = await registry.ask("PUT", closing(reply.headers["Location"]), DATA[100:])
    assert last.status == 201


async def test_registry_conformance_push_11_cancelled_session_is_204_and_gone(
    registry: Client, name: str
) -> None:
    where = await registry.begin(name)
    assert (await registry.ask("DELETE", where)).status == 204
    assert (await registry.ask("GET", where)).status == 404


async def test_registry_conformance_push_12_blob_is_mounted_without_a_source(
    registry: Client, name: str
) -> None:
    data = name.encode()
    await registry.push_blob(f"{name}/source", data)
    reply = await registry.ask("POST", f"/v2/{name}/blobs/uploads/?mount={digest(data)}")
    assert reply.status == 201 and await pulled(registry, reply) == data


async def test_registry_conformance_push_13_chunk_of_another_length_than_said_is_refused(
    registry: Client, name: str
) -> None:
    where = await registry.begin(name)
    reply = await registry.ask("PATCH", where, DATA[:50], Content_Range="0-99")
    assert reply.status in (400, 416)


async def test_registry_conformance_push_14_blob_is_mounted_from_its_source(
    registry: Client, name: str
) -> None:
    await registry.push_blob(f"{name}/source", DATA)
    reply = await registry.ask("POST", f"/v2/{name}/blobs/uploads/?mount={FOUND}&from={name}/source")
    assert reply.status == 201 and await pulled(registry, reply) == DATA


async def test_registry_conformance_push_15_mount_of_what_is_not_there_begins_a_session(
    registry: Client, name: str
) -> None:
    other = digest(b"nowhere")
    reply = await registry.ask("POST", f"/v2/{name}/blobs/uploads/?mount={other}&from={name}/no")
    assert reply.status == 202
    where = closing(reply.headers["Location"], other)
    assert (await registry.ask("PUT", where, b"nowhere")).status == 201


@pytest.mark.parametrize("reference", ["1", BUILT.digest])
async def test_registry_conformance_push_16_manifest_is_201_pullable_and_kept_byte_by_byte(
    registry: Client, name: str, reference: str
) -> None:
    for blob in BUILT.blobs.values():
        await registry.push_blob(name, blob)
    reply = await registry.push_manifest(name, reference, BUILT.manifest)
    assert (reply.status, reply.headers["Docker-Content-Digest"]) == (201, BUILT.digest)
    got = await registry.ask("GET", reply.headers["Location"], Accept=MANIFEST)
    assert got.body == BUILT.manifest


async def test_registry_conformance_push_17_manifest_of_another_digest_is_400(
    registry: Client, name: str
) -> None:
    await registry.push_blob(name, DATA)
    reply = await registry.push_manifest(name, digest(b"other"), manifest())
    assert (reply.status, reply.json["errors"][0]["code"]) == (400, "DIGEST_INVALID")


async def test_registry_conformance_push_18_manifest_without_layers_is_201(
    registry: Client, name: str
) -> None:
    await registry.push_blob(name, DATA)
    assert (await registry.push_manifest(name, "1", manifest())).status == 201


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"schemaVersion": 2}'])
async def test_registry_conformance_push_19_manifest_that_is_none_is_400(
    registry: Client, name: str, data: bytes
) -> None:
    reply = await registry.push_manifest(name, "1", data)
    assert reply.status == 400


async def test_registry_conformance_push_20_manifest_of_megabytes_is_taken_or_413(
    registry: Client, name: str
) -> None:
    await registry.push_blob(name, DATA)
    size = len(manifest(annotations={"a": ""}))
    most = manifest(annotations={"a": "x" * ((4 << 20) - size)})
    assert len(most) == 4 << 20
    assert (await registry.push_manifest(name, "most", most)).status == 201
    assert (await registry.ask("GET", f"/v2/{name}/manifests/most", Accept=MANIFEST)).body == most
    more = manifest(annotations={"a": "x" * ((4 << 20) - size + 1)})
    assert (await registry.push_manifest(name, "more", more)).status == 413


async def test_registry_conformance_push_21_blob_that_is_missing_is_told_by_its_code(
    registry: Client, name: str
) -> None:
    """The status is free to a registry; the table of end points has 404 for it."""
    reply = await registry.push_manifest(name, "1", BUILT.manifest)
    codes = {error["code"] for error in reply.json["errors"]}
    assert (reply.status, codes) == (404, {"MANIFEST_BLOB_UNKNOWN"})


async def test_registry_conformance_push_22_manifest_that_an_index_lacks_is_told_by_its_code(
    registry: Client, name: str
) -> None:
    data = json.dumps(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(b"none", MANIFEST)]}
    ).encode()
    reply = await registry.push_manifest(name, "1", data, INDEX)
    codes = {error["code"] for error in reply.json["errors"]}
    assert (reply.status, codes) == (404, {"MANIFEST_BLOB_UNKNOWN"})


async def test_registry_conformance_push_23_subject_may_be_missing(registry: Client, name: str) -> None:
    await registry.push_blob(name, DATA)
    data = manifest(subject=descriptor(b"none", MANIFEST))
    assert (await registry.push_manifest(name, digest(data), data)).status == 201


async def test_registry_conformance_push_24_subject_is_answered_in_a_header(
    registry: Client, name: str
) -> None:
    await registry.push_blob(name, DATA)
    data = manifest(subject=descriptor(b"none", MANIFEST))
    reply = await registry.push_manifest(name, digest(data), data)
    assert reply.headers["OCI-Subject"] == digest(b"none")


async def test_registry_conformance_push_25_parameters_of_the_content_type_are_ignored(
    registry: Client, name: str
) -> None:
    await registry.push_blob(name, DATA)
    reply = await registry.push_manifest(name, "1", manifest(), f"{MANIFEST}; charset=utf-8")
    assert reply.status == 201


@pytest.mark.parametrize("query", ["", "?digest-algorithm=sha512"])
async def test_registry_conformance_push_26_blob_of_another_algorithm_is_201_and_pullable_by_it(
    registry: Client, name: str, query: str
) -> None:
    found = f"sha512:{hashlib.sha512(DATA).hexdigest()}"
    where = (await registry.ask("POST", f"/v2/{name}/blobs/uploads/{query}")).headers["Location"]
    first = await registry.ask("PATCH", where, DATA[:100], Content_Range="0-99")
    reply = await registry.ask("PUT", closing(first.headers["Location"], found), DATA[100:])
    assert reply.status == 201
    got = await registry.ask("GET", f"/v2/{name}/blobs/{found}")
    assert (got.status, got.body, got.headers["Docker-Content-Digest"]) == (200, DATA, found)


async def test_registry_conformance_push_27_manifest_of_another_algorithm_is_201_and_pullable_by_it(
    registry: Client, name: str
) -> None:
    await registry.push_blob(name, DATA)
    found = f"sha512:{hashlib.sha512(manifest()).hexdigest()}"
    reply = await registry.push_manifest(name, found, manifest())
    assert (reply.status, reply.headers["Docker-Content-Digest"]) == (201, found)
    got = await registry.ask("GET", f"/v2/{name}/manifests/{found}", Accept=MANIFEST)
    assert (got.status, got.body, got.headers["Docker-Content-Digest"]) == (200, manifest(), found)


async def test_registry_conformance_push_28_algorithm_that_is_none_is_400(
    registry: Client, name: str
) -> None:
    reply = await registry.ask("POST", f"/v2/{name}/blobs/uploads/?digest-algorithm=md5")
    assert reply.status == 400
