"""Each rule finds what it is for, leaves alone what is right, and can be told to be silent."""

from __future__ import annotations

import time

import pytest

from image.dockerfile.check import Options, as_errors, check, parse_options
from image.dockerfile.instruction import Warned
from image.dockerfile.parser import parse

GOOD = """\
# syntax=docker/dockerfile:1
ARG VERSION=12
FROM --platform=$BUILDPLATFORM golang:1.22 AS build
ARG TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/root/.cache go mod download
COPY . .
RUN GOARCH=$TARGETARCH go build -o /app

FROM debian:$VERSION-slim
RUN apt-get update \\
 && apt-get install -y --no-install-recommends curl \\
 && rm -rf /var/lib/apt/lists/*
ENV HOME=/home/app PUBLIC_KEY=x TOKEN_FILE=/run/t
COPY --from=build /app /usr/bin/app
USER app
EXPOSE 8080 9090/udp
HEALTHCHECK CMD ["curl", "-f", "localhost:8080"]
ENTRYPOINT ["app"]
CMD ["--serve"]
"""


def found(text: str, **options: object) -> list[Warned]:
    return list(check(parse(text.encode()), **options))  # type: ignore[arg-type]


def codes(text: str) -> list[tuple[str, int]]:
    return [(warned.code, warned.spot.line) for warned in found(text)]


def test_good_file_has_no_findings() -> None:
    assert found(GOOD) == []


