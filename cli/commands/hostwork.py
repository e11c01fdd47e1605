"""`flota host upgrade`, `exec` and `doctor`: work on the machines under the fleet, over SSH."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cli import render
from cli.commands.hosts import connector, host, reached_options
from cli.context import App, format_option, out, pass_app, show
from cli.exits import FAILED
from cli.render import Column
from model.errors import CommandFailed, FlotaError, InvalidInput, NotFound
from model.spec import Struct

if TYPE_CHECKING:
    from deploy.hostwork import Line
    from deploy.roster import KnownHost
    from deploy.upgrade import Run

__all__ = ["doctor", "exec_", "host", "upgrade"]


def chosen(app: App, refs: Sequence[str], everyone: bool, flags: dict[str, Any]) -> tuple[KnownHost, ...]:
    """The hosts that are meant, as this machine reaches them. Raises InvalidInput, NotFound."""
    from msgspec.structs import replace

    from cli.context import operators_fleet
    from cli.parse.inventory import with_flags
    from deploy.operatorhome import current_fleet
    from deploy.roster import Roster
    from model.errors import Unavailable

    if bool(refs) is everyone:
        raise InvalidInput("name hosts, or all of them with --all", hint="See `flota host ls`")
    try:
        info = app.call("GET", "/v1/info")
        if "fleet_id" not in info:  # a host's own socket answers where its controller is stopped
            words = f"{app.client.endpoint} is a host's agent, not the fleet's controller"
            raise Unavailable(words, hint="Set FLOTA_HOST to the controller's address")
        roster = Roster(info["fleet_id"])
    except Unavailable as error:
        # a controller that does not answer may be what is to be mended; another fleet's is not
        roster = Roster.of_folder(current_fleet())
        if not _is_current(app.client.endpoint) or not roster.hosts():
            raise
        if (own := operators_fleet())[0] not in ("", app.client.endpoint):
            app.turn_to(*own)
        sys.stderr.write(render.clean(f"flota: {error.message}; going by what this machine remembers\n"))
    known = roster.hosts()
    if not known:
        raise NotFound(
            "this machine knows of no host of this fleet how it is reached",
            hint="It remembers those that it adds: flota host add",
        )
    found = []
    for ref in refs:
        one = roster.find(ref)
        if one is None:
            raise NotFound(f"this machine does not know how to reach a host named {ref[:80]!r}")
        found.append(one)
    reached = {key: flags[key] for key in ("identity", "jump", "host_key")}
    picked = {one.name: one for one in (found if refs else known)}
    return tuple(replace(one, target=with_flags(one.target, **reached)) for one in picked.values())


def _is_current(endpoint: str) -> bool:
    """Whether commands for that endpoint are for the fleet that this machine founded last: by its address, or
    as this is the host of its controller."""
    import json

    from api.client import DEFAULT_ENDPOINTS
    from cli.context import operators_fleet
    from cli.daemonoptions import ROOT
    from deploy.operatorhome import current_fleet
    from deploy.roster import Roster

    if endpoint == operators_fleet()[0]:
        return True
    try:
        with open(f"{ROOT}/controller/admin.json") as file:
            own = Roster(json.load(file)["fleet_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return endpoint in DEFAULT_ENDPOINTS and own.folder == Roster.of_folder(current_fleet()).folder


def all_option(command: Any) -> Any:
    return click.option("--all", "everyone", is_flag=True, help="All hosts that this machine knows")(command)


class MoveResult(Struct):
    """A line of `flota host upgrade --format json`."""

    name: str
    daemon: str
    before: str
    after: str
    result: str
    """moved, failed, back (it is what it was), planned"""
    error: str = ""


@host.command("upgrade")
@all_option
@click.option("--rollback", is_flag=True, help="To the release that each of them ran before")
@click.option("--parallel", default=1, type=click.IntRange(1, 64), show_default=True, help="Hosts at a time")
@click.option("--dry-run", is_flag=True, help="Only say what would be done")
@click.option("--format", "format_", default="", type=click.Choice(["", "json"]), metavar="json")
@reached_options
@click.argument("hosts", nargs=-1, metavar="[HOST…]")
@pass_app
def upgrade(app: App, hosts: tuple[str, ...], everyone: bool, **flags: Any) -> None:
    """Have hosts run this command's own release. Containers go on; what does not come back goes back."""
    from cli.fleetwatch import FleetWatch
    from cli.hosttable import HostTable
    from deploy.bundles import OwnBundles
    from deploy.upgrade import Upgrader

    known = chosen(app, hosts, everyone, flags)
    quiet = flags["format_"] == "json"
    table = HostTable([one.name for one in known], quiet=quiet)
    run = Upgrader(
        connector(flags["ssh_config"]), OwnBundles(), FleetWatch(app), table, parallel=flags["parallel"]
    )
    with table.shown():
        done = asyncio.run(run.run(known, back=flags["rollback"], dry=flags["dry_run"]))
    _tell(done, quiet=quiet, dry=flags["dry_run"])
    failures = [one for one in done.moved if one.error]
    for one in failures[:-1]:
        sys.stderr.write(render.clean(f"flota: {one.error}\n"))
    if failures:
        raise CommandFailed(failures[-1].error)


