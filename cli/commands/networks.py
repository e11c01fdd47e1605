"""`flota network`: networks on a host and across hosts."""

from __future__ import annotations

import click

from cli.context import App, each, format_option, out, pass_app, segment, short, show
from cli.parse.container import pairs
from cli.render import Column
from model.api import NetworkInfo
from model.codec import to_plain
from model.errors import InvalidInput
from model.spec import NetworkSpec, Subnet


@click.group()
def network() -> None:
    """Networks of containers."""


@network.command("create")
@click.option("--driver", "-d", default="overlay", help="overlay (across hosts) or bridge (on each host)")
@click.option("--subnet", multiple=True, help="10.200.0.0/16; one of the fleet's pool without")
@click.option("--gateway", multiple=True, help="Of the subnet at the same place")
@click.option("--ip-range", multiple=True, help="Part of the subnet that addresses come from")
@click.option("--ipv6", is_flag=True, help="An IPv6 subnet too")
@click.option("--internal", is_flag=True, help="No way out")
@click.option("--attachable", is_flag=True, hidden=True, help="Every network is")
@click.option("--opt", "-o", multiple=True, help="mode=routed|bridged, mtu=, vni=")
@click.option("--label", multiple=True, help="KEY=VALUE")
@click.argument("name")
@pass_app
def create(app: App, name: str, driver: str, ipv6: bool, internal: bool, **flags: tuple[str, ...]) -> None:
    """Create a network."""
    spec = NetworkSpec(
        name=name,
        driver=driver,
        subnets=_subnets(flags["subnet"], flags["gateway"], flags["ip_range"]),
        ipv6=ipv6,
        internal=internal,
        options=pairs(flags["opt"]),
        labels=pairs(flags["label"]),
    )
    out(app.call("POST", "/v1/networks", body=to_plain(spec))["network"]["id"])


def _subnets(
    cidrs: tuple[str, ...], gateways: tuple[str, ...], ranges: tuple[str, ...]
) -> tuple[Subnet, ...]:
    if len(gateways) > len(cidrs) or len(ranges) > len(cidrs):
        raise InvalidInput("--gateway and --ip-range need a --subnet each")
    return tuple(
        Subnet(
            cidr=cidr,
            gateway=gateways[i] if i < len(gateways) else "",
            ip_range=ranges[i] if i < len(ranges) else "",
        )
        for i, cidr in enumerate(cidrs)
    )


@network.command("ls")
@click.option("--quiet", "-q", is_flag=True, help="Only ids")
@click.option("--no-trunc", is_flag=True)
@format_option
@pass_app
def ls(app: App, quiet: bool, no_trunc: bool, format_: str) -> None:
    """List networks."""
    columns: list[Column] = [
        ("NETWORK ID", lambda n: short(n["network"]["id"], no_trunc)),
        ("NAME", lambda n: n["network"]["spec"]["name"]),
        ("DRIVER", lambda n: n["network"]["spec"].get("driver", "overlay")),
        ("SUBNETS", lambda n: ",".join(s["cidr"] for s in n["network"]["spec"].get("subnets", ()))),
        ("VNI", lambda n: str(n["network"].get("vni") or "")),
        ("ENDPOINTS", lambda n: str(len(n.get("endpoints", {})))),
    ]
    show(
        app.call("GET", "/v1/networks"),
        columns,
        of=NetworkInfo,
        format_=format_,
        quiet=columns[0] if quiet else None,
    )


@network.command("inspect")
@click.argument("refs", nargs=-1, required=True)
@pass_app
def inspect(app: App, refs: tuple[str, ...]) -> None:
    """Show everything about networks."""
    import json

    from cli.commands.inspect import find

    out(json.dumps([value for ref in refs for value in find(app, ref, "network")], indent=4))


@network.command("rm")
@click.argument("refs", nargs=-1, required=True)
@pass_app
def rm(app: App, refs: tuple[str, ...]) -> None:
    """Remove networks."""
    each(refs, lambda ref: app.call("DELETE", f"/v1/networks/{segment(ref)}"))