@pytest.mark.parametrize(
    ("code", "line", "text"),
    [
        ("StageNameCasing", 1, "FROM a:1 AS Build"),
        ("FromAsCasing", 1, "FROM a:1 as b"),
        ("FromAsCasing", 1, "from a:1 AS b"),
        ("NoEmptyContinuation", 3, "FROM a:1\nRUN x \\\n\n y"),
        ("ConsistentInstructionCasing", 3, "FROM a:1\nUSER x\nrun y"),
        ("ConsistentInstructionCasing", 2, "FROM a:1\nRun x\nUSER y"),
        ("JSONArgsRecommended", 2, "FROM a:1\nCMD x"),
        ("JSONArgsRecommended", 2, "FROM a:1\nENTRYPOINT x"),
        ("DuplicateStageName", 2, "FROM a:1 AS b\nFROM a:1 AS b"),
        ("ReservedStageName", 1, "FROM a:1 AS scratch"),
        ("MultipleInstructionsDisallowed", 2, 'FROM a:1\nCMD ["a"]\nCMD ["b"]'),
        ("MultipleInstructionsDisallowed", 2, "FROM a:1\nHEALTHCHECK NONE\nHEALTHCHECK CMD x"),
        ("UndefinedArgInFrom", 2, "ARG VERSION=1\nFROM a:$VERSIN"),
        ("UndefinedVar", 2, "FROM scratch\nCOPY $x /y"),
        ("UndefinedVar", 3, "FROM a:1\nARG directory=1\nCOPY $directoy /y"),
        ("UndefinedVar", 3, "ARG V=1\nFROM a:1\nLABEL v=$V"),
        ("UndefinedVar", 2, "FROM a:1\nLABEL v=$TARGETARCH"),
        ("UndefinedVar", 2, "FROM scratch\nENV a=1 b=$a"),
        ("UndefinedVar", 3, "FROM scratch AS b\nFROM b\nUSER $x"),
        ("WorkdirRelativePath", 2, "FROM a:1\nWORKDIR x"),
        ("SecretsUsedInArgOrEnv", 2, "FROM a:1\nARG DB_PASSWORD"),
        ("SecretsUsedInArgOrEnv", 2, "FROM a:1\nENV GITHUB_TOKEN=x"),
        ("SecretsUsedInArgOrEnv", 1, "ARG apikey\nFROM a:1"),
        ("LegacyKeyValueFormat", 2, "FROM a:1\nENV a b c"),
        ("LegacyKeyValueFormat", 2, "FROM a:1\nLABEL a b"),
        ("MaintainerDeprecated", 2, "FROM a:1\nMAINTAINER x"),
        ("InvalidDefaultArgInFrom", 2, "ARG V\nFROM a:$V"),
        ("InvalidDefaultArgInFrom", 2, "ARG I\nFROM ${I}"),
        ("FromPlatformFlagConstDisallowed", 1, "FROM --platform=linux/amd64 a:1"),
        ("RedundantTargetPlatform", 1, "FROM --platform=${TARGETPLATFORM} a:1"),
        ("ExposeProtoCasing", 2, "FROM a:1\nEXPOSE 80/TCP"),
        ("ExposeInvalidFormat", 2, "FROM a:1\nEXPOSE 127.0.0.1:80:80"),
        ("InvalidDefinitionDescription", 3, "# check=experimental=all\n# something\nFROM a:1 AS b"),
        ("UntaggedBase", 1, "FROM a"),
        ("UntaggedBase", 1, "FROM host:5000/a:latest"),
        ("AptUpdateAlone", 2, "FROM a:1\nRUN apt-get update"),
        ("AptInstallWithoutUpdate", 2, "FROM a:1\nRUN apt-get install -y x"),
        ("AptAsks", 2, "FROM a:1\nRUN apt-get update && apt-get install x && rm -r /var/lib/apt/lists/*"),
        ("AptListsKept", 2, "FROM a:1\nRUN <<E\napt-get -qq update\napt-get install -y x\nE"),
        ("PreferCopy", 2, "FROM a:1\nADD x /y"),
        ("EntrypointIgnoresArguments", 2, 'FROM a:1\nENTRYPOINT x\nCMD ["y"]'),
        ("CmdForArguments", 3, 'FROM a:1\nENTRYPOINT ["x"]\nCMD y'),
        ("EffectLost", 2, "FROM a:1\nRUN cd /x"),
        ("EffectLost", 2, "FROM a:1\nRUN export A=b"),
        ("SudoInRun", 2, "FROM a:1\nRUN a && sudo b"),
        ("ManyLayers", 2, "FROM a:1\nRUN a\nRUN b\nRUN c\nUSER x"),
        ("DependenciesAfterSources", 3, "FROM a:1\nCOPY . .\nRUN npm ci"),
        ("RootUser", 1, "FROM a:1\nRUN x"),
        ("RootUser", 3, "FROM a:1\nUSER x\nUSER root"),
        ("RootUser", 2, "FROM a:1 AS b\nUSER 0:0\nFROM b"),
        ("JSONFormBroken", 2, "FROM a:1\nCMD ['a']"),
        ("DirectiveTooLate", 2, "# hi\n# escape=`\nFROM a:1"),
        ("TypographicQuotes", 2, "FROM a:1\nENV a=“b”"),
        ("TypographicQuotes", 2, "FROM a:1\nRUN echo ”b c”"),
        ("TypographicQuotes", 3, "FROM a:1\nCOPY x \\\n “y z” /"),
        ("TrailingComment", 2, "FROM a:1\nUSER a # b"),
        ("TrailingComment", 2, "FROM a:1\nENV a b # c"),
        ("TrailingComment", 2, "FROM a:1\nARG a # b"),
        ("TrailingComment", 3, "FROM a:1\nCOPY x \\\n /y/ # d"),
        ("NoShellInExecForm", 2, 'FROM a:1\nCMD ["echo", "$HOME"]'),
        ("NoShellInExecForm", 2, 'FROM a:1\nRUN ["a", "&&", "b"]'),
        ("EmptyCommand", 2, "FROM a:1\nRUN"),
        ("CheckOptionInvalid", 1, "# check=nonsense\nFROM a:1"),
    ],
)
def test_rule_finds_what_it_is_for(code: str, line: int, text: str) -> None:
    assert (code, line) in codes(text)
    warned = next(warned for warned in found(text) if warned.code == code)
    assert warned.hint or code == "EmptyCommand"
    assert (warned.message + warned.hint).isprintable()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("FromAsCasing", "From a:1 aS b"),
        ("TrailingComment", "FROM a:1\nRUN a # b\nLABEL a='b # c' d=#e"),
        ("NoShellInExecForm", 'FROM a:1\nCMD ["/bin/sh", "-c", "echo $HOME"]\nRUN ["awk", "{print $1}"]'),
        ("TypographicQuotes", "FROM a:1\n# “x”\nRUN echo \"“x”\" '“y”' don’t\nLABEL a=it’s"),
        ("JSONArgsRecommended", 'FROM a:1\nSHELL ["a"]\nCMD x'),
        ("UndefinedVar", "FROM a:1\nCOPY $x /y"),
        ("UndefinedVar", "FROM scratch\nENV a=$PATH b='$c' d=\\$e f=${g:-h} i=$HTTP_PROXY"),
        ("UndefinedVar", "FROM scratch AS b\nENV x=1\nFROM b\nUSER $x"),
        ("UndefinedVar", "FROM scratch\nRUN echo $x"),
        ("UndefinedArgInFrom", "FROM a:1 AS b\nFROM --platform=$BUILDPLATFORM ${x:-b}"),
        ("WorkdirRelativePath", "FROM a:1\nWORKDIR /x\nWORKDIR y"),
        ("WorkdirRelativePath", "FROM a:1\nWORKDIR $x"),
        ("SecretsUsedInArgOrEnv", "FROM a:1\nENV PUBLIC_KEY=1 TOKEN_VERSION=2 KEYS=3 AUTHOR=4"),
        ("InvalidDefaultArgInFrom", "ARG V=1\nARG W=$V\nFROM a:$W"),
        ("InvalidDefaultArgInFrom", "ARG V=${TARGETPLATFORM#linux/}\nARG V=${V:+no}\nFROM a-$V"),
        ("InvalidDefaultArgInFrom", "ARG V\nFROM ${V:?m}"),
        ("UndefinedVar", "FROM golang:1\nENV a=$GOPATH"),
        ("AptInstallWithoutUpdate", "FROM a:1\nRUN xx-apt-get install -y x"),
        ("AptInstallWithoutUpdate", "FROM a:1\nRUN dpkg -i x && apt-get install -fy"),
        ("FromPlatformFlagConstDisallowed", "FROM --platform=linux/arm64 a:1 AS build-arm64"),
        ("InvalidDefinitionDescription", "# something\nFROM a:1 AS b"),
        ("InvalidDefinitionDescription", "# check=experimental=all\n# b builds\nFROM a:1 AS b"),
        ("UntaggedBase", "FROM a@sha256:" + "a" * 64),
        ("UntaggedBase", "FROM scratch AS b\nFROM b"),
        (
            "AptListsKept",
            "FROM a:1\nRUN --mount=type=cache,target=/var/lib/apt apt-get update && apt-get install -y x",
        ),
        ("PreferCopy", "FROM a:1\nADD x.tar.gz https://h/x /y/"),
        ("ManyLayers", "FROM a:1\nRUN a\nUSER b\nRUN c\nRUN d"),
        ("DependenciesAfterSources", "FROM a:1\nCOPY package.json .\nRUN npm ci\nCOPY . .\nRUN npm test"),
        ("EffectLost", "FROM a:1\nRUN cd /x && make"),
        ("RootUser", "FROM a:1 AS b\nUSER x\nFROM b"),
    ],
)
def test_rule_leaves_alone_what_is_right(code: str, text: str) -> None:
    assert code not in [one for one, _ in codes(text)]


