"""A local archive that ADD unpacks: known by its content, and taken apart by a process that can name nothing
but the directory it unpacks to.

As Docker: gzip, bzip2, xz, zstd or plain tar, whatever it is called; what looks like none is a file like any
other. Owners are those of the archive. Invariant: what an archive names, and links in the directory, lead
nowhere out of it.
"""

from __future__ import annotations

import os
import zlib
from typing import BinaryIO

import msgspec

from image.build.chown import Owner
from image.compression import decompressed, kind_of
from image.confine import die_with_parent, into_root
from image.extract import Extractor
from image.tarfields import number
from image.tarstream import BLOCK, TarReader
from model.errors import Damaged, ErrorBody, FlotaError, Internal
from model.spec import Struct

_PIECE = 1 << 14


class Limits(Struct):
    max_bytes: int = 1 << 38
    max_files: int = 4_000_000


def is_archive(fd: int) -> bool:
    """Whether an open file begins as a tar does, once it is decompressed."""
    with open(os.dup(fd), "rb") as file:
        file.seek(0)
        try:
            block = _first(file)
            return block.strip(b"\0") != b"" and number(block[148:156], "checksum", 0) == _sum(block)
        except Damaged:
            return False


def _first(file: BinaryIO) -> bytes:
    if kind_of(file.read(6)) == "gzip":
        file.seek(0)
        return _first_of_gzip(file)
    file.seek(0)
    read, block = decompressed(file), b""
    while len(block) < BLOCK:
        piece = read(BLOCK - len(block))
        if not piece:
            return b""
        block += piece
    return block


def _first_of_gzip(file: BinaryIO) -> bytes:
    """Also of one that is cut short soon after, which is an archive, and a damaged one."""
    inflater, block = zlib.decompressobj(31), b""
    while len(block) < BLOCK and not inflater.eof:
        piece = inflater.unconsumed_tail or file.read(_PIECE)
        if not piece:
            return b""
        try:
            block += inflater.decompress(piece, BLOCK - len(block))
        except zlib.error as error:
            raise Damaged(f"gzip stream: {error}") from error
    return block if len(block) == BLOCK else b""


def _sum(block: bytes) -> int:
    return sum(block) - sum(block[148:156]) + 8 * 32


def unpack(fd: int, folder: int, name: str, owner: Owner | None, limits: Limits) -> int:
    """An open archive into an open directory, in a child. Gives the number of members. Raises Damaged,
    Exhausted, Unsupported."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(fd, folder, owner, limits, writing)
    os.close(writing)
    try:
        with open(reading, "rb") as file:
            said = file.read()
    finally:
        os.waitpid(child, 0)
    if not said:
        raise Damaged(f"{name}: its unpacking was killed")
    done = msgspec.json.decode(said, type=_Done)
    if done.error is not None:
        error = done.error.to_error()
        error.message = f"{name}: {error.message.removeprefix('layer: ')}".replace("the layer", "the archive")
        raise error
    return done.files


class _Done(Struct):
    files: int = 0
    error: ErrorBody | None = None


def _child(fd: int, folder: int, owner: Owner | None, limits: Limits, writing: int) -> None:
    done = _Done(error=ErrorBody.of(Internal("the archive's unpacking failed")))
    try:
        die_with_parent()
        with open(fd, "rb", closefd=False) as file:
            file.seek(0)
            reader = TarReader(decompressed(file))  # what it imports can't be found from inside
            into_root(folder)
            extractor = Extractor(
                whiteouts=False,
                max_bytes=limits.max_bytes,
                max_files=limits.max_files,
                owner=owner,
                into=True,
            )
            extractor.run(reader)
        done = _Done(files=extractor.files)
    except FlotaError as error:
        done = _Done(error=ErrorBody.of(error))
    except MemoryError:
        done = _Done(error=ErrorBody.of(Damaged("it needs more memory than an honest archive would")))
    except Exception as error:
        done = _Done(error=ErrorBody.of(Internal(f"{type(error).__name__}: {error}")))
    finally:
        os.write(writing, msgspec.json.encode(done))
        os._exit(0)