def _tell(done: Run, *, quiet: bool, dry: bool) -> None:
    if quiet:
        from model.codec import to_plain

        sys.stdout.write(render.json_lines([to_plain(row) for row in _rows(done, dry)]))
        return
    for found in done.plan.findings:
        sys.stderr.write(render.clean(f"flota: {found.level}: {found}\n"))
    if dry:
        for number, move in enumerate(done.plan.moves, 1):
            out(render.clean(f"{number}. {move}"))
    for name in done.plan.settled:
        out(f"{name}: is there already")


def _rows(done: Run, dry: bool) -> list[MoveResult]:
    became = {one.move: one for one in done.moved}
    rows = []
    for move in done.plan.moves:
        one = became.get(move)
        result = "planned" if one is None else "back" if one.back else "failed" if one.error else "moved"
        rows.append(
            MoveResult(
                name=move.name,
                daemon=move.daemon,
                before=move.before,
                after=move.after,
                result=result,
                error=one.error if one is not None else "" if dry else "not begun",
            )
        )
    return rows


class ExecCommand(click.Command):
    """What follows `--` is not ours to parse."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta["words"] = tuple(args[at + 1 :])
        return super().parse_args(ctx, args[:at])


@host.command("exec", cls=ExecCommand, options_metavar="[OPTIONS]")
@all_option
@click.option("--root", is_flag=True, help="As root, by sudo where the user is another")
@click.option("--timeout", default="10m", show_default=True, help="How long it may take on a host")
@click.option("--parallel", default=8, type=click.IntRange(1, 64), show_default=True, help="Hosts at a time")
@reached_options
@click.argument("hosts", nargs=-1, metavar="[HOST…] -- PROGRAM [WORD…]")
@click.pass_context
def exec_(context: click.Context, /, hosts: tuple[str, ...], everyone: bool, root: bool, **flags: Any) -> int:
    """Run a program on hosts. Lines come as they are said and bear their host's name; ends as the first one
    that failed."""
    from deploy.hostwork import exit_code, run_everywhere
    from model.quantity import parse_duration

    words = context.meta["words"]
    if not words:
        raise InvalidInput("there is no program to run", hint="flota host exec HOST -- uptime")
    known = chosen(context.obj, hosts, everyone, flags)
    width = max(len(one.name) for one in known)

    def told(line: Line) -> None:
        stream = sys.stdout if line.stream == 1 else sys.stderr
        stream.write(f"{line.name:<{width}} | {render.clean(line.text)}\n")
        stream.flush()

    ran = asyncio.run(
        run_everywhere(
            connector(flags["ssh_config"]),
            known,
            words,
            root=root,
            timeout=parse_duration(flags["timeout"]),
            parallel=flags["parallel"],
            told=told,
        )
    )
    return exit_code(ran)


class HostFinding(Struct):
    """A line of `flota host doctor`."""

    severity: str
    """fatal, warning, note; of networks: fault, warning, repaired"""
    where: str
    what: str
    hint: str = ""


@host.command("doctor")
@reached_options
@format_option
@click.argument("hosts", nargs=-1, metavar="[HOST…]")
@click.pass_context
def doctor(context: click.Context, /, hosts: tuple[str, ...], format_: str, **flags: Any) -> None:
    """Examine the machines: what speaks against each, and what they don't agree in: clocks, MTU, releases;
    then all ways between them, as `flota network doctor`. Exit code 1 if anything is wrong."""
    from cli.fleetwatch import FleetWatch
    from deploy.hostwork import examine
    from model.codec import to_plain

    app: App = context.obj
    known = chosen(app, hosts, not hosts, flags)
    found = [
        HostFinding(severity=one.finding.level, where=one.where, what=one.finding.what, hint=one.finding.hint)
        for one in asyncio.run(examine(connector(flags["ssh_config"]), known, FleetWatch(app)))
    ]
    ways = ""
    try:
        checked = app.call("POST", "/v1/networks/doctor")
        ways = f", {checked['paths']} ways between them tried"
        found += [
            HostFinding(severity=f["severity"], where=f["where"], what=f["what"], hint=f.get("hint", ""))
            for f in checked.get("findings", [])
        ]
    except FlotaError as error:
        found.append(HostFinding(severity="warning", where="the fleet", what=error.message, hint=error.hint))
    well = all(one.severity in ("note", "repaired") for one in found)
    columns: list[Column] = [
        ("SEVERITY", lambda f: f["severity"]),
        ("WHERE", lambda f: f["where"]),
        ("WHAT", lambda f: f["what"]),
        ("WHAT TO DO", lambda f: f.get("hint", "")),
    ]
    if format_ or found:
        show([to_plain(one) for one in found], columns, of=HostFinding, format_=format_)
    if not format_:
        out(f"{len(known)} hosts{ways}: {'all is well' if well else 'see above'}")
    if not well:
        context.exit(FAILED)
