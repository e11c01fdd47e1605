"""Variables and quotes of a Dockerfile's words: each form, each refusal with its place, an enemy's texts."""

from __future__ import annotations

import time

import pytest

from image.dockerfile.words import (
    MAX_VALUES,
    WordFault,
    expand,
    expand_heredoc,
    expand_raw,
    expand_words,
    expanded,
)

ENV = {
    "home": "/srv/app",
    "empty": "",
    "name": "größe",
    "path": "a/b/c.tar.gz",
    "spaced": " p  q ",
    "star": "a*b*c",
    "lines": "one\ntwo\nthree",
    "url": "http://x.org/y",
}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("", ""),
        ("$home/bin", "/srv/app/bin"),
        ("${home}bin", "/srv/appbin"),
        ("$homebin", ""),
        ("$name", "größe"),
        ("$größe!", "!"),
        ("a$", "a$"),
        ("a$.b", "a$.b"),
        ("$$home", "home"),
        ("$1st", "st"),
        ("${12}x", "x"),
        ("$?$#$@", ""),
        ("\\$home", "$home"),
        ("\\\\$home", "\\/srv/app"),
        ("a\\ b\\n", "a bn"),
        ("a\\", "a"),
        ("'$home \\x'", "$home \\x"),
        ('"$home \\" \\$ \\\\ \\n"', '/srv/app " $ \\ \\n'),
        ("\"it's\"'\"'", "it's\""),
        ("${none:-w}${none-w}${empty:-w}${empty-w}.", "www."),
        ("${home:-w}${home-w}", "/srv/app/srv/app"),
        ("${none:+w}${none+w}${empty:+w}${empty+w}${home:+w}", "ww"),
        ("${home:?w}${home?w}${empty?w}", "/srv/app/srv/app"),
        ("${none:-$home}", "/srv/app"),
        ("${none:-${empty:-${home}x}y}", "/srv/appxy"),
        ("${none:-'}'\"}\"\\}}", "}}}"),
        ("${none:-a:b/c#d}", "a:b/c#d"),
        ("${path#*/}", "b/c.tar.gz"),
        ("${path##*/}", "c.tar.gz"),
        ("${path%.*}", "a/b/c.tar"),
        ("${path%%.*}", "a/b/c"),
        ("${path#?/}", "b/c.tar.gz"),
        ("${path#x}", "a/b/c.tar.gz"),
        ("${path#}${path%}", "a/b/c.tar.gz" * 2),
        ("${path/\\//-}", "a-b/c.tar.gz"),
        ("${path//\\//-}", "a-b-c.tar.gz"),
        ("${path//./}", "a/b/ctargz"),
        ("${path/b*/x}", "a/x"),
        ("${path//?a?/X}", "a/b/c.X.gz"),
        ("${url/http:\\/\\//https:\\/\\/}", "https:\\/\\/x.org/y"),
        ("${star//\\*/+}", "a+b+c"),
        ("${star%%\\**}", "a"),
        ("${lines#*o}", "ne\ntwo\nthree"),
        ("${lines##*e}", "\ntwo\nthree"),
        ("${lines//?*/x}", "x\nx\nx"),
        ("${empty/x/y}${none//x/y}", ""),
        ("a<b<<c", "a<b<<c"),
    ],
)
def test_word_is_expanded_as_the_reference_says(text: str, result: str) -> None:
    assert expand(text, ENV.get) == result


@pytest.mark.parametrize(
    ("text", "offset", "says"),
    [
        ("ab'c", 2, "' is opened"),
        ('a"$home', 1, '" is opened'),
        ("x${home", 1, "} is missing"),
        ("${none:-a", 0, "} is missing"),
        ("${none:-'a}", 8, "' is opened"),
        ("${path/a}", 0, "/ is missing"),
        ("ab${}", 2, "name is missing"),
        ("${{a}}", 0, "name is missing"),
        ("${:-a}", 0, "name is missing"),
        ("${home.x}", 0, "no form"),
        ("${home:=x}", 0, "no form"),
        ("${home:#x}", 0, "no form"),
        ("${none?}", 0, "none: it must be set"),
        ("${empty:?}", 0, "empty: it must not be empty"),
        ("a${none:?say $home}", 1, "none: say /srv/app"),
        ("${path#\\x}", 0, "means nothing"),
        ("$home ${none:-${b}", 6, "} is missing"),
    ],
)
def test_word_that_is_wrong_is_refused_at_its_character(text: str, offset: int, says: str) -> None:
    with pytest.raises(WordFault, match=says.replace("?", r"\?")) as caught:
        expand(text, ENV.get)
    assert caught.value.offset == offset


