"""Submodules: which there are, and where they come from. Pure.

Source: gitmodules(5), git-submodule(1) on relative URLs. Invariant: a module's URL is judged like one that a
user wrote; a relative one stays at its parent's host.
"""

from __future__ import annotations

import posixpath

from image.context.giturl import GitUrl, is_commit, parse
from model.errors import InvalidInput
from model.spec import Struct


class Module(Struct):
    path: str
    url: str
    commit: str


def gitlinks(rest: bytes, path: bytes) -> dict[str, str]:
    """Of a line of `git ls-tree -l` after the mode of a gitlink."""
    commit = rest.split()[1].decode("ascii", "replace") if len(rest.split()) > 1 else ""
    return {path.decode("utf-8", "surrogateescape"): commit} if is_commit(commit) else {}


def modules(said: bytes, links: dict[str, str], parent: GitUrl) -> list[Module]:
    """`said`: `git config --list -z` of .gitmodules. Links that it doesn't name stay empty folders, as with
    git."""
    found: dict[str, dict[str, str]] = {}
    for line in said.decode("utf-8", "surrogateescape").split("\0"):
        key, _, value = line.partition("\n")
        parts = key.split(".")
        if len(parts) >= 3 and parts[0] == "submodule":
            found.setdefault(".".join(parts[1:-1]), {})[parts[-1].lower()] = value
    result = []
    for name, fields in sorted(found.items()):
        path = fields.get("path", "")
        if path in links:
            if not fields.get("url"):
                raise InvalidInput(f"{parent.shown}: the submodule {name[:100]!r} has no URL")
            result.append(Module(path=path, url=fields["url"], commit=links[path]))
    return result


def url_of(module: Module, parent: GitUrl) -> GitUrl:
    """Raises InvalidInput for one that is not fetched, such as a file of this host."""
    text = module.url
    if text.startswith(("./", "../")):
        text = _relative(parent, text)
    if "#" in text or "?" in text:
        raise InvalidInput(
            f"{parent.shown}: the submodule {module.path[:100]!r} has a URL that is not fetched"
        )
    try:
        return parse(text)
    except InvalidInput as error:
        raise InvalidInput(f"{parent.shown}: the submodule {module.path[:100]!r}: {error.message}") from error


def _relative(parent: GitUrl, text: str) -> str:
    head, mark, rest = parent.url.partition("://")
    if mark:
        host, _, path = rest.partition("/")
        return f"{head}://{host}/{_joined(path, text)}"
    host, _, path = parent.url.partition(":")
    return f"{host}:{_joined(path, text)}"


def _joined(path: str, text: str) -> str:
    joined = posixpath.normpath("/" + path.rstrip("/") + "/" + text)
    return joined.lstrip("/")
