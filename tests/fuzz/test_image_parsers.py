"""Whatever bytes come, the parsers of images answer with a value or with one clear line."""

from __future__ import annotations

import io
import json
import os
import tarfile
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image.manifest import ACCEPTED, Configuration, Index, Manifest, parse_configuration, parse_document
from image.reference import parse
from image.registry.auth import challenges, preferred
from image.sparse import MAX_REGIONS, from_content, from_text
from image.tarfields import LIMIT, pax
from image.tarstream import TarReader
from image.zstdframes import Frames
from model.errors import FlotaError, InvalidInput
from tests.support.images import folder, link, member, tar

FULL = os.environ.get("FLOTA_FULL") == "1"
pytestmark = pytest.mark.timeout(900 if FULL else 120)
examples = settings(
    max_examples=10_000 if FULL else 150,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

SEED = [
    tar(
        folder("d", mtime=1.5),
        member("d/" + "n" * 120, b"x" * 700, uid=1 << 30),
        link("l", "t" * 200),
        member("c", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        format=form,
    )
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
]


def checked_header(data: bytearray, at: int) -> None:
    """Give a mutated header a right checksum, so that what is behind it is reached."""
    block = data[at : at + 512]
    if len(block) == 512 and any(block):
        block[148:156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(block)


@examples
@given(
    seed=st.sampled_from(SEED),
    edits=st.lists(st.tuples(st.integers(0, 6000), st.binary(min_size=1, max_size=12)), max_size=6),
    cut=st.integers(0, 12_000),
    mend=st.booleans(),
)
def test_reader_of_tar_gives_bounded_members_or_one_line(
    seed: bytes, edits: list[tuple[int, bytes]], cut: int, mend: bool
) -> None:
    data = bytearray(seed[:cut] if cut % 3 == 0 else seed)
    for at, piece in edits:
        data[at : at + len(piece)] = piece
    if mend:
        for at in range(0, len(data), 512):
            checked_header(data, at)
    reader = TarReader(io.BytesIO(data).read)
    taken = 0
    try:
        for found in reader:
            assert 0 <= found.size < LIMIT and 0 <= found.mode <= 0o7777 and 0 <= found.uid < LIMIT
            assert b"\0" not in found.name + found.link
            taken += sum(len(piece) for piece in reader.content())
    except FlotaError as error:
        assert "\n" not in str(error)
    assert taken <= len(data)


@examples
@given(st.binary(max_size=200) | st.builds(lambda t: b"%d %s\n" % (len(t) + 4, t), st.binary(max_size=60)))
def test_pax_records_are_a_table_or_one_line(data: bytes) -> None:
    try:
        assert all(isinstance(key, str) for key in pax(data))
    except FlotaError as error:
        assert error.code == "damaged"


@examples
@given(st.text("0123456789,\n-", max_size=300), st.integers(-1, LIMIT))
def test_sparse_maps_ascend_within_their_file(text: str, size: int) -> None:
    blocks = iter([text.encode().ljust(512, b"\0")[:512]] * 3)

    def read() -> bytes:
        try:
            return next(blocks)
        except StopIteration:
            raise InvalidInput("the stream ended") from None

    for parse_map in (lambda: from_text(text.encode(), size), lambda: from_content(read, size)[0]):
        try:
            regions = parse_map()
        except FlotaError:
            continue
        end = 0
        assert len(regions) <= MAX_REGIONS
        for offset, length in regions:
            assert end <= offset and length > 0
            end = offset + length
        assert end <= max(size, 0)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
digests = st.sampled_from(["sha256:" + "a" * 64, "sha256:x", "", "md5:" + "a" * 32])
descriptors = st.fixed_dictionaries(
    {"digest": digests | anything, "size": st.integers(0, 99) | anything},
    optional={
        "mediaType": st.sampled_from(ACCEPTED) | anything,
        "platform": anything,
        "urls": anything,
        "annotations": anything,
    },
)
documents = st.fixed_dictionaries(
    {"schemaVersion": st.just(2) | anything},
    optional={
        "mediaType": st.sampled_from(ACCEPTED) | anything,
        "config": descriptors | anything,
        "layers": st.lists(descriptors, max_size=3) | anything,
        "manifests": st.lists(descriptors, max_size=3) | anything,
    },
)
checks = st.dictionaries(
    st.sampled_from(["Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"]),
    st.integers(-1, 1 << 65) | st.lists(st.sampled_from(["NONE", "CMD", "CMD-SHELL", "x", ""])) | anything,
)
configurations = st.fixed_dictionaries(
    {"rootfs": st.fixed_dictionaries({"diff_ids": st.lists(digests, max_size=3) | anything}) | anything},
    optional={
        "os": anything,
        "architecture": anything,
        "created": anything,
        "history": st.lists(anything, max_size=2) | anything,
        "config": st.dictionaries(
            st.sampled_from(["Env", "Cmd", "Volumes", "ExposedPorts", "Labels", "User", "WorkingDir"]),
            anything,
        )
        | st.fixed_dictionaries({"Healthcheck": checks | anything, "Shell": anything}),
    },
)


def dump(document: Any) -> bytes:
    return json.dumps(document).encode()


@examples
@given(st.builds(dump, documents) | st.binary(max_size=100), st.sampled_from(["", *ACCEPTED]))
def test_manifest_is_a_value_or_one_line(data: bytes, media_type: str) -> None:
    try:
        parsed = parse_document(data, media_type)
    except FlotaError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(parsed, Manifest | Index)
        msgspec.json.encode(parsed)


@examples
@given(st.builds(dump, configurations) | st.binary(max_size=100))
def test_configuration_is_a_value_or_one_line(data: bytes) -> None:
    try:
        parsed = parse_configuration(data)
    except FlotaError as error:
        assert "\n" not in str(error)
    else:
        assert msgspec.json.decode(msgspec.json.encode(parsed), type=Configuration) == parsed


@examples
@given(st.text(max_size=80) | st.from_regex(r"([a-z]{1,5}[./:@_-]{0,2}){1,8}"))
def test_reference_is_stable_or_one_line(text: str) -> None:
    try:
        parsed = parse(text)
    except InvalidInput as error:
        assert "\n" not in str(error)
    else:
        assert parse(parsed.familiar) == parsed
        assert ".." not in parsed.path.split("/")


@examples
@given(st.binary(max_size=300))
def test_frames_of_any_bytes_are_followed(data: bytes) -> None:
    frames = Frames()
    frames.feed(b"\x28\xb5\x2f\xfd" + data)
    assert frames.whole in (True, False)


@examples
@given(
    st.lists(st.text(max_size=60) | st.from_regex(r'(Bearer|Basic) ([a-z]+="?[^"]*"?,? ?){1,4}'), max_size=3)
)
def test_challenges_of_any_header_are_read(headers: list[str]) -> None:
    found = challenges(headers)
    chosen = preferred(found)
    assert chosen is None or chosen in found
