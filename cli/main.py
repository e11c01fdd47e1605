"""The `flota` command: a visible table of commands, each module imported when its command is used.

Every error ends as one or two lines on stderr and an exit code; a closed pipe and ctrl-c end quietly.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from cli import exits
from cli.context import App

TABLE: dict[str, str] = {
    "run": "cli.commands.run:run",
    "create": "cli.commands.run:create",
    "exec": "cli.commands.streams:exec_",
    "attach": "cli.commands.streams:attach",
    "logs": "cli.commands.streams:logs",
    "ps": "cli.commands.containers:ps",
    "start": "cli.commands.containers:start",
    "stop": "cli.commands.containers:stop",
    "restart": "cli.commands.containers:restart",
    "kill": "cli.commands.containers:kill",
    "pause": "cli.commands.containers:pause",
    "unpause": "cli.commands.containers:unpause",
    "rm": "cli.commands.containers:rm",
    "rename": "cli.commands.containers:rename",
    "wait": "cli.commands.containers:wait",
    "top": "cli.commands.containers:top",
    "port": "cli.commands.containers:port",
    "update": "cli.commands.update:update",
    "cp": "cli.commands.files:cp",
    "diff": "cli.commands.files:diff",
    "export": "cli.commands.files:export",
    "commit": "cli.commands.files:commit",
    "stats": "cli.commands.containers:stats",
    "container": "cli.commands.containers:container",
    "inspect": "cli.commands.inspect:inspect",
    "why": "cli.commands.inspect:why",
    "build": "cli.commands.build:build",
    "builder": "cli.commands.builder:builder",
    "images": "cli.commands.images:images",
    "pull": "cli.commands.images:pull",
    "load": "cli.commands.images:load",
    "import": "cli.commands.images:import_",
    "rmi": "cli.commands.images:rmi",
    "tag": "cli.commands.images:tag",
    "push": "cli.commands.registries:push",
    "save": "cli.commands.registries:save",
    "history": "cli.commands.registries:history",
    "search": "cli.commands.registries:search",
    "login": "cli.commands.registries:login",
    "logout": "cli.commands.registries:logout",
    "manifest": "cli.commands.manifests:manifest",
    "image": "cli.commands.images:image",
    "df": "cli.commands.imagespace:df",
    "system": "cli.commands.system:system",
    "volume": "cli.commands.volumes:volume",
    "network": "cli.commands.networks:network",
    "policy": "cli.commands.policies:policy",
    "service": "cli.commands.services:service",
    "host": "cli.commands.hostwork:host",
    "node": "cli.commands.fleet:node",
    "token": "cli.commands.fleet:token",
    "registry": "cli.commands.registry:registry",
    "fleet": "cli.commands.settings:fleet",
    "events": "cli.commands.fleet:events",
    "info": "cli.commands.fleet:info",
    "version": "cli.commands.fleet:version",
    "up": "cli.commands.daemons:up",
    "join": "cli.commands.daemons:join",
    "down": "cli.commands.daemons:down",
    "agent": "cli.commands.daemons:agent",
    "controller": "cli.commands.daemons:controller",
    "processes": "cli.commands.daemons:processes",
    "backup": "cli.commands.backup:backup",
    "restore": "cli.commands.restore:restore",
    "follow": "cli.commands.restore:follow",
    "completion": "cli.commands.completion:completion",
}


class LazyGroup(click.Group):
    """Knows its commands by name and loads one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(TABLE)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = TABLE.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--host", "-H", default="", envvar="FLOTA_HOST", help="unix:///path or https://address:port")
@click.option("--credentials", default="", envvar="FLOTA_CREDENTIALS", help="Folder or file of an admin")
@click.pass_context
def cli(ctx: click.Context, host: str, credentials: str) -> None:
    """Containers on a fleet of Linux hosts as if they were one machine."""
    ctx.obj = App(host, credentials)


def main(argv: Sequence[str] | None = None) -> None:
    """The process's end is sudden where nothing is left to do: taking the interpreter apart costs a short
    command a tenth of its time. Commands that ran an event loop or threads end in order."""
    words = list(sys.argv[1:] if argv is None else argv)
    code = run(words)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if TABLE.get(exits.verb(words), "").startswith(("cli.commands.daemons", "cli.commands.restore")):
        sys.exit(code)
    os._exit(code)


def run(words: list[str]) -> int:
    """The command line's exit code."""
    from model.errors import FlotaError, Internal

    try:
        if "_FLOTA_COMPLETE" in os.environ:
            cli.main(words, prog_name="flota")  # click's completion protocol; ends the process
        with cli.make_context("flota", words) as context:
            result = cli.invoke(context)
            return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        return exits.INTERRUPTED
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except click.UsageError as error:
        hint = f"\nSee 'flota {_path(words)}--help'."
        return _fail(f"{error.format_message()}{hint}", exits.of_usage(words))
    except click.ClickException as error:
        return _fail(error.format_message(), exits.FAILED)
    except FlotaError as error:
        return _fail(str(error), exits.of_error(words, error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        if os.environ.get("FLOTA_DEBUG"):
            raise
        wrong = Internal(_words(error), hint="Set FLOTA_DEBUG=1 to see where")
        return _fail(str(wrong), exits.of_error(words, wrong))


def _words(error: Exception) -> str:
    """An error that is nobody's own, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the system'}: {error.strerror}"
    if isinstance(error, UnicodeError):
        return "some text is not UTF-8"
    return f"internal error: {type(error).__name__}: {error}"


def _path(words: Sequence[str]) -> str:
    verb = exits.verb(words)
    return f"{verb} " if verb in TABLE else ""


def _fail(message: str, code: int) -> int:
    from cli.render import clean

    sys.stderr.write(f"flota: {clean(message)}\n")
    return code


if __name__ == "__main__":
    main()
