"""What commands share: the client, output in the asked form, refs in paths."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import click

from api.client import Client
from cli import render
from cli.render import Column


class App:
    """Made once per command line; the connection is opened when first used."""

    def __init__(self, host: str = "", credentials: str = "") -> None:
        self._host = host
        self._credentials = credentials
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = Client(self._host, self._credentials)
        return self._client

    def call(self, method: str, path: str, *, body: Any = None, **query: Any) -> Any:
        return self.client.call(method, path, body=body, **query)


pass_app: Callable[[Callable[..., Any]], Callable[..., Any]] = click.make_pass_decorator(App, ensure=True)
format_option = click.option(
    "--format", "format_", default="", help="`json`, or a template such as '{{.Name}}' or 'table {{.Name}}'"
)


def segment(ref: str) -> str:
    """A name as one part of a path."""
    return quote(ref, safe="")


def show(
    items: Sequence[Mapping[str, Any]],
    columns: Sequence[Column],
    *,
    format_: str = "",
    quiet: Column | None = None,
    headings: bool = True,
) -> None:
    """Print a list: a table, JSON lines, a template, or with `quiet` one column alone."""
    if quiet is not None:
        text = "".join(f"{quiet[1](item)}\n" for item in items)
    elif format_ == "json":
        text = render.json_lines(items)
    elif format_ and format_ != "table":
        text = render.template(format_, columns, items)
    else:
        text = render.table(columns, items, headings=headings)
    sys.stdout.write(text)


def out(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def short(ident: str, whole: bool = False) -> str:
    return ident if whole else ident.removeprefix("sha256:")[:12]


def now() -> float:
    return time.time()


def each(refs: Sequence[str], act: Any) -> None:
    """Do `act` for every ref, print those that went well, and fail at the end with the first failure's words,
    after having told the others on stderr."""
    from model.errors import FlotaError

    failures: list[FlotaError] = []
    for ref in refs:
        try:
            act(ref)
            out(ref)
        except FlotaError as error:
            failures.append(error)
    for failure in failures[:-1]:
        sys.stderr.write(f"flota: {render.clean(str(failure))}\n")
    if failures:
        raise failures[-1]
