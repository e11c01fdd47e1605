"""What a build is made of, as far as the client has it: the Dockerfile, folders and tars that are contexts.

Invariant: whatever is missing or can't be read is told before anything is sent; of standard input no more
than `MAX_DOCKERFILE` bytes are taken for a Dockerfile.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import BinaryIO

from msgspec.structs import replace

from cli.build.request import Wish, context_of
from image.context.scan import Scanner
from image.context.serve import FolderSource, Source
from image.dockerfile.ignore import Ignore
from model.build import BuildRequest, Context
from model.errors import InvalidInput, NotFound, Unsupported
from model.spec import Struct

MAX_DOCKERFILE = 1 << 20
NAMES = ("Dockerfile", "dockerfile")
IGNORE = ".dockerignore"
_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
"""First bytes of gzip, bzip2, xz, zstd."""


class Material(Struct):
    """`request` is whole; `sources` are what the client sends of, by name of context."""

    request: BuildRequest
    sources: Mapping[str, Source]
    text: bytes = b""
    """The Dockerfile, for excerpts; empty where only the host has it."""


def material(wish: Wish, stdin: BinaryIO | None = None) -> Material:
    """Raises NotFound, InvalidInput."""
    stdin = stdin or sys.stdin.buffer
    main = wish.contexts[""]
    text, file = b"", wish.file
    contexts: list[Context] = [context_of("", main)]
    sources: dict[str, Source] = {}
    if main.place == "stdin":
        text = _piped(stdin)
        contexts, file = [Context(kind="none")], "-"
    elif main.place == "path":
        text, file, sources[""] = _local(main.ref, wish.file, stdin)
    elif wish.file == "-":
        text = _whole(stdin, "the Dockerfile on standard input")
    for name, where in wish.contexts.items():
        if name:
            contexts.append(context_of(name, where))
            if where.place == "path":
                sources[name] = folder(where.ref, _ignored(os.path.join(where.ref, IGNORE)))
    request = replace(wish.request, dockerfile=text, file=file or NAMES[0], contexts=tuple(contexts))
    return Material(request=request, sources=sources, text=text)


def _local(path: str, file: str, stdin: BinaryIO) -> tuple[bytes, str, Source]:
    """The Dockerfile, what it is called, and its context: a folder."""
    if not os.path.exists(path):
        raise NotFound(f"the build context {path} is not there")
    if not os.path.isdir(path):
        raise InvalidInput(
            f"the build context {path} is no folder", hint="Write `flota build - < FILE` for a tar"
        )
    if file == "-":
        text = _whole(stdin, "the Dockerfile on standard input")
        return text, "-", folder(path, _ignored(os.path.join(path, IGNORE)))
    place = file or _default(path)
    try:
        with open(place, "rb") as opened:
            text = _whole(opened, place)
    except FileNotFoundError as error:
        hint = "" if file else "Write one, or name another by --file"
        raise NotFound(f"{place}: no such file", hint=hint) from error
    except OSError as error:
        raise InvalidInput(f"{place} can't be read: {error.strerror}") from error
    own = f"{place}{IGNORE}"
    rules = _ignored(own if os.path.exists(own) else os.path.join(path, IGNORE))
    return text, file or os.path.basename(place), folder(path, rules)


def folder(path: str, rules: Ignore | None) -> Source:
    return FolderSource(Scanner(path, ignore=rules, cache=scan_cache()))


def scan_cache() -> str:
    """Where scans of folders are remembered; empty: nowhere."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "flota", "contexts") if os.path.isabs(base) else ""


def _default(path: str) -> str:
    for name in NAMES:
        if os.path.exists(os.path.join(path, name)):
            return os.path.join(path, name)
    return os.path.join(path, NAMES[0])


def _ignored(path: str) -> Ignore | None:
    try:
        with open(path, "rb") as file:
            return Ignore.parse(file.read(), file=os.path.basename(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidInput(f"{path} can't be read: {error.strerror}") from error


def _whole(file: BinaryIO, name: str) -> bytes:
    text = file.read(MAX_DOCKERFILE + 1)
    if len(text) > MAX_DOCKERFILE:
        raise InvalidInput(f"{name} has more than {MAX_DOCKERFILE} bytes; that is no Dockerfile")
    return text


def _piped(stdin: BinaryIO) -> bytes:
    """A Dockerfile without a context."""
    head = stdin.read(512)
    if head.startswith(_ARCHIVES) or head[257:262] == b"ustar":
        raise Unsupported("a tar on standard input")
    text = head + stdin.read(MAX_DOCKERFILE + 1 - len(head))
    if len(text) > MAX_DOCKERFILE:
        raise InvalidInput(f"standard input has more than {MAX_DOCKERFILE} bytes, and is no tar")
    if not text.strip():
        raise InvalidInput("standard input is empty", hint="Write for example `flota build - < Dockerfile`")
    return text
