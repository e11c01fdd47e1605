"""The tar reader on honest archives, compared with the standard library's writer, and on hostile bytes."""

from __future__ import annotations

import contextlib
import io
import tarfile

import pytest

from image.tarstream import Member, TarReader
from model.errors import FlotaError
from tests.support.images import folder, link, member, tar

END = bytes(1024)


def read(data: bytes, *, step: int = 1 << 30) -> list[tuple[Member, bytes]]:
    source = io.BytesIO(data)
    reader = TarReader(lambda count: source.read(min(count, step)))
    return [(m, b"".join(reader.content())) for m in reader]


def header(
    name: bytes = b"file",
    *,
    size: bytes = b"0000000000\0 ",
    kind: bytes = b"0",
    mtime: bytes = b"00000000000\0",
    uid: bytes = b"0000000\0",
    extra: bytes = b"",
) -> bytes:
    """One header block with a right checksum; `extra` starts at byte 257."""
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:116] = uid
    block[116:124] = b"0000000\0"
    block[124:136] = size.ljust(12, b"\0")
    block[136:148] = mtime
    block[156:157] = kind
    extra = extra or b"ustar\x0000"
    block[257 : 257 + len(extra)] = extra
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    body = b"".join(record(text) for text in records)
    return header(b"pax", kind=kind, size=b"%011o\0" % len(body)) + body + bytes(-len(body) % 512)


def record(text: bytes) -> bytes:
    length = len(text) + 3
    while len(b"%d %s\n" % (length, text)) != length:
        length += 1
    return b"%d %s\n" % (length, text)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("step", [1 << 30, 700, 1])
