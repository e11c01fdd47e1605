"""`flota completion`: shell completion scripts, by click's own protocol."""

from __future__ import annotations

import click

from cli.context import out


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script: eval "$(flota completion bash)"."""
    from click.shell_completion import get_completion_class

    from cli.main import cli

    cls = get_completion_class(shell)
    assert cls is not None
    out(cls(cli, {}, "flota", "_FLOTA_COMPLETE").source())
