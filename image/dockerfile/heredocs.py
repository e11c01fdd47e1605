"""The heredoc marks of a line: `<<NAME`, `<<-NAME`, `3<<"NAME"`. Pure.

The source is BuildKit's parser: marks are words outside quotes, whatever escape the file chose; a line that
its lexer can't split has none.
"""

from __future__ import annotations

import re

from image.dockerfile.instruction import Heredoc
from image.dockerfile.lines import SPACE

_MARK = re.compile(r"(\d*)<<(-?)[\t\n\f\r ]*([^<]*)\Z")
_TOKEN = re.compile(
    rf"""(?P<space>[{SPACE}]+)
    |<<[{SPACE}]*
    |'[^']*'
    |"(?:[^"\\]|\\.)*"
    |\$\{{[A-Za-z0-9_@*\#?!$-][^}}]*\}}
    |\\.?
    |(?P<bad>['"]|\$\{{)
    |[^\\'"$<{SPACE}]+
    |.""",
    re.VERBOSE | re.DOTALL,
)
_PLAIN = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)|([^'"\\]+)|(.)""", re.DOTALL)
_TABS = re.compile(r"^\t+", re.MULTILINE)


def marks(line: str) -> list[tuple[Heredoc, int]]:
    """Heredocs of a line, without their content, and their offsets, in order."""
    found: list[tuple[Heredoc, int]] = []
    start = -1
    for token in _TOKEN.finditer(line):
        if token["bad"]:
            return []
        if token["space"] is None:
            start = token.start() if start < 0 else start
            continue
        if start >= 0 and (mark := heredoc(line[start : token.start()])):
            found.append((mark, start))
        start = -1
    if start >= 0 and (mark := heredoc(line[start:])):
        found.append((mark, start))
    return found


def heredoc(word: str) -> Heredoc | None:
    """The mark that a word is, if it is one. Its content is not known yet."""
    match = _MARK.match(word)
    if match is None or not match[3]:
        return None
    name = ""
    quoted = False
    for single, double, escaped, plain, rest in _PLAIN.findall(match[3]):
        if rest or (plain and any(char in SPACE for char in plain)):
            return None
        quoted = quoted or not (escaped or plain)
        name += single + re.sub(r'\\(["\\$])', r"\1", double) + escaped + plain
    if not name:
        return None
    return Heredoc(name=name, content="", expand=not quoted, chomp=bool(match[2]), fd=int(match[1][:9] or 0))


def chomped(content: str) -> str:
    """Without the tabs that lines begin with."""
    return _TABS.sub("", content)