def test_word_with_the_other_escape_takes_a_backslash_as_it_is() -> None:
    assert expand("C:\\x`$home`` ${none:-`}}", ENV.get, escape="`") == "C:\\x$home` }"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  a b\tc ", ("a", "b", "c")),
        ("a${spaced}b", ("a", "p", "q", "b")),
        ('a"${spaced}"b', ("a p  q b",)),
        ("a\\ b 'c d'", ("a b", "c d")),
        ('"" x', ("x",)),
        ("80 ${none:-81 82}/tcp", ("80", "81", "82/tcp")),
        ("pre${none:-8}0", ("pre80",)),
        ("<< EOF x", ("<< EOF", "x")),
        ("", ()),
    ],
)
def test_words_are_split_where_nothing_is_quoted(text: str, words: tuple[str, ...]) -> None:
    assert expand_words(text, ENV.get) == words


def test_words_that_people_read_keep_quotes_and_what_is_not_set() -> None:
    text = "echo \"$home\" '$none' $none ${none:-$home} ${none//a/b} ${none}"
    shown = "echo \"/srv/app\" '$none' $none ${none:-/srv/app} ${none//a/b} ${none}"
    assert expand_raw(text, ENV.get) == shown


def test_heredoc_is_expanded_without_regard_to_quotes() -> None:
    assert expand_heredoc('it\'s "$home"\n\\$home \\\\ \\\nx', ENV.get) == 'it\'s "/srv/app"\n$home \\ \nx'


def test_expansion_tells_which_variables_were_read() -> None:
    result = expanded("$home ${none:-$empty} ${other+x} '$quoted'", ENV.get)
    assert result.used == {"home", "empty"} and result.unset == {"none", "other"}


def test_variables_that_double_each_other_are_stopped_b9() -> None:
    value = "x" * 1024
    with pytest.raises(WordFault, match=f"more than {MAX_VALUES} characters"):
        for _ in range(40):
            value = expand("$a$a", {"a": value}.get)


def test_variables_deep_in_each_other_are_refused_b9() -> None:
    assert expand("${a:-" * 100 + "x" + "}" * 100, {}.get) == "x"
    with pytest.raises(WordFault, match="deep in each other"):
        expand("${a:-" * 10_000 + "x" + "}" * 10_000, {}.get)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${v//a*a*a*b/x}", "a" * 100_000),
        ("${v%%*a*a*a*b}", "a" * 100_000),
        ("${v//?a?a?a?ab/x}", "a" * 1_000_000),
        ("${v//a/bb}" * 1000, "a" * 1_000_000),
        ("${v//*/x}", "a\n" * 500_000),
        ("${v##*x}" * 10_000, "a" * 100_000),
        ("${v/" + "?a" * 30_000 + "b/x}", "a" * 1_000_000),
        ("$" * 1_000_000, ""),
        ("'" * 1_000_000, ""),
        ("\\a" * 500_000, ""),
    ],
)
def test_text_made_to_be_slow_is_expanded_or_refused_soon(text: str, value: str) -> None:
    started = time.process_time()
    try:
        expand(text, {"v": value}.get)
    except WordFault as fault:
        assert "takes too long" in fault.message or "more than" in fault.message
    assert time.process_time() - started < 3.0


def test_heredoc_of_many_megabytes_without_variables_is_expanded() -> None:
    text = "some line of text, 'quoted' or not\n" * 200_000
    assert expand_heredoc(text, {}.get) == text
