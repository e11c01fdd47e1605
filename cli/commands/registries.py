"""Commands about registries: who we are there, what goes there, what there is; and images as archives."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from cli import render
from cli.commands.files import checked_output
from cli.context import (
    App,
    familiar,
    format_option,
    node_option,
    now,
    out,
    pass_app,
    platform_option,
    segment,
    short,
    show,
)
from cli.progress import Display
from cli.render import Column
from model.api import FoundImage
from model.errors import InvalidInput
from model.quantity import format_size
from model.registries import DEFAULT_HOST, Login, encode_header, normal_host
from model.spec import Struct


@click.command()
@click.option("--username", "-u", default="")
@click.option("--password", "-p", default="", help="Others on this machine can read it; see --password-stdin")
@click.option("--password-stdin", is_flag=True, help="The password is what comes on standard input")
@node_option
@click.argument("server", required=False, default=DEFAULT_HOST, metavar="[SERVER]")
@pass_app
def login(app: App, server: str, username: str, password: str, password_stdin: bool, node: str) -> None:
    """Log in to a registry. The login stays on this machine, in Docker's own file."""
    from cli import logins

    registry = normal_host(server)
    if password_stdin:
        if password:
            raise InvalidInput("--password and --password-stdin: only one of them")
        if not username:
            raise InvalidInput("--password-stdin needs --username")
        password = sys.stdin.read().rstrip("\r\n")
    elif password:
        sys.stderr.write("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")
    before = logins.find(registry) if not username and not password else Login()
    if before:
        sys.stderr.write(f"Authenticating with existing credentials... [{registry}]\n")
        _check(app, registry, before, node)
        out("Login Succeeded")
        return
    username = username or _asked("Username", hidden=False)
    password = password or _asked("Password", hidden=True)
    if not password:
        raise InvalidInput("the password is empty")
    known = Login(user=username, password=password)
    _check(app, registry, known, node)
    where = logins.store(registry, known)
    if where == logins.path():
        sys.stderr.write(
            f"WARNING! Your credentials are stored unencrypted in '{where}'.\n"
            "A credential helper keeps them better: credsStore or credHelpers in that file.\n"
        )
    out("Login Succeeded")


def _check(app: App, registry: str, known: Login, node: str) -> None:
    """By a host: that is who will pull."""
    header = encode_header(known, registry)
    app.call("POST", "/v1/registries/check", login=header, registry=registry, host=node)


def _asked(what: str, *, hidden: bool) -> str:
    if not sys.stdin.isatty():
        raise InvalidInput(
            f"there is no terminal to ask for the {what.lower()}", hint="Use --username and --password-stdin"
        )
    answer: str = click.prompt(what, hide_input=hidden, err=True)
    return answer


@click.command()
@click.argument("server", required=False, default=DEFAULT_HOST, metavar="[SERVER]")
def logout(server: str) -> None:
    """Forget the login of a registry."""
    from cli import logins

    registry = normal_host(server)
    if logins.erase(registry):
        out(f"Removing login credentials for {registry}")
    else:
        out(f"Not logged in to {registry}")


@click.command()
@click.option("--quiet", "-q", is_flag=True, help="Only the result")
@click.option("--all-tags", "-a", is_flag=True, help="All tags of the repository")
@click.option("--referrers", is_flag=True, help="And signatures, SBOMs and others that refer to it")
@platform_option
@node_option
@click.argument("ref", metavar="NAME[:TAG]")
@pass_app
def push(app: App, ref: str, quiet: bool, all_tags: bool, referrers: bool, **flags: Any) -> None:
    """Push an image to its registry, from one host that has it; of a whole index all platforms' images."""
    node = flags["node"]
    refs = _tags_of(app, ref, node) if all_tags else [ref]
    known = app.login_for(ref)
    for one in refs:
        query = {"ref": one, "host": node, "platform": flags["platform"], "referrers": referrers}
        Display(quiet=quiet).run(app.client.lines("POST", "/v1/images/push", login=known, **query))


def untagged(repository: str) -> None:
    """Raises InvalidInput for a name with a tag or a digest."""
    if ":" in repository.rpartition("/")[2] or "@" in repository:
        raise InvalidInput(f"{repository}: --all-tags goes without a tag")


def _tags_of(app: App, repository: str, node: str) -> list[str]:
    """Names of images here, in this repository."""
    from model.errors import NotFound

    untagged(repository)
    items = app.call("GET", "/v1/images", host=node)
    names = {name for item in items for name in item["image"].get("names", ())}
    wanted = familiar(repository)
    found = sorted(name for name in names if familiar(name).rpartition(":")[0] == wanted)
    if not found:
        raise NotFound(f"an image does not exist locally with the name: {repository}")
    return found


