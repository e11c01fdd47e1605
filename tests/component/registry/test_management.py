"""OCI distribution-spec 1.1, category Content Management: end points 9 and 10; access; methods."""

from __future__ import annotations

import pytest

from tests.support.fleetregistry import Client
from tests.support.images import digest, image, member, tar

NAME = "tools/box"
BUILT = image([tar(member("a", b"a"))])


@pytest.fixture
async def pushed(client: Client) -> Client:
    await client.push(NAME, BUILT, "1", "2")
    return client


async def test_end9_tag_that_is_deleted_is_404_and_its_manifest_stays(pushed: Client) -> None:
    assert (await pushed.ask("DELETE", f"/v2/{NAME}/manifests/1")).status == 202
    assert (await pushed.ask("GET", f"/v2/{NAME}/manifests/1")).status == 404
    for reference in ("2", BUILT.digest):
        assert (await pushed.ask("GET", f"/v2/{NAME}/manifests/{reference}")).status == 200
    assert (await pushed.ask("GET", f"/v2/{NAME}/tags/list")).json["tags"] == ["2"]


async def test_end9_manifest_that_is_deleted_takes_its_tags_along(pushed: Client) -> None:
    assert (await pushed.ask("DELETE", f"/v2/{NAME}/manifests/{BUILT.digest}")).status == 202
    for reference in ("1", "2", BUILT.digest):
        assert (await pushed.ask("GET", f"/v2/{NAME}/manifests/{reference}")).status == 404
    assert (await pushed.ask("GET", f"/v2/{NAME}/tags/list")).json["tags"] == []
    await pushed.push(NAME, BUILT, "1")
    assert (await pushed.ask("GET", f"/v2/{NAME}/manifests/1")).status == 200


@pytest.mark.parametrize("name", [NAME, "never/seen"])
@pytest.mark.parametrize("reference", ["9", ".x", digest(b"none")])
async def test_end9_manifest_that_is_not_there_is_404(pushed: Client, name: str, reference: str) -> None:
    reply = await pushed.ask("DELETE", f"/v2/{name}/manifests/{reference}")
    assert (reply.status, reply.code) == (404, "MANIFEST_UNKNOWN")


async def test_end10_blob_that_is_deleted_is_404_there_alone(pushed: Client) -> None:
    await pushed.push("other", BUILT, "1")
    assert (await pushed.ask("DELETE", f"/v2/{NAME}/blobs/{BUILT.id}")).status == 202
    assert (await pushed.ask("GET", f"/v2/{NAME}/blobs/{BUILT.id}")).status == 404
    assert (await pushed.ask("GET", f"/v2/other/blobs/{BUILT.id}")).body == BUILT.config
    again = await pushed.ask("DELETE", f"/v2/{NAME}/blobs/{BUILT.id}")
    assert (again.status, again.code) == (404, "BLOB_UNKNOWN")


@pytest.mark.parametrize("digest_", ["sha256:x", "latest", "sha256:" + "A" * 64, "sha512:" + "0" * 127])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_blob_of_no_digest_is_400(pushed: Client, method: str, digest_: str) -> None:
    assert (await pushed.ask(method, f"/v2/{NAME}/blobs/{digest_}")).status == 400


WAYS = [
    ("GET", f"/v2/{NAME}/manifests/1", "pull"),
    ("HEAD", f"/v2/{NAME}/blobs/{BUILT.id}", "pull"),
    ("GET", f"/v2/{NAME}/tags/list", "pull"),
    ("GET", f"/v2/{NAME}/referrers/{BUILT.id}", "pull"),
    ("POST", f"/v2/{NAME}/blobs/uploads/", "push"),
    ("PUT", f"/v2/{NAME}/manifests/1", "push"),
    ("GET", f"/v2/{NAME}/blobs/uploads/{'0' * 32}", "push"),
    ("DELETE", f"/v2/{NAME}/manifests/1", "delete"),
    ("DELETE", f"/v2/{NAME}/blobs/{BUILT.id}", "delete"),
]
RIGHTS: dict[str, tuple[str, ...]] = {
    "reader": ("pull",),
    "writer": ("pull", "push"),
    "": ("pull", "push", "delete"),
    "team": (),
}


@pytest.mark.parametrize("user", list(RIGHTS))
@pytest.mark.parametrize(("method", "path", "action"), WAYS)
async def test_request_beyond_the_callers_grant_is_403(
    pushed: Client, method: str, path: str, action: str, user: str
) -> None:
    reply = await pushed.who(user).ask(method, path)
    if action in RIGHTS[user]:
        assert reply.status not in (401, 403)
    else:
        assert reply.status == 403
        assert method == "HEAD" or reply.code == "DENIED"


@pytest.mark.parametrize("user", ["nobody", "stranger"])
@pytest.mark.parametrize(
    ("method", "path"), [way[:2] for way in WAYS] + [("GET", "/v2/"), ("GET", "/v2/_catalog")]
)
async def test_request_of_nobody_is_401_with_a_challenge(
    pushed: Client, method: str, path: str, user: str
) -> None:
    reply = await pushed.who(user).ask(method, path)
    assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, 'Basic realm="flota"')
    assert method == "HEAD" or reply.code == "UNAUTHORIZED"


async def test_grant_of_a_prefix_ends_at_a_slash(client: Client) -> None:
    team = client.who("team")
    for name, status in (
        ("team", 202),
        ("team/a/b", 202),
        ("teams", 403),
        ("team-x/a", 403),
        ("a/team", 403),
    ):
        assert (await team.ask("POST", f"/v2/{name}/blobs/uploads/")).status == status, name


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/"),
        ("PUT", f"/v2/{NAME}/blobs/{BUILT.id}"),
        ("PATCH", f"/v2/{NAME}/manifests/1"),
        ("DELETE", f"/v2/{NAME}/tags/list"),
        ("GET", f"/v2/{NAME}/blobs/uploads/"),
        ("OPTIONS", "/v2/_catalog"),
    ],
)
async def test_method_that_is_none_of_an_end_point_is_405(client: Client, method: str, path: str) -> None:
    reply = await client.ask(method, path)
    assert (reply.status, reply.code) == (405, "UNSUPPORTED")
    assert method not in reply.headers["Allow"]


@pytest.mark.parametrize(
    "path", ["/", "/v1/", "/v2/x", "/v2/x/other/1", "/v3/x/manifests/1", "/v2/_catalog/x"]
)
async def test_path_that_is_no_end_point_is_404(client: Client, path: str) -> None:
    reply = await client.ask("GET", path)
    assert (reply.status, reply.code) == (404, "UNSUPPORTED")
