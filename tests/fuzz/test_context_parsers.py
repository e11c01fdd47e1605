"""Whatever tar or tree objects come as a build context: trees within bounds, or one clear line."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from image.context import giturl
from image.context.http import checked
from image.context.sinks import tar_into
from image.context.survey import lacking
from image.context.tarcontext import begun
from image.context.urls import name_of
from model.contexttree import Entry, Tree, decode, delta, digest_of, encode, key_of, patched
from model.errors import FlotaError
from tests.support.contexts import listed, store
from tests.support.images import folder, link, member, tar

FULL = os.environ.get("FLOTA_FULL") == "1"
pytestmark = pytest.mark.timeout(900 if FULL else 120)
examples = settings(
    max_examples=5_000 if FULL else 100,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
names = st.sampled_from(["a", "b", "c", "..", ".", "", "a/b", "/", "n" * 256]) | st.text(max_size=5)
paths = st.lists(names, min_size=1, max_size=6).map("/".join).filter(lambda name: "\0" not in name)
members = st.one_of(
    st.builds(member, paths, st.binary(max_size=50), mode=st.integers(0, 0o7777)),
    st.builds(folder, paths),
    st.builds(link, paths, paths, hard=st.booleans()),
    st.builds(member, paths, type=st.sampled_from([tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])),
)


@examples
@given(st.lists(members, max_size=12), st.integers(0, 20_000))
def test_tar_becomes_a_whole_tree_or_one_line(parts: list[tuple[tarfile.TarInfo, bytes]], cut: int) -> None:
    data = tar(*parts)
    data = data[:cut] if cut % 3 == 0 else data
    with tempfile.TemporaryDirectory() as base:
        outside = Path(base) / "outside"
        outside.write_bytes(b"sentinel")
        objects = store(Path(base) / "objects")
        with objects.leased(1 << 20) as lease:
            try:
                root, _ = tar_into(objects, lease, begun(io.BytesIO(data))[1])
            except FlotaError as error:
                assert "\n" not in str(error)
            else:
                assert not lacking(objects, lease, root)
                assert len(listed(objects, root)) <= 12 * 32
        assert not list((Path(base) / "objects/new").glob("*/*"))
        assert outside.read_bytes() == b"sentinel" and sorted(os.listdir(base)) == ["objects", "outside"]


values = st.recursive(
    st.none() | st.integers(-(1 << 63), (1 << 64) - 1) | st.binary(max_size=8) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = st.fixed_dictionaries(
    {"name": st.binary(max_size=4)},
    optional={
        "kind": st.sampled_from(["file", "tree", "link", "fifo", "char"]),
        "mode": st.integers(-1, 1 << 40),
        "mtime_ns": st.integers(-(1 << 63), (1 << 64) - 1),
        "size": st.integers(-1, 1 << 63),
        "digest": st.sampled_from(["", "sha256:" + "0" * 64, "sha256:../../x", "md5:" + "0" * 32]),
        "key": st.sampled_from(["", "sha256:" + "1" * 64, "x"]),
        "target": st.binary(max_size=5),
        "xattrs": st.dictionaries(
            st.sampled_from(["security.capability", "trusted.x"]), st.binary(max_size=3)
        ),
    },
)


@examples
@given(
    st.binary(max_size=64)
    | values.map(msgspec.msgpack.encode)
    | st.lists(fields, max_size=4).map(lambda entries: msgspec.msgpack.encode({"entries": entries}))
)
@example(msgspec.msgpack.encode({"entries": [{"name": b"..", "kind": "fifo"}]}))
@example(b"\x91" * 10_000)
def test_tree_object_is_sound_or_refused(data: bytes) -> None:
    try:
        tree = decode(data)
    except FlotaError as error:
        assert "\n" not in str(error)
        return
    found = [entry.name for entry in tree.entries]
    assert found == sorted(set(found)) and not {b"", b".", b".."} & set(found)
    assert not any(b"/" in name or b"\0" in name for name in found)
    for entry in tree.entries:
        assert 0 <= entry.mode <= 0o7777 and 0 <= entry.size < 1 << 62 and abs(entry.mtime_ns) <= 1 << 62
        assert set(entry.xattrs) <= {"security.capability"}
        assert (entry.kind == "tree") == bool(entry.key) and (entry.kind == "link") == bool(entry.target)
    assert decode(encode(tree)) == tree and digest_of(encode(tree)) and key_of(tree)


@examples
@given(st.integers(1, 60), st.integers(1, 40))
def test_trees_that_name_each_other_many_times_are_counted_as_often(levels: int, width: int) -> None:
    with tempfile.TemporaryDirectory() as base:
        objects = store(Path(base))
        with objects.leased() as lease:
            tree, below = Tree(entries=(Entry(name=b"fifo", kind="fifo"),)), 1
            for _ in range(levels):
                digest = objects.put(encode(tree), lease)
                key = key_of(tree)
                entries = [Entry(name=b"%04d" % n, kind="tree", digest=digest, key=key) for n in range(width)]
                tree, below = Tree(entries=tuple(entries)), width * (below + 1)
            root = objects.put(encode(tree), lease)
            try:
                assert not lacking(objects, lease, root)
            except FlotaError:
                assert below > 1_000_000
            else:
                assert objects.whole[root].entries == below <= 1_000_000


entries = st.dictionaries(
    st.binary(min_size=1, max_size=2).filter(lambda name: not {0, 46, 47} & set(name)),
    st.integers(0, 3),
    max_size=8,
)


def tree_of(table: dict[bytes, int]) -> Tree:
    return Tree(entries=tuple(Entry(name=name, kind="fifo", mode=table[name]) for name in sorted(table)))


@examples
@given(entries, entries, st.binary(max_size=40))
def test_change_of_a_tree_makes_the_other_and_nothing_else(
    one: dict[bytes, int], two: dict[bytes, int], junk: bytes
) -> None:
    base, other = tree_of(one), tree_of(two)
    assert patched(base, delta(base, other)) == encode(other)
    try:
        decode(patched(base, junk))
    except FlotaError as error:
        assert "\n" not in str(error)


pieces = st.sampled_from(
    ["https://", "git@", "ssh://", "git://", "file://", "ext::", "h", "/", ":", "#", "?", "ref=", "&", "-u",
     ".git", "..", "@", "[::1]", "%2e", "\n", "\0", "subdir=", "tag=v", "main", "//", "~", "^", "\\", " "]
)  # fmt: skip


@examples
@given(st.lists(pieces, max_size=12).map("".join) | st.text(max_size=60))
def test_git_url_is_a_place_or_refused(text: str) -> None:
    try:
        found = giturl.parse(text)
    except FlotaError as error:
        assert "\n" not in str(error)
        return
    assert found.scheme in giturl.SCHEMES and found.host and 0 < found.port < 65_536
    assert not found.url.startswith("-") and not found.host.startswith("-") and not found.ref.startswith("-")
    assert ".." not in found.folder.split("/") and not found.folder.startswith("/")
    assert found.url.isprintable() or found.url.isascii() is False
    assert giturl.parse(found.url).url == found.url


@examples
@given(st.lists(pieces, max_size=12).map("".join) | st.text(max_size=60), st.text(max_size=60))
@example("https://[::1]git@", "")
def test_url_of_a_file_is_one_of_http_or_refused(text: str, disposition: str) -> None:
    try:
        url = checked(text)
    except FlotaError as error:
        assert "\n" not in str(error)
        return
    assert url.scheme in ("http", "https") and url.host
    name = name_of(url, disposition)
    assert name and "/" not in name and name not in (".", "..") and len(os.fsencode(name)) <= 255
