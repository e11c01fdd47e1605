"""`flota host`: hosts added to a fleet over SSH, taken out of it, listed.

`upgrade`, `doctor` and `exec` are in `cli.commands.hostwork`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from cli import render
from cli.context import App, format_option, operators_fleet, out, pass_app, show
from cli.render import Column
from model.errors import CommandFailed, InvalidInput, NotFound
from model.spec import Struct

if TYPE_CHECKING:
    from deploy.inventory import HostWish, Target
    from deploy.provision import Outcome
    from deploy.roster import KnownHost, Roster
    from deploy.transport import Streaming, Transport

F = Callable[..., Any]

REACHED: tuple[Callable[[F], F], ...] = (
    click.option(
        "--identity", "-i", multiple=True, help="File of a private key (ssh-agent's and usual ones)"
    ),
    click.option("--jump", "-J", default="", metavar="USER@HOST", help="Reach them through this host"),
    click.option(
        "--host-key",
        multiple=True,
        metavar="[HOST=]SHA256:…",
        help="Fingerprint that a host must show (known_hosts decides)",
    ),
    click.option("--ssh-config", default="", type=click.Path(), help="File of ssh's settings (none is read)"),
)


def reached_options(command: F) -> F:
    """Of commands that go to hosts by SSH."""
    for option in reversed(REACHED):
        command = option(command)
    return command


class HostRow(Struct):
    """A line of `flota host ls`."""

    name: str
    id: str
    target: str = ""
    """How it is reached; empty: this machine does not know."""
    state: str = ""
    role: str = ""
    address: str = ""
    version: str = ""


class HostResult(Struct):
    """A line of `flota host add --format json`."""

    host: str
    name: str
    result: str
    error: str = ""
    steps: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@click.group()
def host() -> None:
    """The machines under the fleet, over SSH."""


@host.command("add")
@click.option("--controller", default="", metavar="USER@HOST", help="Found a fleet, with its controller here")
@click.option("--file", "-f", "file", type=click.File(), help="Inventory of hosts (YAML)")
@click.option("--name", default="", help="Its name in the fleet (its host name)")
@click.option("--address", default="", help="Address at which its peers reach it")
@click.option("--label", multiple=True, help="KEY=VALUE of the hosts, for constraints")
@click.option("--replace", is_flag=True, help="It takes the place of the host of its name that is gone")
@reached_options
@click.option("--parallel", default=8, type=click.IntRange(1, 64), show_default=True, help="Hosts at a time")
@click.option("--dry-run", is_flag=True, help="Only say what would be done")
@click.option("--format", "format_", default="", type=click.Choice(["", "json"]), metavar="json")
@click.argument("hosts", nargs=-1, metavar="[USER@HOST[:PORT]…]")
@pass_app
def add(app: App, hosts: tuple[str, ...], **flags: Any) -> None:
    """Make hosts members of a fleet: bare machines that SSH reaches. Safe to repeat."""
    from cli.hosttable import HostTable

    wanted = _wanted(hosts, flags)
    table = HostTable([str(wish.target) for wish in wanted], quiet=flags["format_"] == "json")
    with table.shown():
        outcomes, fleet = asyncio.run(_add(app, wanted, flags, table))
    if not flags["dry_run"] and fleet:
        _remember(fleet, wanted, outcomes)
    _tell(outcomes, flags["format_"])
    _end(outcomes)
    if not flags["dry_run"] and any(wish.controller for wish in wanted) and not flags["format_"]:
        out(_founded(app))


def _founded(app: App) -> str:
    """What to type next."""
    endpoint, credentials = operators_fleet()
    if app.elsewhere:
        words = f"flota -H {endpoint} --credentials {credentials} node ls"
        return f"The fleet is up. Commands of this machine are for {app.elsewhere} still; for it: {words}"
    return "The fleet is up, and commands of this machine are for it: flota node ls"


def _wanted(hosts: Sequence[str], flags: dict[str, Any]) -> tuple[HostWish, ...]:
    from cli.parse.inventory import parse_inventory, parse_words, with_flags

    reached = {key: flags[key] for key in ("identity", "jump", "host_key")}
    if flags["file"] is None:
        names = {key: flags[key] for key in ("name", "address", "label")}
        return parse_words(hosts, flags["controller"], replace_=flags["replace"], **names, **reached)
    if hosts or any(flags[key] for key in ("controller", "name", "address", "label", "replace")):
        raise InvalidInput("hosts are named by the file or by words, not both", hint="Say it in the file")
    from msgspec.structs import replace

    found = parse_inventory(flags["file"].name, flags["file"].read())
    return tuple(replace(wish, target=with_flags(wish.target, **reached)) for wish in found)


async def _add(
    app: App, wanted: Sequence[HostWish], flags: dict[str, Any], table: Any
) -> tuple[list[Outcome], str]:
    """The outcomes, and the fleet's id where it is known."""
    from cli.fleetapi import FleetOverApi
    from deploy.bundles import OwnBundles
    from deploy.fleetport import FleetOverTransport
    from deploy.provision import Provisioner, credentials
    from deploy.roster import Roster

    fleet_id = ""

    async def founded(controller: Transport) -> None:
        nonlocal fleet_id
        fleet_id = (await FleetOverTransport(controller).view()).fleet_id
        Roster(fleet_id).keep_credentials(await credentials(controller))

    run = Provisioner(
        connector(flags["ssh_config"]),
        OwnBundles(),
        table,
        parallel=flags["parallel"],
        dry=flags["dry_run"],
    )
    if any(wish.controller for wish in wanted):
        return await run.add(wanted, None, founded), fleet_id
    if not app.elsewhere and operators_fleet() == ("", ""):
        raise InvalidInput(
            "this machine knows of no fleet that hosts could be added to",
            hint="Found one: flota host add --controller USER@HOST …; or set FLOTA_HOST",
        )
    fleet = FleetOverApi(app)
    fleet_id = (await fleet.view()).fleet_id  # before any host is touched
    return await run.add(wanted, fleet, founded), fleet_id


