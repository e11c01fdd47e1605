"""A build from the command line's words to its outputs.

Invariant: files that say how it went are written last, and only of a build that is done.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from cli import logins
from cli.build.agents import Agents, Answering
from cli.build.answers import Answers, secret_value
from cli.build.contexts import Material, material
from cli.build.conversation import Conversation, waker
from cli.build.described import Call, call, told
from cli.build.display import Display, display, write
from cli.build.outputs import Outputs
from cli.build.request import Wish, usual_place, wish
from cli.build.words import Destination
from cli.context import App
from cli.progress import Display as Copies
from cli.render import clean
from image.dockerfile.excerpt import excerpt
from image.dockerfile.faults import DockerfileFault
from image.reference import parse as reference
from model.build import Done, Failed, Output
from model.errors import CommandFailed, Damaged, FlotaError, InvalidInput
from model.registries import Login


def build(app: App, context: str, flags: dict[str, Any]) -> int:
    """Raises FlotaError as the build does."""
    flags["label_file"] = [file.read() for file in flags["label_file"]]
    asked = call(flags.pop("call", "build"))
    flags["check"] = flags["check"] or asked.what == "check"
    wished = wish(flags, context, os.environ)
    if asked.offered:
        return _offer(asked, material(wished))
    _check_files(wished)
    made = _with_logins(wished, material(wished))
    outputs = Outputs((*wished.outputs, *_caches(wished)), lambda text: write(f"flota: {clean(text)}\n"))
    outputs.check()
    shown = display(wished.progress)
    ended = _converse(app, wished, made, shown, outputs)
    if isinstance(ended, Failed):
        _explain(ended, made, shown)
        raise _error(ended)
    if shown.progress.place is not None and not wished.host and flags["copy"]:
        _spread(app, wished, ended)
    _results(wished, ended)
    return 0


def _offer(asked: Call, made: Material) -> int:
    """What the Dockerfile offers. Nothing is sent."""
    try:
        sys.stdout.write(told(asked, made.text, made.request))
    except DockerfileFault as fault:
        write(f"------\n{excerpt(made.text, fault.spot)}\n------\n")
        raise
    return 0


def _spread(app: App, wished: Wish, done: Done) -> None:
    """As every image that comes into a fleet: what runs on any host finds it there. Of names that nobody
    asked for the fleet keeps what it has. Raises what the last host that could not get it said."""
    kinds = {one.output.kind for one in wished.outputs}
    if kinds != {"image"}:
        return
    show = Copies(quiet=wished.progress != "tty" and not sys.stderr.isatty(), result=False)
    asked = {reference(name).name for name in wished.request.names}
    for name in (name for name in done.names if reference(name).name in asked):
        show.run(app.client.lines("POST", "/v1/images/copy", ref=name, host=done.host))


def _converse(app: App, wished: Wish, made: Material, shown: Display, outputs: Outputs) -> Done | Failed:
    platform = made.request.platforms[0] if len(made.request.platforms) == 1 else ""
    query = {"host": wished.host, "context": usual_place(wished, os.getcwd()), "platform": platform}
    sock = app.client.hijack("/v1/builds", protocol="flota-build", **query)
    talk = Conversation(sock, shown, outputs)
    with contextlib.closing(sock), waker() as (wake, fd):
        answers = Answers(made.sources, wished.secrets, fd)
        agents = Agents(
            {ident: paths[0] for ident, paths in wished.agents.items() if _is_agent(paths)},
            talk.selector,
            _keys(wished),
        )
        return talk.run(made.request, answers, wake, agents)


def _with_logins(wished: Wish, made: Material) -> Material:
    """Where Docker's file or its helper can't be used, that is said: most images need no login."""
    if not logins.kept():
        return made
    from cli.build.registries import registries

    found: dict[str, Login] = {}
    for host in registries(wished, made.request):
        try:
            if login := logins.find(host):
                found[host] = login
        except FlotaError as error:
            write(f"flota: without a login at {clean(host)}: {clean(str(error))}\n")
    return replace(made, request=replace(made.request, logins=found))


def _caches(wished: Wish) -> list[Destination]:
    """Folders that caches are written to, after the outputs."""
    local = [way for way in wished.request.cache_to if way.kind == "local"]
    return [Destination(output=Output(kind="local"), dest=way.options["dest"]) for way in local]


def _check_files(wished: Wish) -> None:
    """What the command line names is there and can be written, before anything is done. Raises InvalidInput
    with all that is wrong."""
    wrong: list[str] = []
    for ident, place in wished.secrets.items():
        try:
            secret_value(ident, place)
        except FlotaError as error:
            wrong.append(str(error))
    try:
        _keys(wished)
    except FlotaError as error:
        wrong.append(str(error))
    for flag, path in (("--iidfile", wished.iidfile), ("--metadata-file", wished.metadata_file)):
        folder = os.path.dirname(path) or "."
        if path and not os.path.isdir(folder):
            wrong.append(f"{flag} {path}: {folder} is no folder")
    if wrong:
        raise InvalidInput("; ".join(wrong))


def _keys(wished: Wish) -> dict[str, Callable[[], Answering]]:
    """Agents that are keys in files. Raises InvalidInput, NotFound."""
    given = {ident: paths for ident, paths in wished.agents.items() if not _is_agent(paths)}
    if not given:
        return {}
    from deploy.sshkeys import KeyAgent, read_keys  # asyncssh takes its time, and few builds need it

    found: dict[str, Callable[[], Answering]] = {}
    for ident, paths in given.items():
        try:
            found[ident] = partial(KeyAgent, read_keys(paths))
        except FlotaError as error:
            raise type(error)(f"--ssh {ident}: {error.message}", hint=error.hint) from error
    return found


def _is_agent(paths: Sequence[str]) -> bool:
    return len(paths) == 1 and _is_socket(paths[0])


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _explain(failed: Failed, made: Material, shown: Display) -> None:
    """Before the error itself: the last lines of what failed, and its place in the Dockerfile."""
    parts: list[str] = []
    step = shown.progress.failed()
    if step is not None and step.tail:
        parts.append("------\n" + f" > {step.name}:\n" + "".join(f"{line}\n" for line in step.tail))
    if failed.line and made.text:
        from image.dockerfile.excerpt import excerpt
        from image.dockerfile.instruction import Spot

        seen = excerpt(made.text, Spot(line=failed.line, column=failed.column or 1))
        parts.append(f"------\n{made.request.file}:{failed.line}\n{seen}\n")
    if parts:
        write("".join(parts) + "------\n")


def _error(failed: Failed) -> FlotaError:
    error = failed.error.to_error()
    return error if error.message else CommandFailed("the build failed")


def _results(wished: Wish, done: Done) -> None:
    image = next((built.image for built in done.images if built.image), "")
    digest = done.digest or image
    if wished.iidfile:
        _write_file(wished.iidfile, (image if len(done.images) < 2 else digest).encode())
    if wished.metadata_file:
        words = _metadata(done)
        _write_file(wished.metadata_file, (json.dumps(words, indent=2) + "\n").encode())
    piped = any(one.dest == "-" for one in wished.outputs)  # then it is the output's alone
    if wished.progress == "quiet" and digest and not piped:
        sys.stdout.write(f"{clean(image or digest)}\n")


def _metadata(done: Done) -> dict[str, Any]:
    try:
        return {key: json.loads(value) for key, value in done.metadata.items()}
    except (ValueError, RecursionError) as error:
        raise Damaged("the host tells of the image's metadata what is no JSON") from error


def _write_file(path: str, data: bytes) -> None:
    part = f"{path}.{os.getpid()}"
    try:
        with open(part, "wb") as file:
            file.write(data)
        os.replace(part, path)
    except OSError as error:
        raise InvalidInput(f"{path} can't be written: {error.strerror}") from error
