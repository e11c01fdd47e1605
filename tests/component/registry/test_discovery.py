"""OCI distribution-spec 1.1, category Content Discovery: end points 8 (tags), 12 (referrers); the catalog."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from image.registry.server.limits import Limits
from tests.support.fleetregistry import Client, serving
from tests.support.images import INDEX, MANIFEST, descriptor, digest, image, member, tar

NAME = "tools/box"
BUILT = image([tar(member("a", b"a"))])
TAGS = sorted(["1", "10", "2", "A", "Z", "_x", "a", "b.c", "latest", "z-1"])
KIND = "application/vnd.example.sbom"


@pytest.fixture
async def tagged(client: Client) -> Client:
    await client.push(NAME, BUILT, *reversed(TAGS))
    return client


def following(reply: Any) -> str:
    found = re.fullmatch(r'<(/v2/\S+)>; rel="next"', reply.headers["Link"])
    assert found is not None, reply
    return found[1]


async def test_end8a_tags_are_listed_in_order(tagged: Client) -> None:
    reply = await tagged.ask("GET", f"/v2/{NAME}/tags/list")
    assert (reply.status, reply.json) == (200, {"name": NAME, "tags": TAGS})
    assert reply.headers["Content-Type"].startswith("application/json") and "Link" not in reply.headers


async def test_end8a_tags_of_no_repository_are_404(tagged: Client) -> None:
    reply = await tagged.ask("GET", "/v2/never/seen/tags/list")
    assert (reply.status, reply.code) == (404, "NAME_UNKNOWN")


async def test_end8a_repository_without_tags_has_an_empty_list(client: Client) -> None:
    await client.push(NAME, BUILT)
    assert (await client.ask("GET", f"/v2/{NAME}/tags/list")).json == {"name": NAME, "tags": []}


@pytest.mark.parametrize("number", [1, 3, 4, 9])
async def test_end8b_pages_follow_each_other_to_the_end(tagged: Client, number: int) -> None:
    found: list[str] = []
    path = f"/v2/{NAME}/tags/list?n={number}"
    while True:
        reply = await tagged.ask("GET", path)
        page = reply.json["tags"]
        found += page
        if "Link" not in reply.headers:
            break
        assert len(page) == number
        path = following(reply)
    assert found == TAGS


@pytest.mark.parametrize(
    ("query", "tags"), [("n=10", TAGS), ("n=11", TAGS), ("n=0", []), ("last=latest", ["z-1"])]
)
@pytest.mark.parametrize("more", ["", "&other=1"])
async def test_end8b_page_that_is_the_last_has_no_link(
    tagged: Client, query: str, tags: list[str], more: str
) -> None:
    reply = await tagged.ask("GET", f"/v2/{NAME}/tags/list?{query}{more}")
    assert reply.json["tags"] == tags and "Link" not in reply.headers


@pytest.mark.parametrize(("last", "first"), [("10", "2"), ("11", "2"), ("Z", "_x"), ("zz", None), ("", "1")])
async def test_end8b_last_need_not_be_a_tag_that_is_there(
    tagged: Client, last: str, first: str | None
) -> None:
    tags = (await tagged.ask("GET", f"/v2/{NAME}/tags/list?n=1&last={last}")).json["tags"]
    assert tags == ([] if first is None else [first])


LISTS = [f"/v2/{NAME}/tags/list", "/v2/_catalog"]


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("number", ["-1", "x", "1.5", "9" * 30, "1000000000000", "%D9%A3", "+1", "1_0"])
async def test_end8b_number_that_is_none_is_400(tagged: Client, path: str, number: str) -> None:
    assert (await tagged.ask("GET", f"{path}?n={number}")).status == 400


@pytest.mark.parametrize("path", LISTS)
async def test_end8b_number_that_is_very_large_is_bounded(tagged: Client, path: str) -> None:
    plain = await tagged.ask("GET", path)
    reply = await tagged.ask("GET", f"{path}?n=999999999")
    assert (reply.status, reply.json) == (200, plain.json)


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("last", ["%00", "..%2F..", "%ff%fe", "a" * 4000, "%22%3E%3Cx", "%F0%9F%98%80", "-1"])
async def test_end8b_last_of_any_bytes_begins_a_list_or_is_400(tagged: Client, path: str, last: str) -> None:
    """B79."""
    reply = await tagged.ask("GET", f"{path}?n=2&last={last}")
    assert reply.status in (200, 400), reply
    found = reply.json.get("tags", reply.json.get("repositories", []))
    assert set(found) <= {*TAGS, NAME}


async def test_tags_beyond_the_registrys_limit_come_in_pages(tmp_path: Any) -> None:
    async with serving(tmp_path / "registry", limits=Limits(reserve=0, tags=4)) as served:
        await served.client.push(NAME, BUILT, *TAGS)
        for query in ("", "?n=1000000"):
            reply = await served.client.ask("GET", f"/v2/{NAME}/tags/list{query}")
            assert reply.json["tags"] == TAGS[:4]
            assert (await served.client.ask("GET", following(reply))).json["tags"] == TAGS[4:8]


def artifact(kind: str, *, number: int = 0, own: bool = True) -> bytes:
    """A manifest with the image as its subject; its kind its own, or its configuration's."""
    raw = json.loads(BUILT.manifest)
    raw["subject"] = descriptor(BUILT.manifest, MANIFEST)
    raw["annotations"] = {"org.example.number": str(number)}
    if own:
        raw["artifactType"] = kind
    else:
        raw["config"]["mediaType"] = kind
    return json.dumps(raw).encode()


