"""Commands about the fleet's own registry: what it holds and where, the logins of programs that have no
certificate."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from cli.context import App, each, format_option, out, pass_app, segment, short, show
from cli.render import Column
from model.api import CreateRegistryToken
from model.codec import to_plain
from model.quantity import format_size, parse_duration
from model.records import RegistryToken
from model.registrycopies import CopyHost, RegistryStatus, RepositoryInfo, TagInfo


@click.group()
def registry() -> None:
    """The fleet's own registry (`flota up --registry`)."""


@registry.command("ls")
@click.option("--quiet", "-q", is_flag=True, help="Only names")
@format_option
@pass_app
def repositories(app: App, quiet: bool, format_: str) -> None:
    """List repositories, and on how many other hosts all of each is."""
    columns: list[Column] = [
        ("REPOSITORY", lambda r: r["name"]),
        ("TAGS", lambda r: str(r["tags"])),
        ("MANIFESTS", lambda r: str(r["manifests"])),
        ("SIZE", lambda r: format_size(r["bytes"])),
        ("COPIES", lambda r: str(r["copies"])),
        ("LOST", lambda r: str(r.get("lost", 0))),
    ]
    items = app.call("GET", "/v1/registry/repositories")
    show(items, columns, of=RepositoryInfo, format_=format_, quiet=columns[0] if quiet else None)


@registry.command()
@format_option
@pass_app
def status(app: App, format_: str) -> None:
    """What it holds, and whether that would survive the loss of the controller's disk."""
    found = app.call("GET", "/v1/registry")
    if format_:
        show([found], [], of=RegistryStatus, format_=format_)
        return
    from msgspec import convert

    out("\n".join(told(convert(found, RegistryStatus))))
    hosts = found.get("hosts", [])
    if hosts:
        columns: list[Column] = [
            ("HOST", lambda h: h["name"]),
            ("COPY", _copy),
            ("BLOBS", lambda h: str(h["blobs"])),
            ("SIZE", lambda h: format_size(h["bytes"])),
            ("HEARD", lambda h: _moment(h["heard"])),
        ]
        show(hosts, columns, of=CopyHost)


@registry.command("tags")
@click.option("--quiet", "-q", is_flag=True, help="Only names")
@format_option
@click.argument("repository")
@pass_app
def tags(app: App, repository: str, quiet: bool, format_: str) -> None:
    """List the tags of a repository, and the manifests that they name."""
    columns: list[Column] = [
        ("TAG", lambda t: t["name"]),
        ("DIGEST", lambda t: t["digest"]),
        ("PLATFORMS", lambda t: "several" if _is_index(t["media_type"]) else "one"),
    ]
    items = app.call("GET", "/v1/registry/tags", repository=repository)
    show(items, columns, of=TagInfo, format_=format_, quiet=columns[0] if quiet else None)


@registry.command("rm")
@click.argument("refs", nargs=-1, required=True, metavar="REPOSITORY:TAG|REPOSITORY@DIGEST…")
@pass_app
def remove(app: App, refs: tuple[str, ...]) -> None:
    """Remove tags; or manifests by their digests, with the tags that name them. Their content goes by and by,
    unless something else holds it."""

    each(refs, lambda ref: app.call("DELETE", "/v1/registry/manifests", ref=ref))


def _is_index(media_type: str) -> bool:
    return media_type.endswith(("image.index.v1+json", "manifest.list.v2+json"))


def told(status: RegistryStatus) -> list[str]:
    """Of a registry, in words."""
    if not status.address:
        return ["The fleet serves no registry: flota controller --registry PORT"]
    size = format_size(status.bytes)
    lines = [f"Registry: {status.address}"]
    lines.append(f"Content: {status.repositories} repositories, {status.blobs} blobs, {size}")
    if status.lost:
        lines.append(
            f"Lost: {status.lost} blobs, until a host that has them is back or they are pushed again"
        )
    if not status.wanted:
        lines.append("Copies: none are wanted (--registry-replicas 0)")
    elif status.whole >= status.wanted:
        lines.append(f"Copies: {status.whole} of {status.wanted} hosts have all of it")
    else:
        lines.append(f"Copies: only {status.whole} of {status.wanted} hosts have all of it by now")
    return lines


def _copy(host: dict[str, Any]) -> str:
    if host["complete"]:
        return "whole"
    if host.get("full"):
        return "no room"
    return "growing" if host["chosen"] else "going"


@registry.group()
def token() -> None:
    """Its logins, for docker, podman, skopeo and other programs."""


@token.command("create")
@click.option("--scope", type=click.Choice(["pull", "push", "delete"]), default="pull", show_default=True)
@click.option("--prefix", default="", help="The repository, and those below it, that it is for; all without")
@click.option("--ttl", default="0", help="How long it is good, such as 30d; 0: until it is removed")
@click.option("--quiet", "-q", is_flag=True, help="Only the password")
@click.argument("name")
@pass_app
def create(app: App, name: str, scope: str, prefix: str, ttl: str, quiet: bool) -> None:
    """Make a login; its password is shown once. `push` includes `pull`, `delete` both."""
    request = CreateRegistryToken(name=name, scope=scope, prefix=prefix, ttl=parse_duration(ttl))  # type: ignore[arg-type]
    made = app.call("POST", "/v1/registry/tokens", body=to_plain(request))
    if quiet:
        out(made["secret"])
        return
    out(f"Password: {made['secret']}")
    if made.get("registry"):
        out(f"docker login -u {name} {made['registry']}")
    else:
        out("The fleet serves no registry yet: flota controller --registry PORT")


@token.command("ls")
@click.option("--quiet", "-q", is_flag=True, help="Only names")
@format_option
@pass_app
def ls(app: App, quiet: bool, format_: str) -> None:
    """List logins."""
    columns: list[Column] = [
        ("NAME", lambda t: t["name"]),
        ("ID", lambda t: short(t["id"])),
        ("SCOPE", lambda t: t.get("scope", "pull")),
        ("PREFIX", lambda t: t.get("prefix", "")),
        ("EXPIRES", lambda t: _moment(t.get("expires_at", 0))),
    ]
    items = app.call("GET", "/v1/registry/tokens")
    show(items, columns, of=RegistryToken, format_=format_, quiet=columns[0] if quiet else None)


@token.command("rm")
@click.argument("refs", nargs=-1, required=True, metavar="NAME…")
@pass_app
def rm(app: App, refs: tuple[str, ...]) -> None:
    """Remove logins; they are refused from then on."""
    each(refs, lambda ref: app.call("DELETE", f"/v1/registry/tokens/{segment(ref)}"))


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") if at else "never"