@click.command()
@click.option("--output", "-o", default="", metavar="FILE", help="Write to a file; standard output without")
@platform_option
@node_option
@click.argument("refs", nargs=-1, required=True, metavar="IMAGE…")
@pass_app
def save(app: App, refs: tuple[str, ...], output: str, platform: str, node: str) -> None:
    """Save images as one archive, which `flota load` and Docker read."""
    if not output and sys.stdout.isatty():
        raise InvalidInput("an archive is nothing for a terminal", hint="Use -o FILE, or redirect it")
    if output:
        output = checked_output(output)
    pieces = app.client.raw("POST", "/v1/images/save", ref=list(refs), platform=platform, host=node)
    if not output:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        return
    aside = f"{output}.{os.getpid()}.part"
    with open(aside, "xb") as file:
        try:
            for piece in pieces:
                file.write(piece)
        except BaseException:
            os.unlink(aside)
            raise
    os.rename(aside, output)


class _Step(Struct):
    """One line of `history`."""

    id: str = "<missing>"
    created: str = ""
    created_since: str = ""
    created_by: str = ""
    size: int = 0
    comment: str = ""


@click.command()
@click.option("--quiet", "-q", is_flag=True, help="Only ids")
@click.option("--no-trunc", is_flag=True)
@click.option("--human/--no-human", "-H", default=True, help="Sizes and dates for people")
@platform_option
@node_option
@format_option
@click.argument("ref", metavar="IMAGE")
@pass_app
def history(app: App, ref: str, quiet: bool, no_trunc: bool, human: bool, **flags: Any) -> None:
    """Show how an image came about, the newest step first."""
    query = {"platform": flags["platform"], "host": flags["node"]}
    record = app.call("GET", f"/v1/images/{segment(ref)}", **query)[0]["image"]
    columns: list[Column] = [
        ("IMAGE", lambda r: r["id"]),
        ("CREATED", lambda r: r["created_since"] if human else r["created"]),
        ("CREATED BY", lambda r: _cut(r["created_by"], no_trunc)),
        ("SIZE", lambda r: format_size(r["size"]) if human else str(r["size"])),
        ("COMMENT", lambda r: r["comment"]),
    ]
    rows = _steps(record, no_trunc)
    show(rows, columns, of=_Step, format_=flags["format_"], quiet=columns[0] if quiet else None)


def _steps(record: dict[str, Any], whole: bool) -> list[dict[str, Any]]:
    from model.codec import to_plain

    sizes = iter(record.get("layer_sizes", ()))
    steps = []
    for entry in record.get("history", ()):
        created = entry.get("created", "")
        size = 0 if entry.get("empty_layer") else next(sizes, 0)
        steps.append(
            _Step(
                created=created,
                created_since=_since(created),
                created_by=entry.get("created_by", ""),
                size=size,
                comment=entry.get("comment", ""),
            )
        )
    steps.reverse()
    rows: list[dict[str, Any]] = [{"id": "<missing>", "size": 0, **to_plain(step)} for step in steps]
    filled = [{**dict.fromkeys(("created", "created_since", "created_by", "comment"), ""), **r} for r in rows]
    if filled:
        filled[0]["id"] = record["id"] if whole else short(record["id"])
    return filled


def _since(created: str) -> str:
    from datetime import datetime

    try:
        at = datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return ""
    return render.age(at, now())


def _cut(text: str, whole: bool) -> str:
    """One line, as long as Docker's."""
    line = " ".join(text.split())
    return line if whole or len(line) <= 45 else f"{line[:44]}…"


@click.command()
@click.option("--limit", default=25, type=click.IntRange(1, 100), show_default=True)
@click.option("--no-trunc", is_flag=True)
@click.option("--filter", "-f", "filters", multiple=True, help="stars=N is-official=true")
@node_option
@format_option
@click.argument("term", metavar="[REGISTRY/]TERM")
@pass_app
def search(app: App, term: str, limit: int, no_trunc: bool, filters: tuple[str, ...], **flags: Any) -> None:
    """Search a registry for images: Docker Hub, or one that lists what it has."""
    query = {"term": term, "limit": limit, "filter": list(filters), "host": flags["node"]}
    found = app.call("GET", "/v1/search", login=app.login_for(term), **query)
    columns: list[Column] = [
        ("NAME", lambda r: r["name"]),
        ("DESCRIPTION", lambda r: _cut(r.get("description", ""), no_trunc)),
        ("STARS", lambda r: str(r.get("stars", 0))),
        ("OFFICIAL", lambda r: "[OK]" if r.get("official") else ""),
    ]
    show(found, columns, of=FoundImage, format_=flags["format_"])
