"""Names, numbers, streams and archives of images from anybody: a value within bounds, or one clear line."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from image.archive import Archive
from image.changes import KNOWN, apply
from image.compression import decompressed, kind_of
from image.extract import MAX_PART, WHITEOUT, place
from image.tarfields import LIMIT, nanoseconds, number
from image.zstdframes import Frames
from model.errors import Damaged, FlotaError, InvalidInput
from model.image import ImageConfig
from model.status import Platform
from tests.support.images import docker_archive, image, member, oci_archive, tar

FULL = os.environ.get("FLOTA_FULL") == "1"
pytestmark = pytest.mark.timeout(900 if FULL else 120)
examples = settings(
    max_examples=10_000 if FULL else 150, deadline=None, suppress_health_check=list(HealthCheck)
)
PARTS = st.sampled_from(
    [b"", b".", b"..", b"...", b".wh.", b".wh..", b".wh..wh..opq", b"a", b"\xff", b"n" * 300]
)


@examples
@given(st.lists(PARTS | st.binary(max_size=9), max_size=8).map(b"/".join))
def test_place_of_any_name_is_clean_or_refused(name: bytes) -> None:
    try:
        found = place(name)
    except Damaged as error:
        assert "\n" not in str(error)
        return
    assert found.startswith(b"/") and (found == b"/" or not found.endswith(b"/"))
    for part in found.split(b"/")[1:]:
        assert part not in (b".", b"..") and len(part) <= MAX_PART + len(WHITEOUT)
    assert place(found) == found


@examples
@given(st.binary(min_size=8, max_size=12) | st.text("01234567 \0", min_size=8, max_size=12).map(str.encode))
def test_number_of_any_field_is_bounded_or_refused(field: bytes) -> None:
    for signed in (False, True):
        try:
            value = number(field, "size", 0, signed=signed)
        except Damaged as error:
            assert "\n" not in str(error)
        else:
            assert (-LIMIT if signed else 0) <= value < 1 << 62


@examples
@given(st.binary(max_size=30) | st.from_regex(rb"-?[0-9]{1,20}(\.[0-9]{0,12})?", fullmatch=True))
def test_time_of_any_record_is_bounded_or_refused(value: bytes) -> None:
    try:
        assert abs(nanoseconds({"mtime": value}, 0)) < 10**28
    except Damaged as error:
        assert "\n" not in str(error)


PACKS: list[Callable[[bytes], bytes]] = [
    gzip.compress,
    zstandard.compress,
    lzma.compress,
    bz2.compress,
    bytes,
]


@examples
@example(data=b"", pack=gzip.compress, edits=[(10, 0)], cut=0)
@given(
    data=st.binary(max_size=3000),
    pack=st.sampled_from(PACKS),
    edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3),
    cut=st.integers(0, 600),
)
def test_stream_is_what_was_packed_or_damaged(
    data: bytes, pack: Callable[[bytes], bytes], edits: list[tuple[int, int]], cut: int
) -> None:
    packed = bytearray(pack(data))
    for at, value in edits:
        if at < len(packed):
            packed[at] = value
    if cut < len(packed) and cut % 2:
        del packed[cut:]
    read, taken = decompressed(io.BytesIO(bytes(packed))), 0
    try:
        while piece := read(4096):
            taken += len(piece)
            assert len(piece) <= 1 << 18
    except Damaged as error:
        assert "\n" not in str(error)


@examples
@given(st.lists(st.binary(max_size=400), min_size=1, max_size=3), st.integers(0, 2000))
def test_zstd_frames_end_where_the_library_ends_them(contents: list[bytes], cut: int) -> None:
    packed, ends = b"", {0}
    for content in contents:
        packed += zstandard.compress(content)
        ends.add(len(packed))
    cut = min(cut, len(packed))
    frames = Frames()
    frames.feed(packed[:cut])
    assert frames.whole == (cut in ends)


@examples
@given(
    form=st.sampled_from(["docker", "oci"]),
    edits=st.lists(st.tuples(st.integers(0, 9000), st.binary(min_size=1, max_size=9)), max_size=4),
)
def test_archive_of_images_is_read_or_refused(form: str, edits: list[tuple[int, bytes]]) -> None:
    layer = tar(member("x", b"y"))
    built = image([layer])
    data = bytearray(
        docker_archive(built, [layer], names=["a:1"]) if form == "docker" else oci_archive(built)
    )
    for at, piece in edits:
        data[at : at + len(piece)] = piece
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "archive")
        source.write_bytes(data)
        archive = Archive(Path(folder))
        try:
            archive.extract(source, 1 << 20)
            found = archive.images(Platform(os="linux", arch="amd64"))
        except FlotaError as error:
            assert "\n" not in str(error)
        else:
            assert all(len(one.blobs) == len(one.parsed.diff_ids) for one in found)
        assert kind_of(bytes(data[:6])) or os.listdir(folder) == ["archive"]


@examples
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*KNOWN, "RUN", "env"]), st.text(max_size=40) | st.from_regex(r'\["[a-z]*",?')
        ).map(" ".join),
        max_size=3,
    )
)
def test_changes_of_any_words_give_a_configuration_or_one_line(changes: list[str]) -> None:
    try:
        config = apply(ImageConfig(), changes)
    except (InvalidInput, Damaged) as error:
        assert "\n" not in str(error)
    else:
        json.dumps(config.labels)
        assert all("=" in entry for entry in config.env)
