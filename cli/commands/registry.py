"""Commands about the fleet's own registry: the logins of programs that have no certificate."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from cli.context import App, each, format_option, out, pass_app, segment, short, show
from cli.render import Column
from model.api import CreateRegistryToken
from model.codec import to_plain
from model.quantity import parse_duration
from model.records import RegistryToken


@click.group()
def registry() -> None:
    """The fleet's own registry (`flota up --registry`)."""


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