def connector(ssh_config: str = "") -> Callable[[Target], Awaitable[Streaming]]:
    """Opens the transport to a host; the word `local` is this machine."""
    from deploy.inventory import LOCAL
    from deploy.local import LocalTransport

    async def connect(target: Target) -> Streaming:
        if target.host == LOCAL and not target.user and not target.port:
            return LocalTransport()
        from deploy.ssh import SshSettings
        from deploy.ssh import connect as over_ssh

        return await over_ssh(target, SshSettings(config=ssh_config))

    return connect


def _remember(fleet_id: str, wanted: Sequence[HostWish], outcomes: Sequence[Outcome]) -> None:
    from deploy.roster import KnownHost, Roster

    good = [one for one in outcomes if one.result in ("added", "already") and one.host_id]
    controllers = {wish.target for wish in wanted if wish.controller}
    roster = Roster(fleet_id)
    doubted = roster.remember(
        KnownHost(
            name=one.name,
            host_id=one.host_id,
            target=one.target,
            controller=one.target in controllers or bool(one.facts.controls),
        )
        for one in good
    )
    for one in doubted:
        words = (
            f"{one.target}: it says that it is {one.name}, which is reached elsewhere: not remembered as that"
        )
        sys.stderr.write(render.clean(f"flota: {words}. If it has moved, mend {roster.folder}/hosts.json\n"))


def _tell(outcomes: Sequence[Outcome], format_: str) -> None:
    if format_ == "json":
        from model.codec import to_plain

        sys.stdout.write(render.json_lines([to_plain(_result(one)) for one in outcomes]))
        return
    for one in outcomes:
        for found in one.plan.findings if one.result != "failed" else ():
            sys.stderr.write(render.clean(f"{one.host}: {found.level}: {found}\n"))
        if one.result == "planned":
            out(render.clean(f"{one.host}, as {one.name}:"))
            for number, step in enumerate(one.plan.steps, 1):
                out(render.clean(f"  {number}. {step}"))
                for argv in step.commands:
                    out(render.clean(f"       {' '.join(argv)}"))
        elif one.result == "already":
            out(render.clean(f"{one.host}: {one.plan.settled}"))


def _result(one: Outcome) -> HostResult:
    findings = () if one.result == "failed" else one.plan.findings
    return HostResult(
        host=one.host,
        name=one.name,
        result=one.result,
        error=one.error,
        steps=tuple(map(str, one.plan.steps)),
        warnings=tuple(map(str, findings)),
    )


def _end(outcomes: Sequence[Outcome]) -> None:
    """Raises with the last failure's words, after the others were said."""
    failures = [one for one in outcomes if one.result == "failed"]
    for one in failures[:-1]:
        sys.stderr.write(render.clean(f"flota: {one.error}\n"))
    if failures:
        raise CommandFailed(failures[-1].error)


