"""The store of contexts' objects: what leases hold, what goes, what a kill leaves, and clients that lie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from image.context.objects import ASK, LIMIT, Lease, Objects, place
from image.context.receive import received
from image.context.survey import lacking
from model.build import Object, Scanned
from model.contexttree import Entry, Tree, digest_of, encode, key_of
from model.errors import Damaged, ErrorBody, Exhausted, FlotaError, NotFound
from tests.support.contexts import store
from tests.support.waiting import wait_until

BLOCK = 4096


def blob(number: int) -> bytes:
    return b"%d" % number * 10


def test_objects_used_last_stay_and_leased_ones_longer_than_the_limit(tmp_path: Path) -> None:
    objects = store(tmp_path, limit=3 * BLOCK)
    with objects.leased() as lease:
        digests = [objects.put(blob(n), lease) for n in range(5)]
        assert objects.size == 5 * BLOCK
    assert [objects.size_of(one) is not None for one in digests] == [False, False, True, True, True]
    with objects.leased() as lease:
        assert lease.hold(digests[2]) and not lease.hold(digests[0])
        objects.put(blob(6), lease)
        assert objects.size_of(digests[2]) is not None and objects.size_of(digests[3]) is None
        assert objects.prune() == BLOCK and objects.size == 2 * BLOCK
    assert objects.prune() == 2 * BLOCK and not objects.size
    with pytest.raises(NotFound):
        objects.read(digests[2])


def test_lease_of_a_whole_tree_holds_all_of_it_at_once(tmp_path: Path) -> None:
    objects = store(tmp_path)
    with objects.leased() as first:
        file = objects.put(b"file", first)
        tree = Tree(entries=(Entry(name=b"f", digest=file, size=4),))
        root = objects.put(encode(tree), first)
        assert not lacking(objects, first, root)
    with objects.leased() as second:
        assert second.hold_root(root) and second.held == {file, root}
        assert not objects.prune()
    assert objects.prune() and not store(tmp_path).size
    with objects.leased() as third:
        assert not third.hold_root(root) and lacking(objects, third, root).trees == (root,)


def test_object_that_two_threads_of_a_build_take_up_goes_with_their_lease(tmp_path: Path) -> None:
    objects = store(tmp_path)
    with objects.leased() as lease:
        digest = objects.put(b"file", lease)
        assert objects.take_up(digest, lease) and objects.take_up(digest, lease)
        assert not objects.prune()
    assert objects.prune() and not objects.size


def test_one_build_may_not_receive_more_than_its_room(tmp_path: Path) -> None:
    objects = store(tmp_path)
    with objects.leased(10) as lease:
        lease.take(10)
        with pytest.raises(Exhausted, match="need more than the"):
            lease.take(1)


def test_disk_that_others_filled_meanwhile_ends_a_build(tmp_path: Path) -> None:
    rooms = [1, 0]
    objects = Objects(tmp_path, room=lambda: rooms.pop(0))
    objects.open()
    with objects.leased() as lease:
        lease.take(ASK - 1)
        lease.take(1)
        lease.take(ASK - 1)
        assert rooms == [0], "it is not asked for each piece"
        with pytest.raises(Exhausted, match="this host has for them"):
            lease.take(1)


def test_damaged_object_is_refused_and_asked_for_anew(tmp_path: Path) -> None:
    objects = store(tmp_path)
    with objects.leased() as lease:
        digest = objects.put(b"tree", lease)
        Path(objects.path(digest)).write_bytes(b"eert")
        with pytest.raises(Damaged, match="not what it was"):
            objects.read(digest)
        assert objects.size_of(digest) is None and not os.path.exists(objects.path(digest))


def test_store_keeps_objects_over_a_restart_but_not_over_a_boot(tmp_path: Path) -> None:
    boot = tmp_path / "boot-id"
    boot.write_text("one\n")
    objects = Objects(tmp_path / "store", boot_id=os.fspath(boot))
    objects.open()
    with objects.leased() as lease:
        digest = objects.put(b"kept", lease)
    (tmp_path / "store/new/7/7").write_bytes(b"half")
    again = Objects(tmp_path / "store", boot_id=os.fspath(boot))
    again.open()
    assert again.read(digest) == b"kept" and not list((tmp_path / "store/new").glob("*/*"))
    assert again.size == objects.size
    boot.write_text("two\n")
    after = Objects(tmp_path / "store", boot_id=os.fspath(boot))
    after.open()
    assert after.size_of(digest) is None and not after.size


WRITER = """
import sys
from pathlib import Path
from image.context.objects import Objects
objects = Objects(Path(sys.argv[1]))
objects.open()
lease = objects.lease()
for n in range(1 << 30):
    objects.put(b"%d" % n * 5000, lease)
