"""Image references as Docker reads them: `alpine` is docker.io/library/alpine:latest. Pure.

Grammar and limits are those of the distribution project's reference package: an optional host (with a dot, a
port, or `localhost`), a lower-case path of at most 255 characters with it, an optional tag of at most 128, an
optional digest.
"""

from __future__ import annotations

import re

from image.digest import is_digest
from model.errors import InvalidInput
from model.registries import DEFAULT_HOST, split_host
from model.registries import familiar as familiar
from model.spec import Struct

DEFAULT_TAG = "latest"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_HEX64 = re.compile(r"[0-9a-f]{64}\Z")


class Reference(Struct):
    """A parsed reference. `tag` is empty only when there is a digest."""

    host: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.host}/{self.path}"

    @property
    def name(self) -> str:
        """The full form, as stored: `docker.io/library/alpine:latest`, with `@digest` for no tag."""
        return f"{self.repository}:{self.tag}" if self.tag else f"{self.repository}@{self.digest}"

    @property
    def familiar(self) -> str:
        """The short form for people: `alpine:latest`, with the digest if there is one."""
        return familiar(self.name) + (f"@{self.digest}" if self.tag and self.digest else "")


def parse(text: str) -> Reference:
    """Raises InvalidInput, which says what is wrong with the reference."""
    shown = repr(text[:128])
    if not text or text != text.strip() or len(text) > 1024:
        raise InvalidInput(
            f"invalid image reference {shown}", hint="Write for example alpine or host:5000/app:1.2"
        )
    if _HEX64.match(text):
        raise InvalidInput(f"invalid image reference {shown}: it is an image id, not a name")
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise InvalidInput(f"invalid image reference {shown}: {digest[:80]!r} is no sha256 digest")
    head, slash, tail = rest.rpartition("/")
    last, colon, tag = tail.partition(":")
    if colon and not _TAG.match(tag):
        raise InvalidInput(f"invalid image reference {shown}: bad tag {tag[:40]!r}")
    host, path = split_host(f"{head}{slash}{last}")
    if not _HOST.match(host):
        raise InvalidInput(f"invalid image reference {shown}: bad registry host {host[:80]!r}")
    if not _PATH.match(path):
        lower = " (repository names are lower case)" if path != path.lower() else ""
        raise InvalidInput(f"invalid image reference {shown}: bad repository name{lower}")
    if len(host) + 1 + len(path) > 255:
        raise InvalidInput(f"invalid image reference {shown}: the name has more than 255 characters")
    if host == DEFAULT_HOST and "/" not in path:
        path = f"library/{path}"
    return Reference(host=host, path=path, tag=tag or ("" if at else DEFAULT_TAG), digest=digest)
