"""Tar headers that we write: our own strict reader and Python's tarfile read what was meant."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image import tarwriter
from image.tarstream import Member, TarReader
from image.tarwriter import xattr_key

names = st.binary(min_size=1, max_size=400).filter(lambda n: b"\0" not in n and not n.endswith(b"/"))
ids = st.integers(0, (1 << 32) - 2)
times = st.integers(-(1 << 31) * 10**9, (1 << 33) * 10**9)
xattrs = st.dictionaries(
    st.text("abc.é", min_size=1, max_size=9).map(lambda t: f"user.{t}"),
    st.binary(min_size=1, max_size=60),
    max_size=3,
)
regions = st.lists(st.tuples(st.integers(0, 999), st.integers(1, 999)), max_size=5).map(
    lambda pairs: tuple((number * 2000 + start, length) for number, (start, length) in enumerate(pairs))
)


def plain(name: bytes = b"x", kind: str = "file", **fields: object) -> Member:
    made = Member(name, kind, 0o644, 0, 0, 0, 0, b"", (0, 0), {}, None)
    return made._replace(**fields)  # type: ignore[arg-type]


def reading(data: bytes) -> Callable[[int], bytes]:
    return io.BytesIO(data).read


def packed(member: Member) -> bytes:
    size = tarwriter.content_size(member)
    return tarwriter.header(member) + bytes(size) + tarwriter.padding(size) + tarwriter.END


@st.composite
def members(draw: st.DrawFn) -> Member:
    kind = draw(st.sampled_from(["file", "dir", "symlink", "hardlink", "char", "block", "fifo"]))
    member = plain(
        draw(names),
        kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(ids),
        gid=draw(ids),
        mtime_ns=draw(times),
        xattrs=draw(xattrs),
    )
    if kind == "file":
        member = member._replace(size=draw(st.integers(0, 2000)))
        if draw(st.booleans()):
            member = member._replace(regions=draw(regions), size=20_000)
    if kind in ("symlink", "hardlink"):
        member = member._replace(link=draw(names))
    if kind in ("char", "block"):
        member = member._replace(device=(draw(st.integers(0, 4095)), draw(st.integers(0, (1 << 20) - 1))))
    return member


@given(members())
def test_member_is_read_as_it_was_written(member: Member) -> None:
    reader = TarReader(reading(packed(member)))
    [found] = list(reader)
    assert found == member


@given(members())
def test_header_is_whole_blocks_and_the_same_again(member: Member) -> None:
    assert len(tarwriter.header(member)) % 512 == 0
    assert tarwriter.header(member) == tarwriter.header(
        member._replace(xattrs=dict(reversed(member.xattrs.items())))
    )


@given(members())
def test_member_is_what_pythons_reader_sees(member: Member) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(member)), errors="surrogateescape") as archive:
        [info] = archive.getmembers()
    assert info.name.encode("utf-8", "surrogateescape") == member.name
    assert (info.mode, info.uid, info.gid) == (member.mode, member.uid, member.gid)
    assert info.size == (member.size if member.kind == "file" else 0)
    assert info.issparse() == (member.regions is not None)


def test_time_before_1970_keeps_its_fraction() -> None:
    member = plain(mtime_ns=-500_000_000)
    assert b"mtime=-0.5\n" in tarwriter.header(member)


@pytest.mark.parametrize(
    ("key", "kept"),
    [
        ("user.note", True),
        ("security.capability", True),
        ("security.selinux", False),
        ("trusted.overlay.opaque", False),
        ("trusted.x", False),
        ("user.overlay.opaque", False),
        ("user.", False),
        ("user.a=b", False),
        ("system.posix_acl_access", False),
    ],
)
def test_attributes_of_layers_are_capabilities_and_peoples_own(key: str, kept: bool) -> None:
    assert xattr_key(key) is kept


def test_record_counts_the_digits_of_its_own_length() -> None:
    for size in (*range(80, 110), *range(980, 1010), 9_990, 9_995):
        member = plain(b"n" * size)
        [found] = list(TarReader(reading(packed(member)))) if size <= 4096 else [member]
        assert found.name == member.name