@host.command("rm")
@click.option("--force", is_flag=True, help="Give up its containers; also the controller, if it is the last")
@click.option("--packages", is_flag=True, help="Also the packages that were installed for flota")
@click.option(
    "--volumes/--keep-volumes",
    default=None,
    help="Also its volumes; a terminal is asked, without one they stay on the host",
)
@click.option("--drain-timeout", default="2m", help="How long services may take to move", show_default=True)
@reached_options
@click.argument("ref", metavar="NAME|USER@HOST")
@pass_app
def rm(app: App, ref: str, **flags: Any) -> None:
    """Take a host out of the fleet, and flota off the host: containers, networks, images, state, program."""
    from cli.hosttable import HostTable
    from deploy.removal import VOLUMES

    removed = asyncio.run(_rm(app, ref, flags, HostTable([])))
    if removed.volumes:
        words = f"{len(removed.volumes)} volumes stay on {removed.name or ref}, in {VOLUMES}"
        sys.stderr.write(render.clean(f"flota: {words}: {', '.join(removed.volumes[:5])}\n"))
    if removed.packages:
        words = " ".join(removed.packages)
        sys.stderr.write(f"flota: packages that were installed for flota stay: {render.clean(words)}\n")
    out(removed.name or ref)


async def _rm(app: App, ref: str, flags: dict[str, Any], table: Any) -> Any:
    from cli.fleetapi import FleetOverApi
    from deploy.bundles import OwnBundles
    from deploy.removal import Wishes, remove, volumes
    from deploy.roster import Roster
    from model.quantity import parse_duration

    fleet = FleetOverApi(app)
    roster = Roster((await fleet.view()).fleet_id)
    known = roster.find(ref)
    target = _target(ref, known, flags)
    to = await connector(flags["ssh_config"])(target)
    try:
        gone = flags["volumes"]
        if gone is None and sys.stdin.isatty() and (found := await volumes(to)):
            names = render.clean(", ".join(found[:5]))
            words = f"{ref} has {len(found)} volumes ({names}). Remove them and all that is in them, too?"
            gone = await asyncio.to_thread(click.confirm, words, default=False, err=True)
        wishes = Wishes(
            force=flags["force"],
            packages=flags["packages"],
            volumes=bool(gone),
            drain_timeout=parse_duration(flags["drain_timeout"]),
        )
        removed = await remove(to, known, fleet, OwnBundles(), wishes, table)
    finally:
        await to.close()
    if removed.ended:
        roster.end()
    else:
        roster.forget(removed.name)
    return removed


def _target(ref: str, known: KnownHost | None, flags: dict[str, Any]) -> Target:
    from cli.parse.inventory import with_flags
    from deploy.inventory import parse_target

    reached = {key: flags[key] for key in ("identity", "jump", "host_key")}
    if known is not None:
        return with_flags(known.target, **reached)
    if "@" not in ref:
        raise NotFound(
            f"this machine does not know how to reach a host named {ref[:80]!r}",
            hint="Say it as user@host; or make the fleet forget a host that is gone: flota node rm",
        )
    return with_flags(parse_target(ref), **reached)


@host.command("ls")
@click.option("--quiet", "-q", is_flag=True, help="Only names")
@format_option
@pass_app
def ls(app: App, quiet: bool, format_: str) -> None:
    """List hosts, and how this machine reaches them."""
    from deploy.roster import Roster
    from model.codec import to_plain

    columns: list[Column] = [
        ("NAME", lambda h: h["name"]),
        ("REACHED AS", lambda h: h["target"] or "-"),
        ("STATE", lambda h: h["state"]),
        ("ROLE", lambda h: h["role"]),
        ("ADDRESS", lambda h: h["address"]),
        ("VERSION", lambda h: h["version"]),
    ]
    roster = Roster(app.call("GET", "/v1/info")["fleet_id"])
    rows = [to_plain(row) for row in _rows(app, roster)]
    show(rows, columns, of=HostRow, format_=format_, quiet=columns[0] if quiet else None)


def _rows(app: App, roster: Roster) -> list[HostRow]:
    from deploy.fleetport import node_of

    known = {one.host_id: one for one in roster.hosts()}
    rows = []
    for node in map(node_of, app.call("GET", "/v1/hosts")):
        one = known.pop(node.id, None)
        rows.append(
            HostRow(
                name=node.name,
                id=node.id,
                target=str(one.target) if one else "",
                state=node.state,
                role="controller" if one and one.controller else "",
                address=node.address,
                version=node.release or node.version,
            )
        )
    rows += [
        HostRow(name=one.name, id=one.host_id, target=str(one.target), state="not in the fleet")
        for one in known.values()
    ]
    return sorted(rows, key=lambda row: row.name)
