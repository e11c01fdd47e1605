"""`flota backup`: the controller's state, while it runs, in one sealed file.

The passphrase and the seal stay on this side of the API: the controller sees neither. Parts of `controller`
are loaded only when a command runs.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.context import App, out, pass_app
from model.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from controller.backup.archive import Backup

STAMP = "%Y%m%dT%H%M%SZ"
ENDING = ".flota-backup"
passphrase_option = click.option(
    "--passphrase-file", default="", metavar="FILE", help="Whose first line is the passphrase; - for stdin"
)


class _Default(click.Group):
    """`flota backup FILE` is `flota backup create FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["create", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Default)
def backup() -> None:
    """Write the controller's state to a file, while it runs: `flota backup FILE`."""


@backup.command("create")
@passphrase_option
@click.option("--insecure-plain", is_flag=True, help="Not encrypted: the fleet's CA key is readable in it")
@click.option("--keep", type=click.IntRange(1), help="FILE is a folder: keep its so many newest backups")
@click.argument("file", metavar="FILE|-")
@pass_app
def create(app: App, file: str, passphrase_file: str, insecure_plain: bool, keep: int | None) -> None:
    """Write one consistent state of the controller to FILE, encrypted."""
    if bool(passphrase_file) is insecure_plain:
        raise InvalidInput(
            "a backup holds the key of the fleet's CA: whoever reads it rules the fleet",
            hint="Give --passphrase-file FILE, or --insecure-plain to leave it readable",
        )
    if keep is not None and not os.path.isdir(file):
        raise InvalidInput(f"{file} is no folder", hint="With --keep, name the folder that holds the backups")
    if keep is None and file != "-" and os.path.exists(file) and not os.path.isfile(file):
        hint = "Write to - for standard output; a folder takes --keep"
        raise InvalidInput(f"{file} is no file, and would be replaced by one", hint=hint)
    phrase = b"" if insecure_plain else passphrase(passphrase_file)
    from controller.backup import archive, seal

    data = b"".join(app.client.raw("GET", "/v1/backup"))
    manifest = archive.read(data, "what the controller sent").manifest
    sealed = data if insecure_plain else seal.seal(data, phrase)
    if file == "-":
        sys.stdout.buffer.write(sealed)
        sys.stdout.buffer.flush()
        return
    path = file if keep is None else os.path.join(file, _name(manifest.name, manifest.taken_at))
    from aio.durable import write_file

    write_file(os.path.realpath(path), sealed)
    for old in _older(file, manifest.name, keep) if keep is not None else ():
        os.unlink(old)
    out(path)


@backup.command("verify")
@passphrase_option
@click.argument("file", metavar="FILE|-")
def verify(file: str, passphrase_file: str) -> None:
    """Read all of FILE, as a restore would, and tell what it is."""
    found = opened(file, passphrase_file).manifest
    taken = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found.taken_at))
    out(f"fleet {found.name} ({found.fleet_id[:12]}) at revision {found.revision}, of {taken}")
    out(f"controller at {found.address or 'a socket alone'}, flota {found.release}, schema {found.schema}")


def passphrase(file: str) -> bytes:
    """The first line of a file, or of stdin. Raises NotFound, InvalidInput."""
    try:
        text = sys.stdin.buffer.readline() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise NotFound(f"no passphrase in {file}: {error.strerror}") from error
    found = text.partition(b"\n")[0].rstrip(b"\r")
    if not found:
        raise InvalidInput(f"the passphrase in {file} is empty")
    return found


def opened(file: str, passphrase_file: str) -> Backup:
    """A backup, verified. Raises what is wrong with it, the file or the passphrase."""
    from controller.backup import archive, seal

    if file == passphrase_file == "-":
        raise InvalidInput("stdin can't be both the backup and the passphrase")
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise NotFound(f"{file}: {error.strerror}") from error
    name = "stdin" if file == "-" else file
    if seal.sealed(data):
        if not passphrase_file:
            raise InvalidInput(f"{name} is encrypted", hint="Give --passphrase-file FILE")
        data = seal.unseal(data, passphrase(passphrase_file), name)
    return archive.read(data, name)


def _name(fleet: str, taken_at: float) -> str:
    """Names of one fleet's backups sort by their time."""
    return f"{fleet}-{time.strftime(STAMP, time.gmtime(taken_at))}{ENDING}"


def _older(folder: str, fleet: str, keep: int) -> list[str]:
    """All backups of that fleet in it but the newest `keep`."""
    ours = re.compile(rf"{re.escape(fleet)}-\d{{8}}T\d{{6}}Z{re.escape(ENDING)}")
    found = sorted(name for name in os.listdir(folder) if ours.fullmatch(name))
    return [os.path.join(folder, name) for name in found[:-keep]]
