"""Git repositories as Docker writes them: URL, ref and folder. Pure.

    https://host/path.git#ref:folder      git@host:path#ref      ssh://git@host/path.git
    https://host/path.git?ref=v1&subdir=folder&checksum=<commit>&keep-git-dir=true&submodules=false

Source: Docker's pages on build contexts and on ADD. Invariant: nothing of a parsed URL can be taken for an
option, a command or a file of this host; a folder is below the repository's top.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

from model.errors import InvalidInput
from model.spec import Struct

_SHORT = re.compile(
    r"(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?!//)(?P<path>\S+)\Z"
)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z|[0-9A-Fa-f:.]+\Z")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?\Z")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,64}\Z")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|\Z)")
PORTS = {"https": 443, "http": 80, "git": 9418, "ssh": 22}
SCHEMES = tuple(PORTS)
MAX_URL = 8192


class GitUrl(Struct):
    """`url` is what git is given, without ref and folder; `host` and `port` where it leads."""

    url: str
    scheme: str
    host: str
    port: int
    ref: str = ""
    """Branch, tag, full ref name or commit; empty: the repository's HEAD."""
    folder: str = ""
    commit: str = ""
    """Which the ref has to mean."""
    keep_git_dir: bool | None = None
    submodules: bool = True

    @property
    def shown(self) -> str:
        """For messages: without passwords."""
        head, mark, rest = self.url.partition("://")
        return f"{head}://{rest.rpartition('@')[2]}"[:300] if mark else self.url[:300]


def parse(text: str) -> GitUrl:
    """Raises InvalidInput."""
    if len(text) > MAX_URL or any(ord(letter) < 33 or ord(letter) == 127 for letter in text):
        raise InvalidInput(f"{text[:100]!r} is no URL of a git repository")
    plain, mark, fragment = text.partition("#")
    ref, _, folder = fragment.partition(":")
    short = _SHORT.match(plain)
    if short is not None:
        found = GitUrl(
            url=_path_checked(plain, short["path"]),
            scheme="ssh",
            host=short["host"],
            port=22,
            ref=ref,
            folder=folder,
        )
        return _checked(found, text)
    scheme = plain.partition("://")[0].lower()
    if "://" not in plain or scheme not in SCHEMES:
        raise InvalidInput(
            f"{text[:100]!r}: git repositories are fetched from https, http, ssh and git URLs alone"
        )
    try:
        parts = urlsplit(plain)
        port = parts.port or PORTS[scheme]
    except ValueError as error:
        raise InvalidInput(f"{text[:100]!r} is no URL of a git repository: {error}") from error
    _path_checked(text, parts.path)
    if parts.username is not None and scheme in ("ssh", "git") and not _USER.match(parts.username):
        raise InvalidInput(f"{text[:100]!r} has a user name that can't be")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = {"ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules"}
    ours = bool(query) and set(query) <= known
    if query and mark and ours:
        raise InvalidInput(f"{text[:100]!r} names ref or folder twice, after # and after ?")
    found = GitUrl(
        url=parts._replace(query="" if ours else parts.query).geturl(),
        scheme=scheme,
        host=(parts.hostname or ""),
        port=port,
        ref=ref,
        folder=folder,
    )
    return _checked(_with_query(found, query, text) if ours else found, text)


def _with_query(found: GitUrl, query: dict[str, str], text: str) -> GitUrl:
    named = [(key, query[key]) for key in ("ref", "tag", "branch") if key in query]
    if len(named) > 1:
        raise InvalidInput(f"{text[:100]!r} names more than one ref")
    prefix = {"tag": "refs/tags/", "branch": "refs/heads/"}
    ref = prefix.get(named[0][0], "") + named[0][1] if named else ""
    return GitUrl(
        url=found.url,
        scheme=found.scheme,
        host=found.host,
        port=found.port,
        ref=ref,
        folder=query.get("subdir", ""),
        commit=query.get("checksum", query.get("commit", "")).lower(),
        keep_git_dir=_bool(query["keep-git-dir"], text) if "keep-git-dir" in query else None,
        submodules=_bool(query["submodules"], text) if "submodules" in query else True,
    )


def _bool(value: str, text: str) -> bool:
    known = {"": True, "1": True, "true": True, "0": False, "false": False}
    if value.lower() not in known:
        raise InvalidInput(f"{text[:100]!r}: {value[:40]!r} is neither true nor false")
    return known[value.lower()]


def _path_checked(text: str, path: str) -> str:
    if not path.strip("/") or path.startswith("-"):
        raise InvalidInput(f"{text[:100]!r} names no repository")
    return text


def _checked(found: GitUrl, text: str) -> GitUrl:
    if not _HOST.match(found.host):
        raise InvalidInput(f"{text[:100]!r} has no host that can be")
    if found.ref and not is_ref(found.ref):
        raise InvalidInput(f"{text[:100]!r}: {found.ref[:100]!r} is no branch, tag or commit")
    if found.commit and not _SHORT_COMMIT.match(found.commit):
        raise InvalidInput(f"{text[:100]!r}: {found.commit[:100]!r} is no commit")
    parts = [part for part in unquote(found.folder).split("/") if part not in ("", ".")]
    if ".." in parts or any("\0" in part for part in parts) or ".git" in map(str.lower, parts):
        raise InvalidInput(f"{text[:100]!r}: the folder {found.folder[:100]!r} is not one of the repository")
    return GitUrl(
        **{name: getattr(found, name) for name in found.__struct_fields__} | {"folder": "/".join(parts)}
    )


def is_ref(text: str) -> bool:
    """By git's own rules (git-check-ref-format), so that it is neither an option nor a range."""
    return (
        len(text) <= 1024
        and not text.startswith(("-", "/", "."))
        and not text.endswith(("/", "."))
        and text != "@"
        and _BAD_REF.search(text) is None
    )


def is_commit(text: str) -> bool:
    """A whole one, of SHA-1 or SHA-256."""
    return _COMMIT.match(text) is not None
