"""BuildKit's own parser, as PyPI `dockerfile` binds it, in a process of its own: a Go runtime does not belong
into a test's process. Run as a module it answers a JSON list of texts by a JSON list of trees."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from image.dockerfile.faults import DockerfileFault
from image.dockerfile.nodes import FORMS, Node
from image.dockerfile.parser import tree

Row = list[Any]
"""Keyword, trigger's keyword, JSON form, first and last line, flags, words, heredocs (name, fd, content)."""
ROOT = Path(__file__).resolve().parents[2]


def theirs(texts: Sequence[str]) -> list[list[Row] | str]:
    """A tree each, or what BuildKit says against the text."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.dockerfileoracle"],
        input=json.dumps(list(texts)),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer: list[list[Row] | str] = json.loads(done.stdout)
    return answer


def ours(text: str) -> list[Row] | str:
    try:
        nodes = tree(text.encode())
    except DockerfileFault as fault:
        return str(fault)
    return [_row(node) for node in nodes] or "no instructions"


def _row(node: Node) -> Row:
    inner = node.child if node.name == "ONBUILD" and node.child else node
    words = [word.split("\0")[0] for word in inner.words] if inner.name in FORMS else [""]
    return [
        node.keyword.lower(),
        node.child.keyword.lower() if node.child else "",
        inner.json,
        node.line.first,
        node.last_line,
        list(inner.flags),
        words,
        [[doc.name, doc.fd, doc.content] for doc in node.heredocs],
    ]


def _answers(texts: Sequence[str]) -> list[list[Row] | str]:
    import dockerfile

    def one(text: str) -> list[Row] | str:
        try:
            found = dockerfile.parse_string(text)
        except dockerfile.GoParseError as error:
            return str(error)
        return [
            [
                (command.cmd or "").lower(),
                (command.sub_cmd or "").lower(),
                command.json,
                command.start_line,
                command.end_line,
                list(command.flags),
                list(command.value),
                [[doc.name, doc.file_descriptor, doc.content] for doc in command.heredocs],
            ]
            for command in found
        ]

    return [one(text) for text in texts]


if __name__ == "__main__":
    json.dump(_answers(json.load(sys.stdin)), sys.stdout)
