"""`flota cp`, `diff`, `export` and `commit`: the files of a container, wherever it is."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

from cli.context import App, out, pass_app, segment
from cli.parse.copies import Argument, End, Plan, argument, followed, is_asserted, plan, split
from cli.progress import Display
from cli.render import clean
from model.codec import decode_json
from model.errors import ErrorBody, InvalidInput, NotFound, Unavailable
from model.quantity import format_size
from model.streams import ERROR, EXIT, STDIN, STDOUT, Unframer, pack

PIECE = 1 << 18


@click.command()
@click.option(
    "--archive", "-a", "owners", is_flag=True, help="Keep owners; without: root's there, yours here"
)
@click.option(
    "--follow-link", "-L", "follow", is_flag=True, help="Copy what a source that is a link leads to"
)
@click.option("--quiet", "-q", is_flag=True, help="Do not say what was copied")
@click.argument("source", metavar="[CONTAINER:]SOURCE|-")
@click.argument("target", metavar="[CONTAINER:]TARGET|-")
@pass_app
def cp(app: App, source: str, target: str, owners: bool, follow: bool, quiet: bool) -> None:
    """Copy files between a container and here; `-` is a tar on stdin or stdout."""
    here, there = argument(source), argument(target)
    if here.container and there.container:
        raise click.UsageError("copying between containers is not supported")
    if not here.container and not there.container:
        raise click.UsageError("must specify at least one container source")
    if here.container:
        size = _fetch(app, here, there.path, owners=owners, follow=follow)
    else:
        size = _send(app, here.path, there, owners=owners, follow=follow)
    if not quiet and target != "-":
        sys.stderr.write(f"Successfully copied {format_size(size)} to {clean(target)}\n")


# -- out of a container -----------------------------------------------------------------------------
def _fetch(app: App, source: Argument, target: str, *, owners: bool, follow: bool) -> int:
    """Bytes of the tar."""
    wanted = source.path
    label = ""
    if target != "-":
        checked_output(target)
    if follow:
        found = _stat(app, source)
        if found and found.get("link_target"):
            wanted, label = found["link_target"], followed(wanted, found["link_target"]).label
    if target == "-":
        size = 0
        for data in _pieces(app, source.container, wanted):
            sys.stdout.buffer.write(data)
            size += len(data)
        sys.stdout.buffer.flush()
        return size
    found = _stat(app, Argument(source.container, wanted))
    if found is None:
        raise NotFound(f"Could not find the file {source.path} in container {source.container}")
    is_dir = stat.S_ISDIR(found.get("mode", 0)) or wanted.endswith(("/", "/."))
    wish = plan(End(wanted, exists=True, is_dir=is_dir), _local_target(target))
    base = split(wanted)[1]
    if not wish.new and (label or base not in (".", "..", "/")):
        wish = Plan(wish.folder, base, label or base)
    from cli.tars import Stream, unpack

    stream = Stream(_pieces(app, source.container, wanted))
    unpack(stream, wish, owners=owners, skipped=_tell)
    return stream.size


def _tell(words: str) -> None:
    sys.stderr.write(f"flota: {clean(words)}\n")


def _pieces(app: App, container: str, path: str) -> Iterator[bytes]:
    return _unframed(app.client.raw("GET", f"/v1/instances/{segment(container)}/archive", path=path))


def _unframed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    unframer = Unframer()
    for data in pieces:
        for kind, payload in unframer.feed(data):
            if kind == ERROR:
                raise decode_json(payload, ErrorBody).to_error()
            if kind == STDOUT:
                yield payload


def checked_output(path: str) -> str:
    """Where it really is, links followed. Raises InvalidInput: what is written takes the place of a file, and
    would take /dev/null's."""
    folder = os.path.dirname(os.path.normpath(path)) or "."
    if not os.path.exists(folder):
        raise InvalidInput(f'invalid output path: directory "{folder}" does not exist')
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise InvalidInput(f'invalid output path: "{path}" must be a directory or a regular file')
    return os.path.realpath(path)


def _local_target(path: str) -> End:
    """A link there is followed, as it would be for a write."""
    real = os.path.realpath(path)
    if is_asserted(path) and os.path.exists(real) and not os.path.isdir(real):
        raise InvalidInput(f"{path}: not a directory")
    ending = "/" if is_asserted(path) else ""
    return End(real + ending, exists=os.path.exists(real), is_dir=os.path.isdir(real))


# -- into a container -------------------------------------------------------------------------------
def _send(app: App, source: str, target: Argument, *, owners: bool, follow: bool) -> int:
    end = _remote_target(app, target)
    if source == "-":
        if not end.is_dir:
            raise InvalidInput(f'destination "{target.container}:{target.path}" must be a directory')
        return _upload(app, target.container, end.path, iter(lambda: os.read(0, PIECE), b""))
    from cli.tars import packed

    path, label = _local_source(source, follow=follow)
    is_dir = os.path.isdir(path) and not os.path.islink(path)
    wish = plan(End(path, exists=True, is_dir=is_dir, label=label), end)
    return _upload(app, target.container, wish.folder, packed(path, label, wish, owners=owners))


