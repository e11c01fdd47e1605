"""The pure parts of the fleet's registry: paths, ranges, pages, documents, access, pace."""

from __future__ import annotations

import json
from typing import Any

import pytest

from image.digest import of
from image.manifest import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from image.registry.server import ranges
from image.registry.server.access import Caller, Grant, may, needed
from image.registry.server.documents import parse as read
from image.registry.server.grammar import Target, is_name, is_tag, parse
from image.registry.server.limits import Limits
from image.registry.server.pace import Pace
from image.registry.server.ranges import Page, Span
from image.registry.server.refusal import Refusal, refusal_of
from model.errors import Exhausted, Forbidden, Internal, Unauthenticated

DIGEST = of(b"x")
UPLOAD = "0" * 32


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v2/", Target(kind="base")),
        ("/v2/_catalog", Target(kind="catalog")),
        (f"/v2/a/blobs/{DIGEST}", Target(kind="blob", name="a", reference=DIGEST)),
        ("/v2/a/b/blobs/uploads/", Target(kind="uploads", name="a/b")),
        (f"/v2/a/blobs/uploads/{UPLOAD}", Target(kind="upload", name="a", reference=UPLOAD)),
        ("/v2/a/manifests/1", Target(kind="manifest", name="a", reference="1")),
        (
            "/v2/manifests/manifests/manifests",
            Target(kind="manifest", name="manifests", reference="manifests"),
        ),
        ("/v2/blobs/uploads/manifests/1", Target(kind="manifest", name="blobs/uploads", reference="1")),
        ("/v2/a/tags/list", Target(kind="tags", name="a")),
        ("/v2/tags/list/tags/list", Target(kind="tags", name="tags/list")),
        (f"/v2/a/referrers/{DIGEST}", Target(kind="referrers", name="a", reference=DIGEST)),
    ],
)
def test_path_is_read_from_its_end(path: str, target: Target) -> None:
    assert parse(path) == target


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/", "UNSUPPORTED"),
        ("/v2", None),
        ("/v2/a", "UNSUPPORTED"),
        ("/v2/manifests/1", "NAME_INVALID"),
        ("/v2//manifests/1", "NAME_INVALID"),
        ("/v2/A/manifests/1", "NAME_INVALID"),
        ("/v2/a/../b/manifests/1", "NAME_INVALID"),
        ("/v2/a\n/manifests/1", "NAME_INVALID"),
        ("/v2/a/blobs/latest", "DIGEST_INVALID"),
        (f"/v2/a/blobs/{DIGEST.upper()}", "DIGEST_INVALID"),
        (f"/v2/a/blobs/{DIGEST}\n", "DIGEST_INVALID"),
        ("/v2/a/referrers/1", "DIGEST_INVALID"),
        (f"/v2/a/blobs/uploads/{UPLOAD}0", "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/a/blobs/uploads/../x", "UNSUPPORTED"),
    ],
)
def test_path_that_is_none_is_refused_by_its_code(path: str, word: str | None) -> None:
    if word is None:
        assert parse(path).kind == "base"
        return
    with pytest.raises(Refusal) as refused:
        parse(path)
    assert refused.value.word == word


@pytest.mark.parametrize("name", ["a", "a0/b-c/d__e", "a---b", "a.b_c", "x" * 255])
def test_name_of_the_grammar_is_one(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name", ["", "a/", "/a", "a..b", "a___b", "a._b", "a-", "é", "a b", "x" * 256, "a\n"]
)
def test_name_outside_the_grammar_is_none(name: str) -> None:
    assert not is_name(name)


@pytest.mark.parametrize(("tag", "good"), [("a", True), ("_", True), ("A.b-c", True), ("a" * 128, True)])
def test_tag_of_the_grammar_is_one(tag: str, good: bool) -> None:
    assert is_tag(tag) is good


@pytest.mark.parametrize("tag", ["", ".a", "-a", "a" * 129, "a/b", "a:b", "a\n", "é"])
def test_tag_outside_the_grammar_is_none(tag: str) -> None:
    assert not is_tag(tag)


@pytest.mark.parametrize(
    ("header", "size", "span"),
    [
        ("", 10, None),
        ("bytes=0-0", 10, Span(start=0, end=1)),
        ("bytes=3-", 10, Span(start=3, end=10)),
        ("bytes=-3", 10, Span(start=7, end=10)),
        ("bytes=-30", 10, Span(start=0, end=10)),
        ("bytes=3-99", 10, Span(start=3, end=10)),
        ("bytes=4-3", 10, None),
        ("bytes=1-2,4-5", 10, None),
        ("items=0-1", 10, None),
        ("bytes=٣-4", 10, None),
    ],
)
def test_range_of_a_blob_is_within_it(header: str, size: int, span: Span | None) -> None:
    assert ranges.of_blob(header, size) == span


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=0-0", 0), ("bytes=-0", 10), ("bytes=-5", 0)]
)
def test_range_beyond_a_blob_is_416(header: str, size: int) -> None:
    with pytest.raises(Refusal) as refused:
        ranges.of_blob(header, size)
    assert refused.value.status == 416
    assert refused.value.headers == {"Content-Range": f"bytes */{size}"}


@pytest.mark.parametrize("header", ["0-9", "bytes 0-9/10", "bytes 0-9/*", " 0-9 "])
def test_content_range_of_a_chunk_is_inclusive(header: str) -> None:
    assert ranges.of_chunk(header, 10) == Span(start=0, end=10)
    with pytest.raises(Refusal, match="has 10 bytes, the body 11"):
        ranges.of_chunk(header, 11)


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ({}, Page(number=100)),
        ({"n": "5"}, Page(number=5)),
        ({"n": "500", "last": "x"}, Page(number=100, last="x")),
    ],
)
def test_page_has_no_more_entries_than_the_limit(query: dict[str, str], page: Page) -> None:
    assert ranges.page(query, 100) == page


