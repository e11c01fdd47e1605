"""Which sources of ADD are not files of the context: URLs of files, and git repositories. Pure.

As Docker tells them apart: by the scheme, `.git` at the end of an HTTP path, and SSH's short form.
"""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["file", "git", ""]
_SHORT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9.\-]+:(?!//)\S+\Z")


def kind_of(source: str) -> Kind:
    """Empty: a path."""
    scheme, mark, rest = source.partition("://")
    if not mark:
        return "git" if _SHORT.match(source) else ""
    match scheme.lower():
        case "git" | "ssh":
            return "git"
        case "http" | "https":
            path = rest.partition("#")[0].partition("?")[0]
            return "git" if path.endswith((".git", ".git/")) else "file"
        case _:
            return ""
