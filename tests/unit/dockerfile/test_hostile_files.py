"""What is no Dockerfile, or is an enemy's, is refused with one line that names the place and the mend."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from image.dockerfile.check import check
from image.dockerfile.faults import DockerfileFault
from image.dockerfile.instruction import Copy, Label, Spot
from image.dockerfile.lines import MAX_LINE, MAX_SIZE
from image.dockerfile.parser import parse


def refused(text: str | bytes, line: int, column: int, said: str) -> DockerfileFault:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(DockerfileFault) as caught:
        parse(data, file="dir/Dockerfile")
    fault = caught.value
    assert (fault.spot.line, fault.spot.column) == (line, column), str(fault)
    assert str(fault).startswith(f"dir/Dockerfile:{line}:{column}: ")
    assert said in str(fault)
    assert str(fault).isprintable()
    return fault


# -- B1 -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "\n\n", "# a comment\n", "# syntax=a\n# escape=`\n", "  \n# x\n \n"])
def test_file_without_instructions_is_refused(text: str) -> None:
    refused(text, max(1, text.count("\n")), 1, "no instructions")


def test_file_without_from_is_refused() -> None:
    refused("ARG a=1\nARG b\n", 2, 1, "no FROM")


def test_instruction_before_from_is_refused() -> None:
    refused("ARG a=1\n  RUN x\nFROM a\n", 2, 3, "RUN before the first FROM")


# -- B2 -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "column", "mend"),
    [
        ("RUNN x", 1, "Did you mean RUN?"),
        ("ENTRYPIONT x", 1, "Did you mean ENTRYPOINT?"),
        ("cpoy a b", 1, "Did you mean COPY?"),
        ("FRMO a", 1, "Did you mean FROM?"),
        ("FROM[alpine]", 5, "Put a space after FROM: FROM [alpine]"),
        ("FROMalpine", 5, "Put a space after FROM: FROM alpine"),
        ("WORKDIR/x", 8, "Put a space after WORKDIR: WORKDIR /x"),
        ("  workdir/x", 10, "Put a space after WORKDIR"),
        ("COPY--from=a b c", 5, "Put a space after COPY: COPY --from=a"),
        ('CMD["a"]', 4, "Put a space after CMD"),
        ("ENVa=b", 4, "Put a space after ENV"),
        ("RUN\u00a0x", 4, "no plain space"),
        ("apt-get install x", 1, "RUN apt-get"),
        ("// a comment", 1, "begins with #"),
        ("\x1b[31mRUN x", 1, "no instruction"),
    ],
)
def test_unknown_instruction_gets_its_place_and_the_nearest_keyword(
    line: str, column: int, mend: str
) -> None:
    assert mend in str(refused(f"FROM a\n{line}\n", 2, column, "no instruction"))


# -- B3 -----------------------------------------------------------------------------------------------
def test_byte_order_mark_is_no_part_of_the_file() -> None:
    assert parse(b"\xef\xbb\xbfFROM a").stages[0].head.spot == Spot(line=1, column=1)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_refused_by_its_name(encoding: str) -> None:
    fault = refused("FROM alpine\nRUN x\n".encode(encoding), 1, 2 if encoding == "utf-16-le" else 1, "UTF-16")
    assert "UTF-8" in fault.hint


def test_nul_is_refused_where_it_stands() -> None:
    refused(b"FROM alpine:3\nRUN echo \0 everything else\nRUN is good text\n", 2, 10, "NUL")


def test_lone_carriage_returns_as_line_ends_are_refused() -> None:
    refused(b"FROM a\rRUN x\r", 1, 7, "carriage returns")


def test_lone_carriage_return_within_a_line_is_a_blank_as_for_docker() -> None:
    assert parse(b"FROM\ra\r\nUSER\rx\r\n").stages[0].head.image == "a"


def test_crlf_lines_continue_and_end_like_others() -> None:
    found = parse(b"# escape=`\r\nFROM a\r\nRUN x `\r\n  y\r\n").stages[0].instructions[0]
    assert found.source == "RUN x   y"


def test_invalid_utf_8_is_refused_where_it_would_go_into_the_image() -> None:
    refused(b"FROM a\nLABEL x=\\\n  J\xf6rg\n", 3, 4, "0xf6")
    refused(b"FROM a\nRUN <<E\nJ\xf6rg\nE\n", 3, 2, "0xf6")


def test_invalid_utf_8_in_a_comment_disturbs_nobody() -> None:
    parse(b"# J\xf6rg\nFROM a\nRUN x \\\n  # J\xf6rg\n y\n")


# -- B4 -----------------------------------------------------------------------------------------------
def test_long_line_is_refused() -> None:
    refused(b"FROM a\nRUN " + b"x" * MAX_LINE, 2, 1, "more than 65535 bytes")
    parse(b"FROM a\nRUN " + b"x" * (MAX_LINE - 4))
    refused(b"FROM a\nRUN " + "é".encode() * (MAX_LINE // 2), 2, 1, "more than 65535 bytes")


@pytest.mark.parametrize(
    "data",
    [
        b"FROM a\nRUN " + b"x" * (10 << 20),
        b"FROM a\nRUN x" + b" \\\n" * 1_000_000,
        b"FROM a\n" + b"RUN x\n" * 100_000,
        b"FROM a\n" + b"RUN <<E\nE\n" * 100_000,
        b"FROM a\nRUN " + b"<<E " * 16_000 + b"\n" + b"E\n" * 16_000,
        b"FROM a\nVOLUME " + b"/x " * 20_000,
        b"FROM a\nENV " + b"a=b " * 16_000,
        b"FROM a\nCMD " + b"[" * 60_000,
        b"FROM a\nCOPY " + b"<<A " * 16_000 + b"/x\n" + b"A\n" * 10,
        b"FROM a\nRUN " + b"--mount=type=tmpfs,target=/x " * 1000 + b"x",
        b"FROM a\n" + b"ONBUILD " * 8000 + b"RUN x\n",
    ],
    ids=lambda data: data[:24].decode(),
)
def test_sizes_are_bounded_in_time_and_memory(data: bytes) -> None:
    tracemalloc.start()
    began = time.process_time()
    try:
        found = parse(data)
        check(found)
    except DockerfileFault as fault:
        assert len(str(fault)) < 500
    spent, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent < 10, f"{spent:.1f} s"
    assert peak < 64 * MAX_SIZE + len(data) * 4, f"{peak} bytes"


def test_hundred_thousand_instructions_are_refused_at_the_first_too_many() -> None:
    refused(b"FROM a\n" + b"RUN x\n" * 100_000, 10_001, 1, "more than 10000 instructions")


def test_large_file_is_refused_unread() -> None:
    refused(b"FROM a\n" + b"#\n" * MAX_SIZE, 1, 1, f"more than {MAX_SIZE}")


# -- B5 -----------------------------------------------------------------------------------------------
def test_heredoc_without_end_is_refused_where_it_begins() -> None:
    assert "EOF alone" in str(refused("FROM a\nRUN cat <<EOF\nx\n EOF\n", 2, 9, "no end"))
    refused("FROM a\nCOPY <<A <<B /x/\nA\n", 2, 10, "'B' has no end")


@pytest.mark.parametrize(
    ("line", "column"), [('ENV a="b', 7), ("LABEL a=b c='d", 13), ("ARG a='b", 7), ("WORKDIR /a'b", 11)]
)
def test_quote_without_end_is_refused_where_it_opens(line: str, column: int) -> None:
    refused(f"FROM a\n{line}\n", 2, column, "never closed")


def test_quote_without_end_on_a_continued_line_is_shown_there() -> None:
    refused('FROM a\nENV a=1 \\\n    b="2\n', 3, 7, "never closed")


def test_flag_with_a_quote_without_end_is_refused() -> None:
    refused('FROM a\nRUN --mount="type=cache,target=/x true\n', 2, 13, "never closed")


@pytest.mark.parametrize("name", ["/", "../x", "a/b", ".", ".."])
def test_heredoc_whose_name_can_not_be_a_file_is_refused(name: str) -> None:
    refused(f"FROM a\nCOPY <<{name} /x/\n{name}\n", 2, 6, "can't be a file's name")


def test_heredoc_forms_keep_what_they_mean() -> None:
    text = "FROM a\nCOPY <<\"A\" <<-B <<'C' /x/\n$a\nA\n\tb\n\t\tb\n\tB\nc\n\tC\nC\n"
    found = parse(text.encode()).stages[0].instructions[0]
    assert isinstance(found, Copy)
    assert [(doc.name, doc.content, doc.expand, doc.chomp) for doc in found.heredocs] == [
        ("A", "$a\n", False, False),
        ("B", "b\nb\n", True, True),
        ("C", "c\n\tC\n", False, False),
    ]


@pytest.mark.parametrize("text", ["FROM a\nRUN x \\", "FROM a\nRUN x \\\n\n", "FROM a\nRUN x \\\n# c"])
def test_continuation_at_the_end_of_the_file_ends_there(text: str) -> None:
    assert parse(text.encode()).stages[0].instructions[0].source == "RUN x"


def test_continuation_of_nothing_is_refused() -> None:
    refused("FROM a\n\\\n\n", 2, 1, "continues nothing")


# -- B6 -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("# escape=`\n#escape=\\\nFROM a", 2, 1, "a second escape"),
        ("# syntax=a\n# Syntax=b\nFROM a", 2, 1, "a second syntax"),
        ("# escape=x\nFROM a", 1, 10, "neither"),
        ("# escape=``\nFROM a", 1, 10, "neither"),
    ],
)
def test_directive_twice_or_wrong_is_refused(text: str, line: int, column: int, said: str) -> None:
    refused(text, line, column, said)


@pytest.mark.parametrize(
    "text", ["# hi\n# escape=`\nFROM a\n", "\n# escape=`\nFROM a\n", "# x=1\n# escape=`\nFROM a"]
)
def test_directive_that_comes_too_late_is_a_comment_and_told(text: str) -> None:
    found = parse(text.encode())
    assert found.escape == "\\"
    assert [(w.code, w.spot.line) for w in found.warnings] == [("DirectiveTooLate", 2)]


# -- B7: what can be told before variables are known --------------------------------------------------
@pytest.mark.parametrize(
    ("line", "column", "said"),
    [
        ("FROM scratch:1", 6, "scratch has no tags"),
        ("FROM Alpine", 6, "lower case"),
        ("FROM a:b:c", 6, "invalid image reference"),
        ("FROM a@sha256:1", 6, "sha256"),
        ("FROM --platform=linux/ a", 17, "no platform"),
        ("FROM --platform=beos a", 17, "neither an operating system nor"),
        ("FROM --platform= a", 17, "needs a value"),
        ("FROM", 1, "needs an image"),
        ("FROM a as", 8, "AS needs a name"),
        ("FROM a b", 8, "FROM a AS b"),
        ("FROM a AS 1", 11, "can't name a stage"),
        ("FROM a AS b c", 13, "one name"),
        ("FROM a # base", 8, "line of its own"),
    ],
)
def test_from_that_no_build_can_follow_is_refused(line: str, column: int, said: str) -> None:
    refused(f"{line}\n", 1, column, said)


def test_from_with_variables_waits_for_what_they_come_to() -> None:
    head = parse(b"ARG X\nFROM --platform=$P ${X:?m} AS b\nFROM B\n").stages[0].head
    assert (head.image, head.platform, head.name) == ("${X:?m}", "$P", "b")


# -- B12 ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("flag", "column", "said"),
    [
        ("--chown=4294967296", 14, "above 4294967294"),
        ("--chown=99999999999999999999", 14, "above 4294967294"),
        ("--chown=-1", 14, "is no user"),
        ("--chown=a:b:c", 16, "is no group"),
        ("--chown=1:-1", 16, "is no group"),
        ('--chown="a b"', 14, "is no user"),
        ("--chown=", 14, "needs a value"),
        ("--chown=:", 14, "names no user"),
        ("--chmod=99999", 14, "no mode"),
        ("--chmod=77777", 14, "above 7777"),
        ("--chmod=u=q", 14, "no mode"),
        ("--chmod=-1", 14, "no mode"),
    ],
)
def test_owner_and_mode_that_no_file_can_have_are_refused(flag: str, column: int, said: str) -> None:
    refused(f"FROM a\nCOPY {flag} x y\n", 2, column, said)


@pytest.mark.parametrize(
    "flag", ["--chown=1:2", "--chown=a.b-c:d_", "--chown=$U:$G", "--chmod=0755", "--chmod=u=rwX,go-w"]
)
def test_owner_and_mode_are_taken_as_written(flag: str) -> None:
    found = parse(f"FROM a\nCOPY {flag} x y\n".encode()).stages[0].instructions[0]
    assert isinstance(found, Copy)
    assert flag.partition("=")[2] in (found.owner, found.mode)


# -- B20, B21, B22, B23, B24, B25, B26 ----------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "column", "said"),
    [
        ("EXPOSE 0", 8, "port 0"),
        ("EXPOSE 80 65536", 11, "port 65536"),
        ("EXPOSE 1-70000", 10, "port 70000"),
        ("EXPOSE 9-8", 8, "ends before it begins"),
        ("EXPOSE 80/icmp", 11, "no protocol"),
        ("EXPOSE abc", 8, "no port"),
        ("EXPOSE ٣", 8, "no port"),
        ("EXPOSE", 1, "needs a port"),
        ('VOLUME ""', 8, "without a path"),
        ('VOLUME [""]', 8, "without a path"),
        ("VOLUME", 1, "needs a path"),
        ("VOLUME /", 8, "no place"),
        ("VOLUME /a //./", 11, "no place"),
        ("VOLUME /proc", 8, "no place"),
        ('VOLUME ["/proc/1"]', 10, "no place"),
        ("VOLUME" + " /x" * 10_000, 1, "more than 1000 words"),
        ("HEALTHCHECK --interval=-1s CMD x", 24, "no duration"),
        ("HEALTHCHECK --interval=1ns CMD x", 24, "out of range"),
        ("HEALTHCHECK --timeout=1e300h CMD x", 23, "no duration"),
        ("HEALTHCHECK --timeout=NaN CMD x", 23, "no duration"),
        ("HEALTHCHECK --timeout=99999999h CMD x", 23, "out of range"),
        ("HEALTHCHECK --interval=30 CMD x", 24, "Write 30s"),
        ("HEALTHCHECK --interval=$I CMD x", 24, "expands no variables"),
        ("EXPOSE 80 # web", 11, "line of its own"),
        ("ENV a=b # c", 9, "line of its own"),
        ("HEALTHCHECK --retries=-1 CMD x", 23, "no count"),
        ("HEALTHCHECK --retries=x CMD x", 23, "no count"),
        ("HEALTHCHECK NONE x", 18, "takes nothing"),
        ("HEALTHCHECK CMD", 13, "no command"),
        ("HEALTHCHECK curl x", 13, "HEALTHCHECK CMD curl x"),
        ("STOPSIGNAL 0", 12, "not in 1–64"),
        ("STOPSIGNAL 999", 12, "not in 1–64"),
        ("STOPSIGNAL SIGFOO", 12, "no signal"),
        ("STOPSIGNAL SIGRTMIN+99", 12, "no signal"),
        ("SHELL []", 7, "names no shell"),
        ("SHELL /bin/sh -c", 7, "JSON form"),
        ('ENTRYPOINT ["a",1]', 17, "1 is no string"),
        ('CMD ["a", ["b"]]', 11, "is no string"),
        ('CMD ["a", null]', 11, "is no string"),
        ('CMD ["a", "b"', 14, "never closed. End it with ]"),
        ('CMD ["a", "b]', 11, 'a " is never closed'),
        ("CMD [“a”, “b”]", 6, "typographic quote"),
        ("ENV =b", 5, "no name before the ="),
        ("ENV a=1 =b", 9, "no name before the ="),
        ('ENV ""=b', 5, "no name before the ="),
        ("ARG =b", 5, "no name before the ="),
        ("ENV a", 5, "Write ENV a=value"),
        ("ENV a=b c", 9, "has no ="),
        ("ENV a=“b c”", 7, "typographic quote"),
        ("LABEL a", 7, "needs a name and a value"),
        ("ONBUILD ONBUILD RUN x", 9, "can't be a trigger"),
        ("ONBUILD FROM x", 9, "can't be a trigger"),
        ("ONBUILD maintainer x", 9, "can't be a trigger"),
        ("ONBUILD RUNN x", 9, "no instruction"),
        ("ONBUILD COPY x", 14, "a source and a target"),
        ("ONBUILD", 1, "needs an instruction"),
    ],
)
def test_instruction_that_can_not_be_meant_is_refused_where_it_is_wrong(
    line: str, column: int, said: str
) -> None:
    refused(f"FROM a\n{line}\n", 2, column, said)


def test_labels_with_odd_content_are_taken_and_nul_is_not() -> None:
    found = parse(b'FROM a\nLABEL a=\'\x1b[31m\' "b c"="d\\\n  e"\n').stages[0].instructions[0]
    assert isinstance(found, Label)
    assert [pair.value for pair in found.pairs] == ["'\x1b[31m'", '"d  e"']
    refused(b"FROM a\nLABEL a=good and long enough\0x\n", 2, 29, "NUL")


def test_label_of_a_mebibyte_is_refused() -> None:
    refused(b"FROM a\nLABEL a=" + b"x" * (1 << 20), 1, 1, "bytes")


def test_json_escape_of_nul_stays_within_its_word() -> None:
    with pytest.raises(DockerfileFault, match="NUL"):
        parse(b'FROM a\nCMD ["a\\u0000b"]\n')
