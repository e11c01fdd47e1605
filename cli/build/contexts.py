"""What a build is made of, as far as the client has it: the Dockerfile, folders and tars that are contexts.

Invariant: whatever is missing or can't be read is told before anything is sent; of standard input no more
than `MAX_DOCKERFILE` bytes are taken for a Dockerfile.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from io import BufferedReader
from typing import BinaryIO, cast

from msgspec.structs import replace

from cli.build.request import Wish, context_of
from image.context.layouts import layout_of
from image.context.scan import Scanner
from image.context.serve import FolderSource, Source
from image.dockerfile.ignore import Ignore
from model.build import BuildRequest, Context, cache_context
from model.errors import InvalidInput, NotFound
from model.spec import Struct

MAX_DOCKERFILE = 1 << 20
NAMES = ("Dockerfile", "dockerfile")
IGNORE = ".dockerignore"


class Material(Struct):
    """`request` is whole; `sources` are what the client sends of, by name of context."""

    request: BuildRequest
    sources: Mapping[str, Source]
    text: bytes = b""
    """The Dockerfile, for excerpts; empty where only the host has it."""


def material(wish: Wish, stdin: BufferedReader | None = None) -> Material:
    """Raises NotFound, InvalidInput."""
    stdin = stdin or cast(BufferedReader, sys.stdin.buffer)
    main = wish.contexts[""]
    text, file = b"", wish.file
    contexts: list[Context] = [context_of("", main)]
    sources: dict[str, Source] = {}
    if main.place == "stdin":
        text, file, piped = _piped(stdin, wish.file)
        contexts = [Context(kind="local" if piped else "none")]
        sources |= {"": piped} if piped else {}
    elif main.place == "path":
        text, file, sources[""] = _local(main.ref, wish.file, stdin)
    elif wish.file == "-":
        text = _whole(stdin, "the Dockerfile on standard input")
    for name, where in wish.contexts.items():
        if name:
            contexts.append(context_of(name, where))
            if where.place == "path":
                sources[name] = folder(where.ref, _ignored(os.path.join(where.ref, IGNORE)))
            elif where.place == "layout":
                sources[name] = _layout(where.ref)
    for number, way in enumerate(wish.request.cache_from):
        if way.kind == "local":
            sources[cache_context(number)] = folder(way.options["src"], None)
    request = replace(wish.request, dockerfile=text, file=file or NAMES[0], contexts=tuple(contexts))
    return Material(request=request, sources=sources, text=text)


def _local(path: str, file: str, stdin: BinaryIO) -> tuple[bytes, str, Source]:
    """The Dockerfile, what it is called, and its context: a folder."""
    if not os.path.exists(path):
        raise NotFound(f"the build context {path} is not there")
    if not os.path.isdir(path):
        try:
            return _archive(open(path, "rb"), "" if file == "-" else file)
        except OSError as error:
            raise InvalidInput(f"the build context {path} can't be read: {error.strerror}") from error
    if file == "-":
        text = _whole(stdin, "the Dockerfile on standard input")
        return text, NAMES[0], folder(path, _ignored(os.path.join(path, IGNORE)))
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


def _layout(ref: str) -> Source:
    """An OCI layout, nothing of it ignored."""
    top = layout_of(ref).folder
    if not os.path.isfile(os.path.join(top, "index.json")):
        raise NotFound(
            f"{top} is no OCI layout: there is no index.json in it",
            hint="An archive of one is unpacked first: tar -xf FILE -C FOLDER",
        )
    return folder(top, None)


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


def _archive(file: BufferedReader, name: str) -> tuple[bytes, str, Source]:
    """A tar's Dockerfile, what it is called, and the tar as a context."""
    import tempfile

    from image.context.sinks import TarSource

    source = TarSource(file, tempfile.TemporaryFile())  # noqa: SIM115 - until the end
    text = source.file(name or NAMES[0], MAX_DOCKERFILE)
    return text, name or NAMES[0], source


def _piped(stdin: BufferedReader, name: str) -> tuple[bytes, str, Source | None]:
    """A tar, or a Dockerfile without a context."""
    from image.context.tarcontext import begun, kind_of_stream

    head, stdin = begun(stdin)
    kind = kind_of_stream(head)
    if kind == "empty":
        raise InvalidInput("standard input is empty", hint="Write for example `flota build - < Dockerfile`")
    if kind == "tar":
        return _archive(stdin, name)
    if name:
        raise InvalidInput(
            "standard input is a Dockerfile itself, and --file names another", hint="Leave out one of them"
        )
    return _whole(stdin, "the Dockerfile on standard input"), NAMES[0], None