def test_honest_archive_is_read_as_it_was_written(form: int, step: int) -> None:
    deep = "/".join(["directory"] * 15) + "/file"
    data = tar(
        folder("d", mode=0o1777),
        member("d/file", b"x" * 1500, mode=0o4755, uid=1000, gid=100, mtime=1_600_000_000),
        member(deep, b"deep"),
        link("d/link", "file"),
        link("d/twin", "d/file", hard=True),
        member("d/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("d/pipe", type=tarfile.FIFOTYPE),
        member("empty"),
        format=form,
    )
    found = read(data, step=step)
    assert [(m.name.decode().rstrip("/"), m.kind) for m, _ in found] == [
        ("d", "dir"), ("d/file", "file"), (deep, "file"), ("d/link", "symlink"), ("d/twin", "hardlink"),
        ("d/null", "char"), ("d/pipe", "fifo"), ("empty", "file"),
    ]  # fmt: skip
    file, content = found[1]
    assert content == b"x" * 1500
    assert (file.mode, file.uid, file.gid, file.mtime_ns) == (0o4755, 1000, 100, 1_600_000_000 * 10**9)
    assert found[0][0].mode == 0o1777
    assert found[3][0].link == b"file"
    assert found[5][0].device == (1, 3)


def test_gnu_long_names_and_links_are_joined() -> None:
    data = tar(link("n" * 300, "t" * 300), format=tarfile.GNU_FORMAT)
    [(found, _)] = read(data)
    assert (found.name, found.link) == (b"n" * 300, b"t" * 300)


def test_pax_overrides_name_owner_time_and_brings_attributes() -> None:
    entry = member("short", b"x", mtime=1.25, uid=10**7 + 1)
    entry[0].pax_headers = {"SCHILY.xattr.user.note": "hé", "path": "näme"}
    [(found, _)] = read(tar(entry))
    assert found.name == "näme".encode()
    assert (found.mtime_ns, found.uid) == (1_250_000_000, 10**7 + 1)
    assert found.xattrs == {"user.note": "hé".encode()}


def test_base_256_numbers_are_read() -> None:
    big = b"\x80" + (5).to_bytes(11, "big")
    [(found, content)] = read(header(size=big) + b"hello" + bytes(507) + END)
    assert (found.size, content) == (5, b"hello")
    before = b"\xff" + (256**11 - 10).to_bytes(11, "big")
    [(found, _)] = read(header(mtime=before) + END)
    assert found.mtime_ns == -10 * 10**9


def test_last_of_two_pax_records_stands() -> None:
    [(found, _)] = read(pax(b"path=one", b"path=two") + header() + END)
    assert found.name == b"two"


def test_pax_record_without_a_value_is_as_if_never_given() -> None:
    """Else our readers and Go's would see two names of one member."""
    records = (b"path=", b"linkpath=x", b"linkpath=", b"size=", b"SCHILY.xattr.user.x=")
    [(found, content)] = read(pax(*records) + header(size=b"00000000005\0") + b"hello" + bytes(507) + END)
    assert (found.name, found.link, found.xattrs, content) == (b"file", b"", {}, b"hello")


def test_global_pax_header_changes_nothing() -> None:
    [(found, _)] = read(pax(b"path=evil", b"uid=7", kind=b"g") + header() + END)
    assert (found.name, found.uid) == (b"file", 0)


def test_owner_is_the_number_whatever_the_names_are() -> None:
    """B54: names would mean another owner on each host."""
    names = b"ustar\x0000" + b"root".ljust(32, b"\0") + b"shadow".ljust(32, b"\0")
    [(found, _)] = read(pax(b"uname=root", b"gname=wheel") + header(uid=b"0001750\0", extra=names) + END)
    assert (found.uid, found.gid) == (1000, 0)


def test_old_style_folder_is_told_by_its_slash() -> None:
    [(found, _)] = read(header(b"dir/", kind=b"\0") + END)
    assert found.kind == "dir"
    [(found, content)] = read(header(b"file/", size=b"00000000001\0") + b"x" + bytes(511) + END)
    assert (found.kind, content) == ("file", b"x")


@pytest.mark.parametrize("end", [b"", END, bytes(512), END + b"trailing", END + header(b"../second") + END])
def test_end_is_zero_blocks_or_the_streams_end(end: bytes) -> None:
    assert len(read(header() + end)) == 1


@pytest.mark.parametrize("padding", [0, 100])
def test_stream_may_end_within_the_padding_of_its_last_member(padding: int) -> None:
    data = header(size=b"00000000005\0") + b"hello" + bytes(padding)
    assert [content for _, content in read(data)] == [b"hello"]
    with pytest.raises(FlotaError):
        read(header(size=b"00000000005\0") + b"hell")


def test_empty_stream_is_an_empty_archive() -> None:
    assert read(b"") == []


GNU_SPARSE = b"ustar  \0".ljust(386 - 257, b"\0")


def sparse_header(pairs: list[tuple[int, int]], real: int, stored: int, more: bool = False) -> bytes:
    fields = b"".join(b"%011o\0%011o\0" % pair for pair in pairs).ljust(96, b"\0")
    extra = GNU_SPARSE + fields + bytes([more]) + b"%011o\0" % real
    return header(b"sparse", kind=b"S", size=b"%011o\0" % stored, extra=extra)


@pytest.mark.parametrize(
    "data",
    [
        sparse_header([(1000, 3), (5000, 2)], 9000, 5),
        sparse_header([(1000, 3)], 9000, 5, more=True) + b"%011o\0%011o\0".ljust(1) % (5000, 2) + bytes(488),
        pax(b"GNU.sparse.size=9000", b"GNU.sparse.offset=1000", b"GNU.sparse.numbytes=3",
            b"GNU.sparse.offset=5000", b"GNU.sparse.numbytes=2") + header(b"sparse", size=b"00000000005\0"),
        pax(b"GNU.sparse.size=9000", b"GNU.sparse.map=1000,3,5000,2", b"GNU.sparse.name=sparse")
        + header(b"other", size=b"00000000005\0"),
        pax(b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.realsize=9000",
            b"GNU.sparse.name=sparse") + header(b"other", size=b"%011o\0" % 517)
        + b"2\n1000\n3\n5000\n2\n".ljust(512, b"\0"),
    ],
    ids=["gnu", "gnu-extended", "pax-0.0", "pax-0.1", "pax-1.0"],
)  # fmt: skip
def test_sparse_file_gives_its_map_and_its_bytes(data: bytes) -> None:
    [(found, content)] = read(data + b"abcde" + bytes(507) + END)
    assert (found.name, found.size, found.regions) == (b"sparse", 9000, ((1000, 3), (5000, 2)))
    assert content == b"abcde"


def sparse_1_0(text: bytes, size: int = 9000) -> bytes:
    records = (b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.realsize=%d" % size)
    blocks = text.ljust(-(-len(text) // 512) * 512, b"\0")
    return pax(*records) + header(size=b"%011o\0" % len(blocks)) + blocks + END


HOSTILE: dict[str, bytes] = {
    "negative size": header(size=b"\xff" * 12),
    "size past 2^62": header(size=b"\x80" + b"\x7f" * 11),
    "size with a nine": header(size=b"00000000009\0"),
    "size with a space inside": header(size=b"0000 000001\0"),
    "size beyond the stream": header(size=b"77777777777\0"),
    "wrong checksum": header()[:-1] + b"x",
    "cut in a header": header()[:300],
    "cut in content": header(size=b"00000001000\0") + b"x" * 100,
    "lone zero block": bytes(512) + header(),
    "unknown type": header(kind=b"Z"),
    "volume header": header(kind=b"V"),
    "fifo with content": header(kind=b"6", size=b"00000000005\0") + bytes(512),
    "long name of 2 MiB": header(kind=b"L", size=b"00010000000\0") + bytes(1 << 21),
    "pax header of 10 MiB": header(kind=b"x", size=b"00050000000\0") + bytes(10 << 20),
    "name longer than a path": header(kind=b"L", size=b"00000020000\0") + b"n" * 8192 + header(),
    "pax name with NUL": pax(b"path=a\0b") + header(),
    "pax length off by one": header(kind=b"x", size=b"00000000012\0") + b"11 path=ab\n".ljust(512, b"\0"),
    "pax length zero": header(kind=b"x", size=b"00000000012\0") + b"0 path=ab\n".ljust(512, b"\0"),
    "pax length huge": header(kind=b"x", size=b"00000000012\0") + b"999999 a=b\n".ljust(512, b"\0"),
    "pax without key": pax(b"=value") + header(),
    "pax without equals": pax(b"path") + header(),
    "pax size negative": pax(b"size=-1") + header(),
    "pax size huge": pax(b"size=99999999999999999999") + header(),
    "pax uid of letters": pax(b"uid=root") + header(),
    "pax mtime of letters": pax(b"mtime=now") + header(),
    "pax mtime infinite": pax(b"mtime=" + b"9" * 40) + header(),
    "extended header at the end": pax(b"path=x") + END,
    "sparse overlap": sparse_header([(10, 5), (12, 5)], 100, 10) + bytes(512),
    "sparse descending": sparse_header([(50, 5), (10, 5)], 100, 10) + bytes(512),
    "sparse past the end": sparse_header([(99, 5)], 100, 5) + bytes(512),
    "sparse unlike its content": sparse_header([(10, 5)], 100, 6) + bytes(512),
    "sparse 8 EiB": pax(b"GNU.sparse.size=9223372036854775807", b"GNU.sparse.map=0,0") + header(),
    "sparse without size": pax(b"GNU.sparse.map=0,0,1,1") + header(),
    "sparse odd map": pax(b"GNU.sparse.size=9", b"GNU.sparse.map=1,2,3") + header(),
    "sparse pairs out of order": pax(b"GNU.sparse.numbytes=1", b"GNU.sparse.offset=1") + header(),
    "sparse version 2": pax(b"GNU.sparse.major=2", b"GNU.sparse.minor=0") + header(),
    "sparse 1e9 entries": sparse_1_0(b"1000000000\n"),
    "sparse map without end": sparse_1_0(b"5\n" + b"1" * 2000),
    "sparse map cut": sparse_1_0(b"50\n1\n"),
    "endless sparse extension": sparse_header([(1, 1)], 10, 1, more=True)
    + (b"%011o\0%011o\0" % (1, 0) * 21 + b"\1" + bytes(7)) * 5000,
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_archive_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(FlotaError) as caught:
        read(data)
    assert "\n" not in str(caught.value)
    assert caught.value.code in ("damaged", "unsupported")


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_endless_extended_headers_take_bounded_memory(kind: bytes) -> None:
    one = header(kind=kind, size=b"00000000014\0") + b"12 path=abc\n".ljust(512, b"\0")
    left = 5000

    def stream(count: int) -> bytes:
        nonlocal left
        left -= 1
        return one if left > 0 else b""

    with pytest.raises(FlotaError) if kind != b"g" else contextlib.nullcontext():
        for _ in TarReader(stream):
            raise AssertionError("there is no member")


@pytest.mark.parametrize("position", range(0, 512, 7))
def test_any_flipped_byte_of_a_header_is_noticed(position: int) -> None:
    damaged = bytearray(header() + END)
    damaged[position] ^= 0x41
    with pytest.raises(FlotaError):
        read(bytes(damaged))


def test_content_that_is_not_taken_is_skipped() -> None:
    source = io.BytesIO(tar(member("a", b"x" * 100_000), member("b", b"y")))
    reader = TarReader(source.read)
    assert [m.name for m in reader] == [b"a", b"b"]
