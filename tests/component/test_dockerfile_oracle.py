"""Dockerfiles are split as BuildKit's own parser splits them: real ones, and ones that nobody writes.

The oracle is BuildKit 0.12's parser. Where today's is another, we follow today's, and leave such texts out:
a blank between `<<` and its name, text behind a JSON array, an escape other than the backslash in flags.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from image.dockerfile.faults import DockerfileFault
from image.dockerfile.parser import parse
from tests.support.dockerfileoracle import Row, ours, theirs

CORPUS = Path("/usr/share/gocode/src/github.com/openshift/imagebuilder")
"""Of Debian's golang-github-openshift-imagebuilder-dev: its test data, and the parser's own."""
LEAST = 99
INVALID = (
    "parser/testfiles/",  # of the parser alone: without FROM, with flags that are none
    "parser/testfiles-negative/",
    "Dockerfile.badhealthcheck",
    "Dockerfile.unknown",
)
PIECES = (
    *("FROM", "RUN", "COPY", "ADD", "ENV", "LABEL", "ARG", "CMD", "ENTRYPOINT", "ONBUILD", "HEALTHCHECK"),
    *("EXPOSE", "VOLUME", "USER", "WORKDIR", "SHELL", "STOPSIGNAL", "MAINTAINER", "run", "Env", "FOO"),
    *(" ", " ", " ", " ", "\t", "  ", "\n", "\n", "\n", "\\\n", "\\\n", " \\\n", "\\ \n", "\\\\\n", "\r\n"),
    *("\n\n", "\n#\n", "# x\n", " # x\n", "`\n", "a", "b", "x", "=", "a=b", "c=", "$a", "${a}", "${a:-b c}"),
    *('"', '"', "'", "'", '"a b"', "'c d'", "\\", "\\ ", '\\"', "--", "--a", "--a=b", '--a="b c"', "--x='y'"),
    *("[", '["a"]', '["a", "b"]', '[ "a" , "\\n" ]', '["a",1]', '["a",]', "]", ",", ",", "[]", ' ["x" ]'),
    *(
        "<<",
        "<<E",
        "<<-E",
        '<<"E"',
        "<<'E'",
        "3<<E",
        "<<<",
        "\nE\n",
        "\n\tE\n",
        "\nF\n",
        "<<F",
        "NONE",
        "CMD",
    ),
    *("# escape=`\n", "#escape=\\\n", "# syntax=x\n", "{", "}", "&&", "|", "<", ">", "-", "/"),
)


def corpus() -> list[tuple[str, str]]:
    paths = [path for path in sorted(CORPUS.rglob("*ockerfile*")) if path.is_file() and path.suffix != ".go"]
    assert len(paths) >= LEAST, f"{CORPUS} has {len(paths)} Dockerfiles: is its Debian package installed?"
    return [(str(path.relative_to(CORPUS)), path.read_text()) for path in paths]


def is_other_version(text: str, our: list[Row] | str, their: list[Row] | str) -> bool:
    if "<< " in text or "<<\t" in text or "End the flag's value" in str(our):
        return True
    if isinstance(our, str) or isinstance(their, str):
        return False
    trailing = any(theirs_[2] and not ours_[2] for ours_, theirs_ in zip(our, their, strict=False))
    escaped = any("\\" in flag or "`" in flag for row in (*our, *their) for flag in row[5])
    return trailing or ("escape=`" in text and escaped)


def test_every_file_of_the_corpus_has_the_tree_of_buildkit() -> None:
    files = corpus()
    for (name, text), their in zip(files, theirs([text for _, text in files]), strict=True):
        our = ours(text)
        if isinstance(our, str) or isinstance(their, str):
            assert isinstance(our, str) and isinstance(their, str), f"{name}: {their} | {our}"
        else:
            assert our == their, name


def test_every_valid_file_of_the_corpus_is_a_dockerfile() -> None:
    for name, text in corpus():
        if not any(part in name for part in INVALID):
            try:
                parse(text.encode())
            except DockerfileFault as fault:
                pytest.fail(f"{name}: {fault}")


def test_files_that_nobody_writes_have_the_tree_of_buildkit() -> None:
    drawn = random.Random(1)
    heads = ("", "", "", "# escape=`\n", "# syntax=a\n#escape=`\n", "\ufeff")
    texts = [
        drawn.choice(heads) + "".join(drawn.choice(PIECES) for _ in range(drawn.randint(1, 30)))
        for _ in range(5000)
    ]
    compared = 0
    for text, their in zip(texts, theirs(texts), strict=True):
        our = ours(text)
        if is_other_version(text, our, their):
            continue
        compared += 1
        if isinstance(our, str) or isinstance(their, str):
            assert isinstance(our, str) and isinstance(their, str), f"{text!r}: {their} | {our}"
        else:
            assert our == their, repr(text)
    assert compared > 4500
