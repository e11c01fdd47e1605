"""`flota network`: networks on a host and across hosts."""

from __future__ import annotations

from typing import Any

import click

from cli.context import App, each, filter_in_seconds, format_option, out, pass_app, segment, short, show
from cli.exits import FAILED
from cli.parse.container import pairs
from cli.parse.networks import aux_addresses, endpoint
from cli.render import Column
from model.api import ConnectNetwork, DisconnectNetwork, NetworkInfo
from model.codec import to_plain
from model.doctor import Finding, Way
from model.errors import CommandFailed, InvalidInput
from model.spec import NetworkSpec, Subnet

WAYS: list[Column] = [
    ("FROM", lambda way: way["host"]),
    ("TO", lambda way: way["peer"]),
    ("NETWORK", lambda way: way.get("network") or "-"),
    ("FAMILY", lambda way: f"IPv{way['version']}"),
    ("SMALL", lambda way: _milliseconds(way.get("small"))),
    ("LARGE", lambda way: _milliseconds(way.get("large"))),
    ("BYTES", lambda way: str(way["size"])),
]
"""Of `doctor --ways`."""


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f} ms"


@click.group()
def network() -> None:
    """Networks of containers."""


@network.command("create")
@click.option(
    "--driver",
    "-d",
    default="overlay",
    help="overlay (across hosts), host-gw (across hosts of one link), bridge (on each host), "
    "macvlan or ipvlan (the site's network)",
)
@click.option("--subnet", multiple=True, help="10.200.0.0/16; one of the fleet's pool without")
@click.option("--gateway", multiple=True, help="Of the subnet at the same place")
@click.option("--ip-range", multiple=True, help="Part of the subnet that addresses come from")
@click.option("--aux-address", multiple=True, help="NAME=ADDRESS that no container gets")
@click.option("--ipv6", is_flag=True, help="An IPv6 subnet too")
@click.option("--internal", is_flag=True, help="No way out")
@click.option("--attachable", is_flag=True, hidden=True, help="Every network is")
@click.option("--opt", "-o", multiple=True, help="mode=, encrypted, mtu=, vni=, icc=on|off, parent=LINK")
@click.option("--ipam-driver", default="default", help="default, or dhcp: the site's server gives addresses")
@click.option("--label", multiple=True, help="KEY=VALUE")
@click.argument("name")
@pass_app
def create(
    app: App, name: str, driver: str, ipv6: bool, internal: bool, ipam_driver: str, **flags: tuple[str, ...]
) -> None:
    """Create a network."""
    if ipam_driver not in ("default", "dhcp"):
        raise InvalidInput(
            f"--ipam-driver {ipam_driver[:40]!r} is not known", hint="There are default and dhcp"
        )
    spec = NetworkSpec(
        name=name,
        driver=driver,
        subnets=_subnets(flags["subnet"], flags["gateway"], flags["ip_range"], flags["aux_address"]),
        ipv6=ipv6,
        internal=internal,
        options=pairs(flags["opt"]),
        ipam="dhcp" if ipam_driver == "dhcp" else "",
        labels=pairs(flags["label"]),
    )
    out(app.call("POST", "/v1/networks", body=to_plain(spec))["network"]["id"])


def _subnets(
    cidrs: tuple[str, ...], gateways: tuple[str, ...], ranges: tuple[str, ...], aside: tuple[str, ...]
) -> tuple[Subnet, ...]:
    if len(gateways) > len(cidrs) or len(ranges) > len(cidrs):
        raise InvalidInput("--gateway and --ip-range need a --subnet each")
    excluded = aux_addresses(cidrs, aside)
    return tuple(
        Subnet(
            cidr=cidr,
            gateway=gateways[i] if i < len(gateways) else "",
            ip_range=ranges[i] if i < len(ranges) else "",
            exclude=excluded.get(cidr, ()),
        )
        for i, cidr in enumerate(cidrs)
    )


@network.command("connect")
@click.option("--ip", help="IPv4 address")
@click.option("--ip6", help="IPv6 address")
@click.option("--alias", multiple=True, help="Further name on the network")
@click.option("--mac-address", help="MAC address")
@click.option("--gw-priority", type=int, help="The network of the highest one is the way out")
@click.option("--bandwidth-in", help="100mbit: what is sent to it at most")
@click.option("--bandwidth-out", help="20mbit: what it sends at most")
@click.option("--driver-opt", multiple=True, help="com.docker.network.endpoint.ifname=NAME, ….sysctls=…")
@click.argument("name", metavar="NETWORK")
@click.argument("container", metavar="CONTAINER")
@pass_app
def connect(app: App, name: str, container: str, **flags: Any) -> None:
    """Put a container on a network, also while it runs."""
    request = ConnectNetwork(container=container, endpoint=endpoint(flags))
    info = app.call("POST", f"/v1/networks/{segment(name)}/connect", body=to_plain(request))
    await_wired(app, info["instance"]["id"])