def _local_source(path: str, *, follow: bool) -> tuple[str, str]:
    """(the path to read, the name of the topmost entry). Raises NotFound."""
    parent, base = split(path)
    if base == "." or base == "/":
        place, label = parent, "."
    elif follow or path.endswith("/"):
        place, label = os.path.realpath(path), os.path.basename(os.path.normpath(os.path.abspath(path)))
    else:
        place, label = os.path.join(parent, base), base
    if base == "..":
        place, label = os.path.realpath(path), os.path.basename(os.path.realpath(path))
    if not os.path.lexists(place):
        raise NotFound(f"lstat {path}: no such file or directory")
    if is_asserted(path) and not os.path.isdir(place):
        raise InvalidInput(f"lstat {path}: not a directory")
    return place, label


def _remote_target(app: App, target: Argument) -> End:
    found = _stat(app, target)
    path = target.path
    if found is not None and found.get("link_target"):
        path = found["link_target"]
        found = _stat(app, Argument(target.container, path))
    if found is None:
        return End(path, exists=False, is_dir=False)
    mode = found.get("mode", 0)
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise InvalidInput(f"destination {target.container}:{path} is neither a file nor a directory")
    return End(path, exists=True, is_dir=stat.S_ISDIR(mode))


def _stat(app: App, end: Argument) -> Any:
    """None when there is no such path in the container; raises NotFound when there is no such container."""
    place = f"/v1/instances/{segment(end.container)}"
    try:
        return app.call("GET", f"{place}/stat", path=end.path)
    except NotFound as error:
        if not error.message.startswith("Could not find the file"):
            raise
        return None


def _upload(app: App, container: str, folder: str, pieces: Iterator[bytes]) -> int:
    """Send, and stop sending when the other side says why it does not want more."""
    sock = app.client.hijack(f"/v1/instances/{segment(container)}/archive", path=folder)
    unframer, size = Unframer(), 0
    try:
        for data in pieces:
            for start in range(0, len(data), PIECE):
                sock.sendall(pack(STDIN, data[start : start + PIECE]))
            size += len(data)
            if _has_words(sock) and _over(unframer.feed(sock.recv(PIECE))):
                return size
        sock.sendall(pack(STDIN, b""))
    except (BrokenPipeError, ConnectionResetError):
        pass  # why, it has said before
    while data := sock.recv(PIECE):
        if _over(unframer.feed(data)):
            return size
    raise Unavailable(f"the copy to {container} broke off", hint="Its host may be lost; see `flota node ls`")


def _has_words(sock: Any) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def _over(frames: list[tuple[int, bytes]]) -> bool:
    for kind, payload in frames:
        if kind == ERROR:
            raise decode_json(payload, ErrorBody).to_error()
        if kind == EXIT:
            return True
    return False


# -- whole containers -------------------------------------------------------------------------------
@click.command()
@click.argument("ref", metavar="CONTAINER")
@pass_app
def diff(app: App, ref: str) -> None:
    """Show what a container's files have that its image has not: A added, C changed, D deleted."""
    for change in app.client.lines("GET", f"/v1/instances/{segment(ref)}/changes"):
        out(f"{change['kind']} {clean(change['path'])}")


@click.command()
@click.option("--output", "-o", default="", help="A file; stdout without")
@click.argument("ref", metavar="CONTAINER")
@pass_app
def export(app: App, ref: str, output: str) -> None:
    """Write a container's whole file system as a tar, without its volumes."""
    if not output and sys.stdout.isatty():
        raise InvalidInput("cowardly refusing to save to a terminal", hint="Use -o FILE, or redirect")
    if output:
        output = checked_output(output)
    pieces = _unframed(app.client.raw("GET", f"/v1/instances/{segment(ref)}/export"))
    if not output:
        for data in pieces:
            sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    aside = f"{output}.part-{os.getpid()}"
    try:
        with open(aside, "wb") as file:
            for data in pieces:
                file.write(data)
        os.replace(aside, output)
    finally:
        if os.path.exists(aside):
            os.unlink(aside)


class _Pausing(click.Command):
    """Takes `--pause=false`, as hands know it, for `--no-pause`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = {"--pause=false": "--no-pause", "-p=false": "--no-pause", "--pause=true": "--pause"}
        return super().parse_args(ctx, [words.get(arg, arg) for arg in args])


@click.command(cls=_Pausing)
@click.option("--author", "-a", default="", help='As "Ada <ada@example.org>"')
@click.option("--message", "-m", default="", help="For the image's history")
@click.option(
    "--change", "-c", multiple=True, help="CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR …"
)
@click.option("--pause/--no-pause", "-p", default=True, help="Let nothing run in it meanwhile")
@click.argument("ref", metavar="CONTAINER")
@click.argument("name", metavar="[NAME:TAG]", required=False, default="")
@pass_app
def commit(app: App, ref: str, name: str, **flags: Any) -> None:
    """Make an image of a container, on its host."""
    body = {
        "ref": name,
        "author": flags["author"],
        "message": flags["message"],
        "changes": list(flags["change"]),
        "pause": flags["pause"],
    }
    lines = app.client.lines("POST", f"/v1/instances/{segment(ref)}/commit", body=body)
    Display(quiet=True).run(lines)
