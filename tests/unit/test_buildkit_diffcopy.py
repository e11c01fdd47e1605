"""A client's folder by fsutil's protocol, as the tar that comes of it; and the way back."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.docker.buildkit.diffcopy import AHEAD, MAX_PATH, MOST_ASKED, DiffCopy
from api.docker.buildkit.messages import DATA, ERROR, FIN, REQUEST, STAT, Packet, Stat
from api.docker.buildkit.untar import Untar
from model.errors import Damaged, InvalidInput
from tests.support.images import folder, link, member, tar

DIR, LINK, SOCKET, PIPE = 1 << 31, 1 << 27, 1 << 24, 1 << 25


class Peer:
    """A client that answers what it is asked, `order` of those asked at once."""

    def __init__(self, files: Iterable[tuple[Stat, bytes]]) -> None:
        self.files = list(files)
        self.copy = DiffCopy()
        self.out = bytearray()
        self.asked: list[int] = []
        self.most = 0

    def say(self, packet: Packet) -> None:
        for made in self.copy.take(packet):
            if isinstance(made, bytes):
                self.out += made
            elif made.type == REQUEST:
                self.asked.append(made.id)
        self.most = max(self.most, len(self.asked))

    def run(self, *, backwards: bool = False) -> tarfile.TarFile:
        for stat, _ in self.files:
            self.say(Packet(type=STAT, stat=stat))
        self.say(Packet(type=STAT))
        while self.asked:
            ident = self.asked.pop(-1 if backwards else 0)
            data = self.files[ident][1]
            for at in range(0, len(data), 32_768):
                self.say(Packet(type=DATA, id=ident, data=data[at : at + 32_768]))
            self.say(Packet(type=DATA, id=ident))
        assert self.copy.done
        return tarfile.open(fileobj=io.BytesIO(bytes(self.out)), mode="r:")


def plain(path: bytes, data: bytes, mode: int = 0o644, **more: Any) -> tuple[Stat, bytes]:
    return Stat(path=path, mode=mode, size=len(data), **more), data


@pytest.mark.parametrize("backwards", [False, True])
def test_folder_becomes_a_tar_of_the_same_files(backwards: bool) -> None:
    files = [
        plain(b"a", b"x" * 100_000, mode=0o755 | 1 << 23, modified=1_700_000_000_123_456_789),
        (Stat(path=b"d", mode=DIR | 0o700, size=4096), b""),
        plain(b"d/\xff", b"1"),
        plain(b"d/empty", b""),
        (Stat(path=b"d/hard", mode=0o755, size=100_000, link=b"a"), b""),
        (Stat(path=b"d/pipe", mode=PIPE | 0o600), b""),
        (Stat(path=b"d/socket", mode=SOCKET | 0o600), b""),
        (Stat(path=b"d/to", mode=LINK | 0o777, link=b"../a"), b""),
        (Stat(path=b"l" * 300, mode=0o644, size=1, xattrs={"security.capability": b"\1\xff"}), b"!"),
    ]
    found = Peer(files).run(backwards=backwards)
    names = [one.name for one in found.getmembers()]
    assert names == ["a", "d", "d/\udcff", "d/empty", "d/hard", "d/pipe", "d/to", "l" * 300]
    first, last = found.getmember("a"), found.getmember("l" * 300)
    assert first.mode == 0o4755 and first.pax_headers["mtime"] == "1700000000.123456789"
    content = found.extractfile(first)
    assert content is not None and content.read() == b"x" * 100_000
    assert found.getmember("d/hard").type == tarfile.LNKTYPE and found.getmember("d/to").linkname == "../a"
    assert (
        last.pax_headers["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape") == b"\1\xff"
    )


def test_files_are_asked_for_ahead_only_as_far_as_memory_is_bounded() -> None:
    many = Peer([plain(b"%04d" % n, b"x") for n in range(500)])
    assert len(many.run().getmembers()) == 500 and many.most <= MOST_ASKED
    big = Peer([plain(b"%d" % n, b"x" * (AHEAD // 2 + 1)) for n in range(4)])
    assert len(big.run().getmembers()) == 4 and big.most == 1


@given(st.lists(st.integers(0, 3000), max_size=30), st.booleans())
def test_contents_of_any_sizes_come_out_whole(sizes: list[int], backwards: bool) -> None:
    files = [plain(b"%03d" % n, bytes([n]) * size) for n, size in enumerate(sizes)]
    found = Peer(files).run(backwards=backwards)
    for stat, data in files:
        content = found.extractfile(stat.path.decode())
        assert content is not None and content.read() == data


STATS = (Packet(stat=Stat(path=b"a", size=3)), Packet())


@pytest.mark.parametrize(
    ("packets", "words"),
    [
        ((*STATS, Packet(type=DATA, id=0, data=b"1234")), "changed while"),
        ((*STATS, Packet(type=DATA, id=0, data=b"12"), Packet(type=DATA, id=0)), "changed while"),
        ((*STATS, Packet(type=DATA, id=1, data=b"1")), "not asked for"),
        ((*STATS, Packet(stat=Stat(path=b"b"))), "after the last"),
        ((*STATS, Packet(type=FIN)), "out of turn"),
        ((*STATS, Packet(type=REQUEST)), "out of turn"),
        ((*STATS, Packet(type=99)), "out of turn"),
        ((Packet(type=ERROR, data=b"open x:\npermission denied"),), "open x: permission denied"),
        ((Packet(stat=Stat()),), "no possible name"),
        ((Packet(stat=Stat(path=b"a", size=-5)),), "no possible name"),
        ((Packet(stat=Stat(path=b"a" * (MAX_PATH + 1))),), "no possible name"),
        ((Packet(stat=Stat(path=b"a\0b")),), "no possible name"),
        ((Packet(stat=Stat(path=b"a", mode=LINK, link=b"\0")),), "no possible name"),
    ],
)
def test_client_that_breaks_the_protocol_is_refused(packets: tuple[Packet, ...], words: str) -> None:
    copy = DiffCopy()
    with pytest.raises((Damaged, InvalidInput), match=words):
        for packet in packets:
            list(copy.take(packet))


@pytest.mark.parametrize("piece", [1, 511, 1000, 1 << 20])
def test_tar_in_pieces_of_any_size_is_taken_apart(piece: int) -> None:
    made = tar(
        folder("a", mode=0o1750), member("a/b", b"b" * 1300), link("a/to", "b"), member("n" * 200, b"!")
    )
    untar = Untar()
    found: list[Stat | bytes] = []
    for at in range(0, len(made), piece):
        found += untar.feed(made[at : at + piece])
    untar.end()
    stats = [one for one in found if isinstance(one, Stat)]
    assert [(one.path, one.size, one.link) for one in stats] == [
        (b"a", 0, b""), (b"a/b", 1300, b""), (b"a/to", 0, b"b"), (b"n" * 200, 1, b""),
    ]  # fmt: skip
    assert stats[0].mode == DIR | 1 << 20 | 0o750 and stats[2].mode & LINK
    assert b"".join(one for one in found if isinstance(one, bytes)) == b"b" * 1300 + b"!"


def pax(**fields: str) -> bytes:
    entry = tarfile.TarInfo("a")
    entry.pax_headers = fields
    return entry.tobuf(tarfile.PAX_FORMAT)


@pytest.mark.parametrize(
    "data",
    [
        b"no tar" * 100,
        tar(member("a", b"1"))[:700],
        pax(mtime="nan"),
        pax(mtime="1e999"),
        pax(size="x"),
        pax(size="-1"),
        pax(comment="9" * 9000).replace(b"9012 comment=", b"9" * 13),
    ],
)
def test_what_is_no_whole_tar_is_told(data: bytes) -> None:
    untar = Untar()
    with pytest.raises(Damaged):
        list(untar.feed(data))
        untar.end()