def test_skipped_rules_are_silent_for_the_file() -> None:
    text = "FROM a\nMAINTAINER x\nWORKDIR y\n"
    all_of = {code for code, _ in codes(text)}
    assert all_of == {"UntaggedBase", "MaintainerDeprecated", "WorkdirRelativePath", "RootUser"}
    skipped = {code for code, _ in codes("# check=skip=UntaggedBase, RootUser;error=true\n" + text)}
    assert skipped == {"MaintainerDeprecated", "WorkdirRelativePath"}
    assert codes("# check=skip=all\n" + text) == []


def test_skipped_rules_are_silent_for_one_instruction() -> None:
    text = "FROM a:1\nUSER u\n# check=skip=LegacyKeyValueFormat\nENV a b\nENV c d\n"
    assert codes(text) == [("LegacyKeyValueFormat", 5)]


def test_findings_are_errors_where_the_file_asks_for_it() -> None:
    assert as_errors(parse(b"# check=error=true;skip=x\nFROM a"))
    assert not as_errors(parse(b"# check=error=false\nFROM a"))
    assert not as_errors(parse(b"FROM a"))
    assert parse_options("skip=A, B;experimental=all;error=1") == Options(
        skip=("A", "B"), experimental=("all",), error=True
    )


def test_habits_are_left_out_where_a_build_asks_for_docker_rules_alone() -> None:
    assert [warned.code for warned in found("FROM a\nCMD x", with_habits=False)] == ["JSONArgsRecommended"]


def test_ignored_file_is_told_where_the_ignore_file_is_known() -> None:
    text = "FROM a:1\nUSER u\nCOPY x y /z/\nCOPY --from=b y /z/\nADD https://h/y $y /z/\n"
    warned = found(text, ignored=lambda path: path == "y")
    assert [(one.code, one.spot.line) for one in warned] == [("CopyIgnoredFile", 3)]


@pytest.mark.parametrize(
    "data",
    [
        b"ARG x=" + b"$x" * 30_000 + b"\nFROM a:" + b"$x" * 30_000,
        b"FROM scratch\n" + b"".join(b"ENV v%d=$w%d\n" % (i, i) for i in range(9000)),
        b"".join(b"FROM scratch AS s%d\nENV a%d=1\n" % (i, i) for i in range(4900)),
        b"FROM scratch\n" + b"# check=skip=x\nENV a $b\n" * 9000,
        b"FROM a\nRUN apt-get " + b"--x " * 15_000 + b"nothing",
        b"FROM a\nRUN " + b"apt-get update;" * 4000,
        b"FROM a\nCMD [" + b"a," * 30_000,
        b"FROM a\nCOPY [" + b"a ," * 20_000 + b"\n",
        b"FROM a\nRUN " + b"'" * 60_001,
        b"FROM a\nENV a=" + b'"\\' * 30_000,
        b"FROM a\nLABEL a=$" + b"x" * 60_000,
        b"FROM a\nHEALTHCHECK --interval=" + b"1h" * 30_000 + b" CMD x",
        b"FROM a\nCOPY --chmod=" + b"u=r," * 15_000 + b" a b",
        b"FROM " + b"a/" * 30_000,
        b"FROM a\nRUN --mount=" + b"target=/x," * 6000 + b" a",
        b"#" + b" " * 60_000 + b"x\nFROM a",
    ],
    ids=lambda data: data[:20].decode(),
)
def test_checks_take_bounded_time(data: bytes) -> None:
    began = time.process_time()
    try:
        check(parse(data))
    except Exception as error:
        assert type(error).__name__ == "DockerfileFault", error
    assert time.process_time() - began < 10