@network.command("disconnect")
@click.option("--force", "-f", is_flag=True, help="No complaint if it is not on the network")
@click.argument("name", metavar="NETWORK")
@click.argument("container", metavar="CONTAINER")
@pass_app
def disconnect(app: App, name: str, container: str, force: bool) -> None:
    """Take a container off a network, also while it runs."""
    request = DisconnectNetwork(container=container, force=force)
    info = app.call("POST", f"/v1/networks/{segment(name)}/disconnect", body=to_plain(request))
    await_wired(app, info["instance"]["id"])


def await_wired(app: App, ref: str) -> None:
    """Until a running container's networks and ports are as wanted. Raises CommandFailed in its host's words
    when that can't be (yet); Unavailable where its host is lost."""
    _await(app, ref, "wired")


def await_limited(app: App, ref: str) -> None:
    """As `await_wired`, of its limits."""
    _await(app, ref, "limited")


def _await(app: App, ref: str, condition: str) -> None:
    reply = app.wait(ref, condition)
    if reply.get("phase") == "running" and reply.get("message"):
        hint = "It is recorded and tried again; undo it if it can't be"
        raise CommandFailed(reply["message"], hint=hint)


@network.command("ls")
@click.option("--filter", "-f", "filters", multiple=True, help="name= id= driver= label= type= dangling=")
@click.option("--quiet", "-q", is_flag=True, help="Only ids")
@click.option("--no-trunc", is_flag=True)
@format_option
@pass_app
def ls(app: App, filters: tuple[str, ...], quiet: bool, no_trunc: bool, format_: str) -> None:
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
        app.call("GET", "/v1/networks", filter=list(filters)),
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


@network.command("rotate-keys")
@click.argument("refs", nargs=-1, required=True)
@pass_app
def rotate_keys(app: App, refs: tuple[str, ...]) -> None:
    """Change the keys of encrypted networks, without losing a packet; returns when that has begun."""
    each(refs, lambda ref: app.call("POST", f"/v1/networks/{segment(ref)}/rotate-keys"))


@network.command("rm")
@click.argument("refs", nargs=-1, required=True)
@pass_app
def rm(app: App, refs: tuple[str, ...]) -> None:
    """Remove networks."""
    each(refs, lambda ref: app.call("DELETE", f"/v1/networks/{segment(ref)}"))


@network.command("doctor")
@click.option("--ways", is_flag=True, help="Print every way that was tried instead, with its times")
@format_option
@click.pass_context
def doctor(context: click.Context, format_: str, ways: bool) -> None:
    """Examine all networks on all hosts: every pair of hosts with small and large packets, every kernel
    against what should be. What is flota's own is set back; exit code 1 if anything else is wrong."""
    app: App = context.obj
    found = app.call("POST", "/v1/networks/doctor", ways=ways)
    findings = found.get("findings", [])
    well = all(finding["severity"] == "repaired" for finding in findings)
    columns: list[Column] = [
        ("SEVERITY", lambda f: f["severity"]),
        ("WHERE", lambda f: f["where"]),
        ("WHAT", lambda f: f["what"]),
        ("WHAT TO DO", lambda f: f.get("hint", "")),
    ]
    if ways:
        show(found.get("ways", []), WAYS, of=Way, format_=format_)
    elif format_ or findings:
        show(findings, columns, of=Finding, format_=format_)
    if not format_:
        verdict = "all is well" if well else "see above"
        out(f"{found['hosts']} hosts, {found['paths']} ways between them tried: {verdict}")
    if not well:
        context.exit(FAILED)


@network.command("prune")
@click.option("--force", "-f", is_flag=True, help="Don't ask")
@click.option("--filter", "filters", multiple=True, help="until=24h or a time, label=KEY[=VALUE], label!=…")
@pass_app
def prune(app: App, force: bool, filters: tuple[str, ...]) -> None:
    """Remove networks that no container or service uses."""
    if not force:
        click.confirm("All networks that nobody uses will be removed. Go on?", abort=True)
    wanted = [filter_in_seconds(text) for text in filters]
    removed = app.call("POST", "/v1/networks/prune", filter=wanted)["removed"]
    if removed:
        out("\n".join(("Deleted Networks:", *removed)))