"""


def _more_than(folder: Path, count: int) -> bool:
    return sum(1 for _ in folder.glob("blobs/*/*")) > count


def test_store_whose_writer_was_killed_holds_whole_objects_alone(tmp_path: Path) -> None:
    for count in (1, 20, 60):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, os.fspath(tmp_path)])
        try:
            wait_until(partial(_more_than, tmp_path, count), deadline=30)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        objects = store(tmp_path)
        assert not list((tmp_path / "new").glob("*/*"))
        for path in tmp_path.glob("blobs/*/*"):
            assert len(objects.read("sha256:" + path.name)) == objects.size_of("sha256:" + path.name)
        objects.prune()


# -- clients that lie ---------------------------------------------------------------------------------
class Liar:
    """A client that answers Want with the given bytes, whatever their digests."""

    def __init__(self, root: str, answers: Callable[[str], list[Object]]) -> None:
        self._root = root
        self._answers = answers

    async def scan(self, context: str, paths: Sequence[str]) -> Scanned:
        del context, paths
        return Scanned(ask=1, root=self._root)

    async def want(self, context: str, digests: Sequence[str]) -> AsyncIterator[Object]:
        del context
        for digest in digests:
            for piece in self._answers(digest):
                yield piece


def honest(*contents: bytes) -> Callable[[str], list[Object]]:
    by_digest = {digest_of(data): data for data in contents}
    return lambda digest: [Object(ask=1, digest=digest, data=by_digest[digest], last=True)]


FILE = b"content"
OTHER = Tree(entries=(Entry(name=b"f", digest=digest_of(FILE), size=len(FILE)),))
TREE = encode(OTHER)


def parent(**fields: object) -> bytes:
    entry = {"kind": "tree", "digest": digest_of(TREE), "key": key_of(OTHER), **fields}
    return encode(Tree(entries=(Entry(name=b"sub", **entry),)))  # type: ignore[arg-type]


LIES: dict[str, tuple[bytes, Callable[[str], list[Object]], str]] = {
    "key": (
        parent(key="sha256:" + "0" * 64),
        honest(parent(key="sha256:" + "0" * 64), TREE, FILE),
        "another key",
    ),
    "size": (
        encode(Tree(entries=(Entry(name=b"f", digest=digest_of(FILE), size=1),))),
        honest(encode(Tree(entries=(Entry(name=b"f", digest=digest_of(FILE), size=1),))), FILE),
        "another size",
    ),
    "bytes": (TREE, lambda digest: [Object(ask=1, digest=digest, data=b"x", last=True)], "came as"),
    "unasked": (TREE, lambda digest: [Object(ask=1, digest=digest_of(b"y"), data=b"y")], "not asked for"),
    "less": (TREE, lambda digest: [], "sent less"),
    "unended": (TREE, lambda digest: [Object(ask=1, digest=digest, data=TREE)], "sent less"),
    "more": (
        TREE,
        lambda digest: [*honest(TREE)(digest_of(TREE)), Object(ask=1, digest=digest, data=b"z")],
        "not asked for",
    ),
    "change-of-a-file": (
        encode(OTHER),
        lambda digest: [
            Object(ask=1, digest=digest, base=digest_of(FILE), data=b"", last=digest == digest_of(TREE))
        ],
        "whole object",
    ),
    "base-of-nobody": (
        TREE,
        lambda digest: [Object(ask=1, digest=digest, base="sha256:../..", data=b"x", last=True)],
        "malformed",
    ),
    "unending-change": (
        TREE,
        lambda digest: [Object(ask=1, digest=digest, base=digest_of(FILE), data=b"x")],
        "whole object",
    ),
    "no-tree": (FILE, honest(FILE), "can't be read"),
    "no-digest": (b"no digest", honest(), "malformed"),
}


@pytest.mark.parametrize(("root", "answers", "says"), LIES.values(), ids=LIES)
async def test_client_that_lies_is_refused_and_leaves_no_rubbish(
    root: bytes, answers: Callable[[str], list[Object]], says: str, tmp_path: Path
) -> None:
    objects = store(tmp_path)
    with objects.leased() as lease:
        digest = "sha256:../../etc/passwd" if says == "malformed" else digest_of(root)
        with pytest.raises(Damaged, match=says) as failure:
            await received(Liar(digest, answers), objects, lease)
        assert "\n" not in str(failure.value)
    assert not list((tmp_path / "new").glob("*/*"))
    assert all("sha256:" + path.name == digest_of(path.read_bytes()) for path in tmp_path.glob("blobs/*/*"))


async def test_endless_object_ends_with_the_room_of_its_build(tmp_path: Path) -> None:
    objects = store(tmp_path)
    endless = Liar(digest_of(b""), lambda digest: [Object(ask=1, digest=digest, data=bytes(1 << 20))] * 1000)
    with pytest.raises(Exhausted), objects.leased(5 << 20) as lease:
        await received(endless, objects, lease)
    assert not list((tmp_path / "new").glob("*/*")) and not objects.size


async def test_failure_of_the_client_is_told_as_its_own(tmp_path: Path) -> None:
    objects = store(tmp_path)

    class Refusing(Liar):
        async def scan(self, context: str, paths: Sequence[str]) -> Scanned:
            return Scanned(ask=1, error=ErrorBody.of(NotFound("no such context", hint="Name one")))

    with pytest.raises(NotFound, match=r"no such context\. Name one"), objects.leased() as lease:
        await received(Refusing("", honest()), objects, lease)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../..", "md5:" + "0" * 32, "sha256:" + "A" * 64])
def test_place_of_what_is_no_digest_is_refused(digest: str) -> None:
    with pytest.raises(FlotaError):
        place(digest)


def test_tree_deeper_than_may_be_is_refused(tmp_path: Path) -> None:
    objects = store(tmp_path)
    with objects.leased(LIMIT) as lease:
        tree = Tree()
        for _ in range(600):
            entry = Entry(name=b"d", kind="tree", digest=objects.put(encode(tree), lease), key=key_of(tree))
            tree = Tree(entries=(entry,))
        root = objects.put(encode(tree), lease)
        with pytest.raises(Damaged, match="deeper than 512"):
            lacking(objects, lease, root)
        assert not _whole(objects, lease, root)


def _whole(objects: Objects, lease: Lease, root: str) -> bool:
    return root in objects.whole or lease.hold_root(root)
