"""`flota policy`: which containers may speak with whom."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from cli import render
from cli.context import App, each, format_option, out, pass_app, segment, short, show, whole
from cli.parse import policies as parse
from cli.parse.container import pairs
from cli.render import Column
from model.api import PolicyInfo, PolicyQuestion, UpdatePolicy
from model.codec import decode_json, to_plain
from model.errors import CommandFailed, InvalidInput
from model.policy import PolicySpec
from model.policywords import direction_words, selector_words

DENIED = 1


@click.group()
def policy() -> None:
    """Network policies: which containers may speak with whom."""


_selects = click.option(
    "--for", "selects", multiple=True, help="all, service=, container=, network=, label=KEY[=VALUE]"
)
_ingress = click.option(
    "--ingress", multiple=True, help="deny, allow, allow=service:api,port=80/tcp; who may reach it"
)
_egress = click.option("--egress", multiple=True, help="As --ingress: whom it may reach")
_label = click.option("--label", multiple=True, help="KEY=VALUE")
_file = click.option(
    "--file", "-f", "file", type=click.File("r"), help="A whole policy in JSON, TOML or YAML; - for stdin"
)


@policy.command("create")
@_selects
@_ingress
@_egress
@_label
@_file
@click.argument("name", required=False, default="")
@pass_app
def create(app: App, name: str, file: Any, **flags: tuple[str, ...]) -> None:
    """Create a policy. What it selects is closed but for what its rules allow."""
    if file is not None:
        if any(flags.values()):
            raise InvalidInput("a file says everything: give no other options")
        spec = parse.from_file(file.name, file.read())
        if name and name != spec.name:
            raise InvalidInput(f"the file's policy is called {spec.name[:80]!r}, not {name[:80]!r}")
    else:
        spec = _changed(PolicySpec(name=name), flags)
        if missing := (*(() if name else ("a name",)), *parse.unset(spec, flags)):
            raise InvalidInput(f"a policy needs {' and '.join(missing)}", hint="flota policy create --help")
    info = app.call("POST", "/v1/policies", body=to_plain(spec))
    out(info["policy"]["id"])
    if not info.get("selected"):
        sys.stderr.write("flota: this policy selects no container at the moment\n")


@policy.command("update")
@_selects
@_ingress
@_egress
@_label
@_file
@click.argument("name")
@pass_app
def update(app: App, name: str, file: Any, **flags: tuple[str, ...]) -> None:
    """Change a policy: each option that is given replaces what it was before."""
    info = _info(app.call("GET", f"/v1/policies/{segment(name)}"))
    if file is not None:
        if any(flags.values()):
            raise InvalidInput("a file says everything: give no other options")
        spec = parse.from_file(file.name, file.read())
    else:
        spec = _changed(info.policy.spec, flags)
    request = UpdatePolicy(spec=spec, revision=info.policy.revision)
    app.call("PUT", f"/v1/policies/{segment(info.policy.id)}", body=to_plain(request))
    out(name)


def _changed(spec: PolicySpec, flags: dict[str, tuple[str, ...]]) -> PolicySpec:
    from msgspec.structs import replace

    if flags["selects"]:
        spec = replace(spec, selects=parse.selector(flags["selects"]))
    if flags["ingress"]:
        spec = replace(spec, ingress=parse.rules(flags["ingress"]))
    if flags["egress"]:
        spec = replace(spec, egress=parse.rules(flags["egress"]))
    return replace(spec, labels=pairs(flags["label"])) if flags["label"] else spec


@policy.command("ls")
@click.option("--quiet", "-q", is_flag=True, help="Only ids")
@click.option("--no-trunc", is_flag=True)
@format_option
@pass_app
def ls(app: App, quiet: bool, no_trunc: bool, format_: str) -> None:
    """List policies, whom they select, and what they allow."""
    columns: list[Column] = [
        ("POLICY ID", lambda p: short(p["policy"]["id"], no_trunc)),
        ("NAME", lambda p: p["policy"]["spec"]["name"]),
        ("FOR", lambda p: selector_words(_info(p).policy.spec.selects)),
        ("SELECTED", lambda p: str(len(p.get("selected", ())))),
        ("INGRESS", lambda p: _cut(direction_words(_info(p).policy.spec, "ingress"), no_trunc)),
        ("EGRESS", lambda p: _cut(direction_words(_info(p).policy.spec, "egress"), no_trunc)),
    ]
    show(
        app.call("GET", "/v1/policies"),
        columns,
        of=PolicyInfo,
        format_=format_,
        quiet=columns[0] if quiet else None,
    )


def _info(plain: Any) -> PolicyInfo:
    return decode_json(json.dumps(plain), PolicyInfo)


def _cut(text: str, whole_: bool, most: int = 40) -> str:
    return text if whole_ or len(text) <= most else text[: most - 1] + "…"


@policy.command("inspect")
@click.argument("refs", nargs=-1, required=True)
@pass_app
def inspect(app: App, refs: tuple[str, ...]) -> None:
    """Show everything about policies."""
    found = [app.call("GET", f"/v1/policies/{segment(ref)}") for ref in refs]
    out(json.dumps(whole(found, PolicyInfo), indent=4, ensure_ascii=False))


@policy.command("rm")
@click.argument("refs", nargs=-1, required=True)
@pass_app
def rm(app: App, refs: tuple[str, ...]) -> None:
    """Remove policies. What they alone closed is open again."""
    each(refs, lambda ref: app.call("DELETE", f"/v1/policies/{segment(ref)}"))


@policy.command("explain")
@click.option("--port", "-p", "port_", default="", help="80, 80/udp, icmp; any without")
@click.option("--format", "format_", default="", help="`json`")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@pass_app
def explain(app: App, source: str, target: str, port_: str, format_: str) -> int:
    """Tell which rule decides whether FROM may speak with TO: containers, services or addresses. The exit
    code is 1 when it may not."""
    chosen = parse.port(port_) if port_ else None
    if chosen is not None and chosen.to:
        raise InvalidInput("explain asks for one port")
    question = PolicyQuestion(source=source, target=target)
    if chosen is not None:
        question = PolicyQuestion(source=source, target=target, port=chosen.port, protocol=chosen.protocol)
    answer = app.call("GET", "/v1/explain", **to_plain(question))
    if format_ == "json":
        sys.stdout.write(render.json_lines([answer]))
    elif format_:
        raise CommandFailed(f"unknown format {format_[:40]!r}", hint="There is json")
    else:
        for line in answer.get("lines", ()):
            out(render.clean(line))
    return 0 if answer["allowed"] else DENIED
