"""Whatever a client writes in a path, a range, a page or a manifest: a value within bounds, or a refusal."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from image.digest import is_digest, of
from image.manifest import ACCEPTED, OCI_MANIFEST
from image.registry.server import ranges
from image.registry.server.documents import parse as read
from image.registry.server.grammar import is_name, is_tag, manifest_of, parse
from image.registry.server.refusal import Refusal
from model.errors import InvalidInput

FULL = os.environ.get("FLOTA_FULL") == "1"
pytestmark = pytest.mark.timeout(900 if FULL else 120)
examples = settings(
    max_examples=20_000 if FULL else 500,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
DIGEST = of(b"x")
PARTS = st.sampled_from(
    (
        *("", "v2", "a", "b-c", "blobs", "uploads", "manifests", "tags", "list", "referrers", "_catalog"),
        *("..", ".", "%2e", "A", "é", "\0", "\n", "latest", DIGEST, "0" * 32, "sha256:" + "g" * 64),
        *("a" * 300, "-" * 5000 + "a"),
    )
)
PATHS = st.builds("/".join, st.lists(PARTS, max_size=9)) | st.text(max_size=60)
SEED = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.x", "digest": DIGEST, "size": 1},
        "layers": [{"mediaType": "y", "digest": DIGEST, "size": 2, "urls": []}],
        "subject": {"digest": DIGEST, "size": 3},
        "annotations": {"a": "b"},
        "artifactType": "z",
    }
).encode()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(DIGEST),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["schemaVersion", "config", "layers", "manifests", "subject", "digest", "size", "mediaType"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@examples
@given(st.sampled_from(["", "/", "/v2/"]), PATHS)
@example("/v2/", "a/manifests/" + "a" * 100_000)
@example("/v2/", "-".join("a" * 50_000) + "/tags/list")
def test_path_is_refused_or_names_what_the_grammar_allows(start: str, path: str) -> None:
    try:
        target = parse(start + path)
    except Refusal as refusal:
        assert 400 <= refusal.status < 500 and len(refusal.body()) < 2000
        return
    if target.kind not in ("base", "catalog"):
        assert is_name(target.name) and ".." not in target.name
    if target.kind in ("blob", "referrers"):
        assert is_digest(target.reference)


@examples
@given(st.text(max_size=40) | st.from_regex(r"bytes=\d*-\d*", fullmatch=True), st.integers(0, 1 << 40))
def test_range_is_refused_ignored_or_within_the_blob(header: str, size: int) -> None:
    try:
        span = ranges.of_blob(header, size)
    except Refusal as refusal:
        assert refusal.status == 416
        return
    assert span is None or 0 <= span.start < span.end <= size


@examples
@given(st.text(max_size=40) | st.from_regex(r"\d+-\d+", fullmatch=True), st.none() | st.integers(0, 1 << 40))
def test_content_range_is_refused_or_has_the_bodys_length(header: str, length: int | None) -> None:
    try:
        span = ranges.of_chunk(header, length)
    except Refusal as refusal:
        assert refusal.status == 400
        return
    assert span is None or length is None or span.size == length


@examples
@given(st.text(max_size=20), st.text(max_size=20), st.integers(0, 100))
def test_page_is_refused_or_bounded_and_its_link_can_be_read(number: str, last: str, most: int) -> None:
    try:
        page = ranges.page({"n": number, "last": last}, most)
    except Refusal as refusal:
        assert refusal.status == 400
        return
    assert 0 <= page.number <= most
    try:
        link = ranges.link("/v2/a/tags/list", {"last": last})
    except UnicodeEncodeError:  # a lone surrogate, which no URL brings
        return
    assert link.isascii() and link.count(">") == 1 and "\n" not in link


@examples
@given(
    st.binary(max_size=60)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=6)).map(
        lambda edit: SEED[: edit[0]] + edit[1] + SEED[edit[0] + len(edit[1]) :]
    ),
    st.sampled_from([*ACCEPTED, "", "text/plain"]),
)
@example(SEED, OCI_MANIFEST)
def test_manifest_is_refused_or_holds_only_digests(data: bytes, kind: str) -> None:
    try:
        document = read(data, kind)
    except Refusal as refusal:
        assert refusal.word == "MANIFEST_INVALID" and len(refusal.body()) < 4000
        return
    assert all(map(is_digest, (*document.blobs, *document.manifests)))
    assert document.digest == of(data)
    json.dumps(document.descriptor)


@examples
@given(st.text(max_size=60) | st.builds("{}{}{}".format, PATHS, st.sampled_from("@:/"), PARTS))
@example("a" * 100_000 + ":1")
def test_what_people_name_is_a_manifest_of_the_grammar_or_one_line(text: str) -> None:
    try:
        target = manifest_of(text, "127.0.0.1:5000")
    except InvalidInput as error:
        assert "\n" not in str(error) and len(str(error)) < 600
        return
    assert is_name(target.name) and (target.by_digest or is_tag(target.reference))
