"""Documents of images beside manifests, from registries, hosts and archives: read or refused in a line."""

from __future__ import annotations

import json
import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.imagefilters import reference_fits
from cli.parse import manifests as lists
from image import attestations, indexes
from image.digest import is_digest, of
from image.manifest import ACCEPTED, DOCKER_INDEX, MAX_BLOB, OCI_INDEX, Index, parse_document
from image.peers import chain, chunks, proof
from image.platforms import parsed_platform
from model.errors import Damaged, FlotaError, InvalidInput
from model.ids import HostId
from model.remoteimages import RemoteImage
from model.status import Platform
from tests.fuzz.test_image_parsers import anything, configurations, descriptors, documents, dump

FULL = os.environ.get("FLOTA_FULL") == "1"
examples = settings(
    max_examples=10_000 if FULL else 150, deadline=None, suppress_health_check=list(HealthCheck)
)
AMD64 = Platform(os="linux", arch="amd64")
HOST = HostId("a" * 64)
LINKED = st.fixed_dictionaries(
    {},
    optional={
        "schemaVersion": st.just(2) | anything,
        "mediaType": st.sampled_from(ACCEPTED) | anything,
        "subject": descriptors | anything,
        **{
            key: st.lists(descriptors | anything, max_size=3) | anything
            for key in ("layers", "blobs", "manifests")
        },
        "config": descriptors | anything,
    },
)
BYTES = st.binary(max_size=100) | LINKED.map(dump)


def good(found: Any) -> bool:
    return is_digest(found.digest) and 0 <= found.size <= MAX_BLOB


@examples
@given(BYTES, st.sampled_from(["", "text/plain", *ACCEPTED]))
def test_what_any_document_names_is_bounded_or_refused(data: bytes, media_type: str) -> None:
    try:
        found = indexes.linked(data, media_type)
    except FlotaError as error:
        assert "\n" not in str(error)
    else:
        assert all(map(good, (*found.blobs, *found.manifests)))
        assert found.media_type.isprintable() and (not found.subject or is_digest(found.subject))


@examples
@given(BYTES)
def test_index_of_any_bytes_is_one_or_refused(data: bytes) -> None:
    try:
        assert indexes.media_type_of(data) in (OCI_INDEX, DOCKER_INDEX)
        entries = indexes.entries_of(data)
    except FlotaError as error:
        assert "\n" not in str(error)
        return
    again = indexes.made(entries)
    assert indexes.entries_of(again) == entries and indexes.made(indexes.entries_of(again)) == again


ENTRIES = st.fixed_dictionaries(
    {"digest": st.just("sha256:" + "a" * 64), "size": st.integers(0, 99)},
    optional={
        "mediaType": st.sampled_from(ACCEPTED) | anything,
        "platform": st.fixed_dictionaries({}, optional={"os": st.just("linux"), "variant": anything})
        | anything,
        "annotations": anything,
    },
)


@examples
@given(st.lists(ENTRIES | anything, min_size=1, max_size=3))
def test_index_that_a_host_took_can_be_put_into_a_list(entries: list[Any]) -> None:
    text = json.dumps({"schemaVersion": 2, "manifests": entries})
    try:
        known = parse_document(text.encode())
    except FlotaError:
        return
    remote = RemoteImage(ref="r.example/a:1", digest=of(text.encode()), document=text)
    found = lists.members_of(remote.ref, remote)
    again = parse_document(lists.document(lists.ManifestList(ref="b", members=found)).encode())
    assert isinstance(known, Index) and isinstance(again, Index)
    assert [one.digest for one in again.manifests] == [one.digest for one in known.manifests]


@examples
@given(BYTES)
def test_attestation_of_any_bytes_has_a_predicate_or_is_refused(data: bytes) -> None:
    try:
        attestations.read(data)
    except FlotaError as error:
        assert "\n" not in str(error)


@examples
@given(
    st.lists(documents.map(dump) | st.binary(max_size=50), max_size=5),
    configurations.map(dump) | st.binary(max_size=50),
    st.sampled_from(["first", "config", "other"]),
)
def test_documents_of_another_host_are_a_chain_or_refused(
    given_: list[bytes], config: bytes, named: str
) -> None:
    first = of(given_[0]) if given_ else of(b"")
    digest = {"first": first, "config": of(config), "other": of(b"other")}[named]
    try:
        found = chain.checked(given_, config, digest, AMD64)
    except FlotaError as error:
        assert "\n" not in str(error)
    else:
        assert of(found.data) == digest or named == "config" or found.indexes
        assert found.manifest.config.digest == of(config)


@examples
@given(st.text(max_size=1200) | st.text("0123456789abcdef", max_size=1200), st.integers(0, MAX_BLOB))
def test_set_of_pieces_of_any_text_is_one_of_the_blob_or_refused(text: str, size: int) -> None:
    try:
        have = chunks.decode(text, size)
    except Damaged as error:
        assert "\n" not in str(error)
    else:
        assert 0 <= have <= chunks.every(size) and chunks.decode(chunks.encode(have), size) == have


@examples
@given(
    st.text(st.characters(exclude_categories=()), max_size=200)
    | st.builds("{} {}".format, st.just(of(b"m")), st.text(max_size=70))
)
def test_proof_of_any_text_holds_for_nothing(text: str) -> None:
    assert not proof.holds(text, b"m", HOST)
    assert proof.named(text) in ("", text[:71])


@examples
@given(st.text(max_size=60) | st.from_regex(r"\A[a-z0-9]{0,8}(/[a-z0-9]{0,8}){0,4}\Z"))
def test_platform_of_any_text_is_two_or_three_words_or_refused(text: str) -> None:
    try:
        found = parsed_platform(text)
    except InvalidInput as error:
        assert "\n" not in str(error)
    else:
        assert (
            found.os and found.arch and "/".join(filter(None, (found.os, found.arch, found.variant))) == text
        )


@examples
@given(
    st.from_regex(r"\A[a-z]{1,6}(/[a-z]{1,6}){0,3}:[a-z0-9]{1,5}\Z"),
    st.text("ab*?[]!-/:.", max_size=40) | st.text(max_size=40),
)
def test_pattern_of_any_text_fits_a_name_or_does_not(name: str, pattern: str) -> None:
    assert reference_fits(name, pattern) in (True, False)
    assert reference_fits(name, name)


def test_seeds_of_documents_reach_what_is_good() -> None:
    """The strategies' own words, so that the targets above see more than refusals."""
    entry = {"digest": "sha256:" + "a" * 64, "size": 3}
    whole = json.dumps({"schemaVersion": 2, "config": entry, "layers": [entry], "subject": entry}).encode()
    assert indexes.linked(whole, "").subject == entry["digest"]
