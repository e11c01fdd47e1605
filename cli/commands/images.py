"""Commands about images, on all hosts or with `--node` on one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import click

from cli import render
from cli.commands.copying import copy
from cli.commands.imagespace import gc, prune
from cli.commands.registries import history, push, save, untagged
from cli.context import (
    App,
    familiar,
    filter_in_seconds,
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
from model.api import ImageInfo
from model.errors import InvalidInput
from model.quantity import format_size

CHUNK = 1 << 18


def _rows(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per name of an image, the hosts that have it joined."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for item in items:
        image = item["image"]
        for name in image.get("names") or _unnamed(image):
            row = rows.setdefault((name, image["id"]), {**item, "name": familiar(name), "hosts": []})
            row["hosts"].append(item.get("host", ""))
    return list(rows.values())


def _unnamed(image: dict[str, Any]) -> list[str]:
    """One that is known by digests alone has its repositories, and no tag."""
    repositories = dict.fromkeys(pinned.partition("@")[0] for pinned in image.get("digests", ()))
    return [f"{repository}:<none>" for repository in repositories] or ["<none>:<none>"]


def _digest(row: dict[str, Any]) -> str:
    """By which its repository's registry knows it."""
    repository = row["name"].rpartition(":")[0]
    for pinned in row["image"].get("digests", ()):
        name, _, digest = pinned.partition("@")
        if familiar(name) == repository:
            return str(digest)
    return "<none>"


def _columns(whole: bool, digests: bool = False) -> list[Column]:
    at = now()
    return [
        ("REPOSITORY", lambda r: r["name"].rpartition(":")[0]),
        ("TAG", lambda r: r["name"].rpartition(":")[2]),
        *([("DIGEST", _digest)] if digests else []),
        ("IMAGE ID", lambda r: r["image"]["id"] if whole else short(r["image"]["id"])),
        ("CREATED", lambda r: render.age(r["image"].get("created", 0), at) or "N/A"),
        ("SIZE", lambda r: format_size(r["image"].get("size", 0))),
        ("NODES", lambda r: ",".join(sorted(r["hosts"]))),
    ]


@click.command()
@click.option("--quiet", "-q", is_flag=True, help="Only ids")
@click.option("--no-trunc", is_flag=True)
@click.option("--digests", is_flag=True, help="Also the digests of their manifests")
@click.option("--all", "-a", "all_", is_flag=True, help="Docker's word; no image is ever hidden")
@click.option(
    "--filter", "-f", "filters", multiple=True, help="reference= label= dangling= before= since= until="
)
@node_option
@format_option
@click.argument("reference", required=False, default="", metavar="[REPOSITORY[:TAG]]")
@pass_app
def images(
    app: App, reference: str, quiet: bool, digests: bool, filters: tuple[str, ...], **flags: Any
) -> None:
    """List images, of all hosts."""
    words = [filter_in_seconds(text) for text in filters]
    words += [f"reference={reference}"] if reference else []
    items = app.call("GET", "/v1/images", filter=words, host=flags["node"])
    columns = _columns(flags["no_trunc"], digests)
    ident = columns[3 if digests else 2] if quiet else None
    show(_rows(items), columns, of=ImageInfo, format_=flags["format_"], quiet=ident)


@click.command()
@click.option("--quiet", "-q", is_flag=True, help="Only the result")
@click.option("--all-tags", "-a", is_flag=True, help="All tags of the repository")
@click.option("--all-platforms", is_flag=True, help="The images of every platform, and their index")
@platform_option
@node_option
@click.argument("ref", metavar="IMAGE")
@pass_app
def pull(
    app: App, ref: str, quiet: bool, all_tags: bool, all_platforms: bool, platform: str, node: str
) -> None:
    """Pull an image from its registry, on every host."""
    if all_platforms and platform:
        raise InvalidInput("--all-platforms goes without --platform")
    login = app.login_for(ref)
    refs = [ref]
    if all_tags:
        untagged(ref)
        tags = app.call("GET", "/v1/registries/tags", login=login, ref=ref, host=node)
        refs = [f"{ref}:{tag}" for tag in tags]
    for one in refs:
        query = {"ref": one, "platform": platform, "all": all_platforms, "host": node}
        Display(quiet=quiet).run(app.client.lines("POST", "/v1/images/pull", login=login, **query))


@click.command()
@click.option("--input", "-i", "source", type=click.File("rb"), default="-", help="Archive; stdin without")
@click.option("--quiet", "-q", is_flag=True)
@platform_option
@node_option
@pass_app
def load(app: App, source: BinaryIO, quiet: bool, platform: str, node: str) -> None:
    """Load images of an archive (docker save, OCI layout), on every host."""
    upload = app.client.upload("/v1/images/load", _chunks(source), platform=platform, host=node)
    Display(quiet=quiet).run(upload)


@click.command("import")
@click.option(
    "--change", "-c", multiple=True, help="CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR …"
)
@click.option("--message", "-m", default="", help="For the image's history")
@platform_option
@node_option
@click.argument("source", metavar="FILE|URL|-")
@click.argument("ref", required=False, default="", metavar="[NAME:TAG]")
@pass_app
def import_(app: App, source: str, ref: str, change: tuple[str, ...], message: str, **flags: Any) -> None:
    """Make an image of a root file system tar, on every host. A URL is fetched by this machine."""
    from cli.fetched import opened

    query = {"ref": ref, "message": message, "change": list(change)}
    query |= {"platform": flags["platform"], "host": flags["node"]}
    with opened(source) as file:
        Display(quiet=True).run(app.client.upload("/v1/images/import", _chunks(file), **query))


@click.command()
@click.option("--force", "-f", is_flag=True)
@platform_option
@node_option
@click.argument("refs", nargs=-1, required=True, metavar="IMAGE…")
@pass_app
def rmi(app: App, refs: tuple[str, ...], force: bool, platform: str, node: str) -> None:
    """Remove images, on every host."""
    query: dict[str, Any] = {"force": force, "platform": platform, "host": node}
    for ref in refs:
        seen: set[str] = set()
        for removed in app.call("DELETE", f"/v1/images/{segment(ref)}", **query):
            lines = [f"Untagged: {familiar(name)}" for name in removed.get("untagged", ())]
            lines += [f"Deleted: {ident}" for ident in removed.get("deleted", ())]
            for line in lines:
                if line not in seen:
                    seen.add(line)
                    out(line)


@click.command()
@node_option
@click.argument("ref", metavar="IMAGE")
@click.argument("name", metavar="NAME:TAG")
@pass_app
def tag(app: App, ref: str, name: str, node: str) -> None:
    """Give an image one more name, on every host that has it."""
    app.call("POST", f"/v1/images/{segment(ref)}/tag", name=name, host=node)


@click.group()
def image() -> None:
    """Commands about images, in docker's long form."""


@image.command("inspect")
@platform_option
@format_option
@click.argument("refs", nargs=-1, required=True)
@pass_app
def inspect(app: App, refs: tuple[str, ...], platform: str, format_: str) -> None:
    """Show everything about images."""
    from cli.commands.inspect import find, shown

    shown([value for ref in refs for value in find(app, ref, "image", platform=platform)], format_)


for _name, _command in (
    ("ls", images),
    ("pull", pull),
    ("load", load),
    ("import", import_),
    ("rm", rmi),
    ("tag", tag),
    ("push", push),
    ("save", save),
    ("history", history),
    ("prune", prune),
    ("gc", gc),
    ("copy", copy),
):
    image.add_command(_command, _name)


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    while data := source.read(CHUNK):
        yield data