def test_page_is_followed_only_where_there_is_more() -> None:
    assert ranges.cut(["a", "b", "c"], Page(number=2)) == (("a", "b"), "b")
    assert ranges.cut(["a", "b"], Page(number=2)) == (("a", "b"), "")
    assert ranges.cut(["a"], Page(number=0)) == ((), "")
    assert ranges.link("/v2/a/tags/list", {"n": "2", "last": 'x"><'}) == (
        '</v2/a/tags/list?n=2&last=x%22%3E%3C>; rel="next"'
    )


def document(**changes: Any) -> bytes:
    raw = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.x", "digest": DIGEST, "size": 1},
        "layers": [{"digest": of(b"y"), "size": 1}, {"digest": DIGEST, "size": 1}],
        **changes,
    }
    return json.dumps({key: value for key, value in raw.items() if value is not None}).encode()


def test_manifest_holds_its_config_and_layers_once_each() -> None:
    data = document()
    found = read(data, f"{OCI_MANIFEST}; charset=utf-8")
    assert (found.digest, found.size, found.media_type) == (of(data), len(data), OCI_MANIFEST)
    assert found.blobs == (DIGEST, of(b"y")) and found.manifests == () and found.subject == ""
    assert found.artifact_type == "application/vnd.x"


def test_artifact_type_of_its_own_counts_more_than_its_configs() -> None:
    assert (
        read(document(artifactType="application/vnd.own"), OCI_MANIFEST).artifact_type
        == "application/vnd.own"
    )


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_INDEX])
def test_index_holds_its_manifests(kind: str) -> None:
    data = document(mediaType=kind, config=None, layers=None, manifests=[{"digest": DIGEST, "size": 1}])
    found = read(data, kind)
    assert found.manifests == (DIGEST,) and found.blobs == ()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (document(mediaType=None), DOCKER_MANIFEST),
        (document(mediaType=DOCKER_MANIFEST), OCI_MANIFEST),
        (document(manifests=[]), OCI_MANIFEST),
        (document(mediaType=OCI_INDEX), OCI_INDEX),
        (document(schemaVersion=True), OCI_MANIFEST),
        (document(schemaVersion=None), OCI_MANIFEST),
        (document(fsLayers=[]), OCI_MANIFEST),
        (document(Config={}), OCI_MANIFEST),
        (document(subject={"digest": "x", "size": 1}), OCI_MANIFEST),
        (document(artifactType=1), OCI_MANIFEST),
        (document(layers=[1]), OCI_MANIFEST),
        (document(), "application/json"),
        (b"\xff", OCI_MANIFEST),
        (b"[" * 100_000, OCI_MANIFEST),
    ],
)
def test_document_that_is_none_is_refused(data: bytes, kind: str) -> None:
    with pytest.raises(Refusal) as refused:
        read(data, kind)
    assert refused.value.word == "MANIFEST_INVALID" and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("granted", "prefix", "action", "name", "allowed"),
    [
        ("pull", "", "pull", "a/b", True),
        ("pull", "", "push", "a/b", False),
        ("push", "", "pull", "a/b", True),
        ("push", "", "delete", "a/b", False),
        ("delete", "", "push", "a/b", True),
        ("pull", "a", "pull", "a", True),
        ("pull", "a", "pull", "a/b", True),
        ("pull", "a", "pull", "ab", False),
        ("pull", "a/b", "pull", "a", False),
    ],
)
def test_grant_covers_its_action_and_prefix(
    granted: Any, prefix: str, action: Any, name: str, allowed: bool
) -> None:
    caller = Caller(name="x", grants=(Grant(action=granted, prefix=prefix),))
    assert may(caller, action, name) is allowed
    assert not may(Caller(name="x"), action, name)


@pytest.mark.parametrize(
    ("kind", "method", "action"),
    [
        ("base", "GET", None),
        ("catalog", "GET", None),
        ("manifest", "GET", "pull"),
        ("manifest", "PUT", "push"),
        ("manifest", "DELETE", "delete"),
        ("blob", "DELETE", "delete"),
        ("upload", "GET", "push"),
        ("upload", "DELETE", "push"),
        ("uploads", "POST", "push"),
    ],
)
def test_request_needs_what_it_does(kind: Any, method: str, action: str | None) -> None:
    assert needed(Target(kind=kind, name="a"), method) == action


def test_pace_is_judged_by_whole_windows() -> None:
    pace = Pace(Limits(window=10.0, slowest=100), 0.0)
    pace.fed(1, 9.0)
    pace.fed(99, 10.0)
    pace.fed(99, 19.0)
    with pytest.raises(Refusal) as refused:
        pace.fed(0, 20.0)
    assert refused.value.status == 408


def test_errors_of_flota_have_a_registrys_words() -> None:
    expected = {
        Unauthenticated: ("UNAUTHORIZED", 401),
        Forbidden: ("DENIED", 403),
        Exhausted: ("UNKNOWN", 507),
        Internal: ("UNKNOWN", 500),
    }
    for kind, (word, status) in expected.items():
        refusal = refusal_of(kind("so it is", hint="Do that"))
        assert (refusal.word, refusal.status) == (word, status)
        (error,) = json.loads(refusal.body())["errors"]
        assert error == {"code": word, "message": "so it is. Do that"}
