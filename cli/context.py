"""What commands share: the client, output in the asked form, refs in paths."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import click

from api.client import Client, default_endpoint
from cli import render
from cli.render import Column

RECORDED = "It is recorded; its host does it when it is back"
UNSTARTED = "Nothing was started"


class App:
    """Made once per command line; the connection is opened when first used."""

    def __init__(self, host: str = "", credentials: str = "") -> None:
        self._host = host
        self._credentials = credentials
        self._client: Client | None = None

    @property
    def elsewhere(self) -> str:
        """The endpoint that commands are for in place of the operator's own fleet; empty: for that."""
        return self._host or default_endpoint()

    @property
    def client(self) -> Client:
        if self._client is None:
            endpoint, credentials = self.elsewhere, self._credentials
            if not endpoint:
                endpoint, own = operators_fleet()
                credentials = credentials or own
            self._client = Client(endpoint, credentials)
        return self._client

    def forget_client(self) -> None:
        """The next one has a connection of its own; who waits on this one's waits no more."""
        if self._client is not None:
            self._client.abort()
        self._client = None

    def turn_to(self, endpoint: str, credentials: str) -> None:
        """Commands are for that one from now on."""
        self._host, self._credentials, self._client = endpoint, credentials, None

    def call(self, method: str, path: str, /, *, body: Any = None, login: str = "", **query: Any) -> Any:
        """The decoded reply; hosts that are missing in it are named on stderr."""
        value = self.client.call(method, path, body=body, login=login, **query)
        if self.client.warning:
            sys.stderr.write(f"flota: not complete: {render.clean(self.client.warning)}\n")
        return value

    def wait(self, ref: str, condition: str, *, hint: str = RECORDED) -> Any:
        """The reply when a container has come to a condition. Raises Unavailable where its host is lost:
        nobody knows how it is, so nothing is to be told of it as done."""
        from model.errors import Unavailable

        reply = self.call("POST", f"/v1/instances/{segment(ref)}/wait", condition=condition)
        if reply.get("phase") == "lost":
            raise Unavailable(reply.get("message") or "its host is lost", hint=hint)
        return reply

    def login_for(self, image: str, *, needed: bool = False) -> str:
        """Who the operator is at an image's registry, as `login` of a call; empty for nobody. Where Docker's
        file or its helper can't be used, that is said: most images need no login. Raises it if one is
        `needed`."""
        from cli import logins
        from model.errors import FlotaError
        from model.registries import encode_header, registry_of

        registry = registry_of(image)
        try:
            return encode_header(logins.find(registry), registry)
        except FlotaError as error:
            if needed:
                raise
            sys.stderr.write(f"flota: without a login: {render.clean(str(error))}\n")
            return ""

    def await_removed(self, ident: str) -> None:
        """Until nothing is left of a container, or its host is lost, which is said."""
        from model.errors import NotFound

        try:
            reply = self.call("POST", f"/v1/instances/{ident}/wait", condition="removed")
        except NotFound:
            return
        if reply.get("phase") == "lost":
            words = f"{reply.get('message', 'its host is lost')}; {short(ident)} goes when it is back"
            sys.stderr.write(f"flota: {render.clean(words)}\n")


def operators_fleet() -> tuple[str, str]:
    """Endpoint and credentials of the fleet that `flota host add --controller` founded from this machine;
    empty where there is none."""
    import json
    import os

    from deploy.operatorhome import current_fleet

    folder = current_fleet()
    try:
        with open(os.path.join(folder, "admin.json")) as file:
            return f"https://{json.load(file)['address']}", folder
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""


pass_app: Callable[[Callable[..., Any]], Callable[..., Any]] = click.make_pass_decorator(App, ensure=True)
format_option = click.option(
    "--format", "format_", default="", help="`json`, or a template such as '{{.Name}}' or 'table {{.Name}}'"
)

node_option = click.option("--node", default="", help="Only on this host")
platform_option = click.option(
    "--platform", default="", metavar="OS/ARCH", help="Of several platforms' images"
)


def familiar(name: str) -> str:
    """An image's name as people write it."""
    return name.removeprefix("docker.io/").removeprefix("library/")


def shown_image(name: str, whole: bool = False) -> str:
    """As people wrote it: without the digest that a service's tag was resolved to."""
    head, at, _ = name.partition("@")
    return head if at and not whole and ":" in head.rpartition("/")[2] else name


def segment(ref: str) -> str:
    """A name as one part of a path."""
    return quote(ref, safe="")


def whole(values: Sequence[Any], type_: type[Any]) -> list[Any]:
    """Replies with every field, also those that the API leaves out because they are at their defaults."""
    import msgspec

    from model.codec import to_plain

    return [{**value, **to_plain(msgspec.convert(value, type_))} for value in values]


def show(
    items: Sequence[Any],
    columns: Sequence[Column],
    *,
    of: type[Any],
    format_: str = "",
    quiet: Column | None = None,
    headings: bool = True,
) -> None:
    """Print replies of a type: a table, JSON lines, a template, or with `quiet` one column alone."""
    if quiet is not None:
        text = "".join(f"{quiet[1](item)}\n" for item in items)
    elif format_ == "json":
        text = render.json_lines(whole(items, of))
    elif format_ and format_ != "table":
        text = render.template(format_, columns, whole(items, of))
    else:
        text = render.table(columns, items, headings=headings)
    sys.stdout.write(text)


def out(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def short(ident: str, whole: bool = False) -> str:
    return ident if whole else ident.removeprefix("sha256:")[:12]


def now() -> float:
    return time.time()


def span(since: str, until: str) -> dict[str, float | None]:
    """`--since` and `--until` as the API has them."""
    from model.quantity import parse_moment

    return {
        name: parse_moment(text, now()) if text else None
        for name, text in (("since", since), ("until", until))
    }


def filter_in_seconds(text: str) -> str:
    """`until=24h` (ago) and `until=2026-01-31T12:00:00Z` in unix seconds, as the API has it; other filters
    stay."""
    from model.quantity import parse_moment

    key, _, value = text.partition("=")
    return f"until={parse_moment(value, now())}" if key == "until" else text


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