async def referrers(client: Client, query: str = "", subject: str = BUILT.digest) -> Any:
    reply = await client.ask("GET", f"/v2/{NAME}/referrers/{subject}{query}")
    assert reply.status == 200, reply
    assert reply.headers["Content-Type"] == INDEX
    body = reply.json
    assert (body["schemaVersion"], body["mediaType"]) == (2, INDEX)
    return reply


@pytest.mark.parametrize("subject", [BUILT.digest, digest(b"nothing")])
async def test_end12a_what_nobody_refers_to_has_an_empty_list(client: Client, subject: str) -> None:
    assert (await referrers(client, subject=subject)).json["manifests"] == []


async def test_end12a_referrers_are_descriptors_with_type_and_annotations(client: Client) -> None:
    await client.push(NAME, BUILT, "1")
    own, configured = artifact(KIND), artifact("application/vnd.example.signature", own=False)
    for data in (own, configured):
        assert (await client.push_manifest(NAME, digest(data), data)).status == 201
    found = {entry["digest"]: entry for entry in (await referrers(client)).json["manifests"]}
    expected = {
        digest(data): descriptor(data, MANIFEST, artifactType=kind, annotations={"org.example.number": "0"})
        for data, kind in ((own, KIND), (configured, "application/vnd.example.signature"))
    }
    assert found == expected


async def test_end12a_index_can_be_a_referrer(client: Client) -> None:
    await client.push(NAME, BUILT, "1")
    body = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "artifactType": KIND,
        "manifests": [],
        "subject": descriptor(BUILT.manifest, MANIFEST),
    }
    data = json.dumps(body).encode()
    reply = await client.push_manifest(NAME, digest(data), data, INDEX)
    assert (reply.status, reply.headers["OCI-Subject"]) == (201, BUILT.digest)
    (entry,) = (await referrers(client)).json["manifests"]
    assert entry == descriptor(data, INDEX, artifactType=KIND)


async def test_end12a_subject_that_comes_later_has_its_referrers(client: Client) -> None:
    for blob in BUILT.blobs.values():
        await client.push_blob(NAME, blob)
    data = artifact(KIND)
    await client.push_manifest(NAME, digest(data), data)
    await client.push(NAME, BUILT, "1")
    assert len((await referrers(client)).json["manifests"]) == 1


async def test_end12b_filter_is_applied_and_said(client: Client) -> None:
    await client.push(NAME, BUILT, "1")
    for kind in (KIND, "application/vnd.other"):
        data = artifact(kind)
        await client.push_manifest(NAME, digest(data), data)
    reply = await referrers(client, f"?artifactType={KIND}")
    assert reply.headers["OCI-Filters-Applied"] == "artifactType"
    assert [entry["artifactType"] for entry in reply.json["manifests"]] == [KIND]
    assert "OCI-Filters-Applied" not in (await referrers(client)).headers


async def test_end12a_many_referrers_come_in_pages(tmp_path: Any) -> None:
    async with serving(tmp_path / "registry", limits=Limits(reserve=0, referrers=3)) as served:
        client = served.client
        await client.push(NAME, BUILT, "1")
        pushed = set()
        for number in range(7):
            data = artifact(KIND, number=number)
            pushed.add(digest(data))
            await client.push_manifest(NAME, digest(data), data)
        found: list[str] = []
        path = f"/v2/{NAME}/referrers/{BUILT.digest}?artifactType={KIND}"
        while True:
            reply = await client.ask("GET", path)
            found += [entry["digest"] for entry in reply.json["manifests"]]
            if "Link" not in reply.headers:
                break
            path = following(reply)
        assert len(found) == 7 and set(found) == pushed


async def test_end12a_referrer_that_is_deleted_is_not_listed(client: Client) -> None:
    await client.push(NAME, BUILT, "1")
    data = artifact(KIND)
    await client.push_manifest(NAME, digest(data), data)
    await client.ask("DELETE", f"/v2/{NAME}/manifests/{digest(data)}")
    assert (await referrers(client)).json["manifests"] == []


@pytest.mark.parametrize("subject", ["latest", "sha256:x"])
async def test_end12a_referrers_of_no_digest_are_400(client: Client, subject: str) -> None:
    reply = await client.ask("GET", f"/v2/{NAME}/referrers/{subject}")
    assert (reply.status, reply.code) == (400, "DIGEST_INVALID")


async def test_catalog_lists_what_the_caller_may_pull(client: Client) -> None:
    for name in ("b", "team", "team/x", "teams", "a"):
        await client.push(name, BUILT, "1")
    everything = (await client.ask("GET", "/v2/_catalog")).json
    assert everything == {"repositories": ["a", "b", "team", "team/x", "teams"]}
    team = await client.who("team").ask("GET", "/v2/_catalog")
    assert team.json == {"repositories": ["team", "team/x"]}
    page = await client.ask("GET", "/v2/_catalog?n=2")
    assert page.json == {"repositories": ["a", "b"]}
    assert (await client.ask("GET", following(page))).json == {"repositories": ["team", "team/x"]}
