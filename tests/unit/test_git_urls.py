"""URLs of git repositories as Docker writes them, and what no URL of one may say."""

from __future__ import annotations

import pytest

from image.context.gitcalls import Reach, environment, refusal, target, token_header, wrapped
from image.context.gitmodules import Module, gitlinks, modules, url_of
from image.context.giturl import GitUrl, parse
from model.errors import Forbidden, InvalidInput, NotFound, Unavailable

GOOD: dict[str, tuple[str, str, int, str, str]] = {
    "https://example.com/a/b.git": ("https://example.com/a/b.git", "example.com", 443, "", ""),
    "https://example.com/a.git#main": ("https://example.com/a.git", "example.com", 443, "main", ""),
    "https://example.com/a.git#v1:dir/sub": (
        "https://example.com/a.git",
        "example.com",
        443,
        "v1",
        "dir/sub",
    ),
    "https://example.com/a.git#:dir/": ("https://example.com/a.git", "example.com", 443, "", "dir"),
    "http://u:p@host:8080/a.git#x": ("http://u:p@host:8080/a.git", "host", 8080, "x", ""),
    "git://host/a": ("git://host/a", "host", 9418, "", ""),
    "git@github.com:a/b.git": ("git@github.com:a/b.git", "github.com", 22, "", ""),
    "me@host:a/b#r:d": ("me@host:a/b", "host", 22, "r", "d"),
    "ssh://git@host:2222/a.git": ("ssh://git@host:2222/a.git", "host", 2222, "", ""),
    "HTTPS://host/a.git#refs/heads/x": ("https://host/a.git", "host", 443, "refs/heads/x", ""),
    "https://host/a.git?tag=v1": ("https://host/a.git", "host", 443, "refs/tags/v1", ""),
    "https://host/a.git?branch=b&subdir=d": ("https://host/a.git", "host", 443, "refs/heads/b", "d"),
    "https://host/a.git?ref=r": ("https://host/a.git", "host", 443, "r", ""),
    "https://host/a.git?token=x#r": ("https://host/a.git?token=x", "host", 443, "r", ""),
    "https://[2606:4700::1]/a.git": ("https://[2606:4700::1]/a.git", "2606:4700::1", 443, "", ""),
    "https://host/a.git#feature/ünï": ("https://host/a.git", "host", 443, "feature/ünï", ""),
}


@pytest.mark.parametrize(("text", "parts"), GOOD.items())
def test_git_url_has_repository_ref_and_folder(text: str, parts: tuple[str, str, int, str, str]) -> None:
    found = parse(text)
    assert (found.url, found.host, found.port, found.ref, found.folder) == parts


def test_git_url_query_says_more() -> None:
    found = parse("https://h/a.git?checksum=ABCDEF0&keep-git-dir=true&submodules=false")
    assert (found.commit, found.keep_git_dir, found.submodules) == ("abcdef0", True, False)
    plain = parse("https://h/a.git")
    assert (plain.commit, plain.keep_git_dir, plain.submodules) == ("", None, True)
    assert parse("https://me:secret@h/a.git").shown == "https://h/a.git"


@pytest.mark.parametrize(
    "text",
    [
        "ext::sh -c id", "ext::sh", "file:///etc", "/etc", "./a", "fd::3", "-u./evil", "--upload-pack=x",
        "-oProxyCommand=x@host:a", "ssh://-oProxyCommand=x/a", "ssh://a@-host/a", "git@-host:a", "-x@host:a",
        "https://", "https:///a", "https://host", "https://host/", "git@host:", "git@host:-a", "git@host://a",
        "https://host/a.git#-u./x", "https://host/a.git#--upload-pack=x", "https://host/a.git#a..b",
        "https://host/a.git#a b", "https://host/a.git#a~1", "https://host/a.git#a:../..",
        "https://host/a.git#a:/../x", "https://host/a.git#:%2e%2e/x", "https://host/a.git#a:.git",
        "https://host/a.git#a:d/.GIT/x", "https://host/a.git#@{-1}", "https://host/a.git#x.lock",
        "https://host/a.git?ref=-u", "https://host/a.git?tag=a&branch=b", "https://host/a.git?tag=a#b",
        "https://host/a.git?subdir=../x", "https://host/a.git?checksum=xyz", "https://host:99999/a.git",
        "https://ho st/a.git", "https://host/a.git\nx", "https://h\x00/a.git", "https://$(id)/a.git",
        "https://h/" + "a" * 9000, "https://h/a.git?keep-git-dir=perhaps", "http+unix://x/a.git",
        "ssh://us er@h/a", "ssh://u;id@h/a",
    ],
)  # fmt: skip
def test_git_url_that_says_more_than_a_place_is_refused_b19(text: str) -> None:
    with pytest.raises(InvalidInput) as failure:
        parse(text)
    assert "\n" not in str(failure.value)


def settings(env: dict[str, str]) -> dict[str, str]:
    return {
        env[f"GIT_CONFIG_KEY_{n}"]: env[f"GIT_CONFIG_VALUE_{n}"] for n in range(int(env["GIT_CONFIG_COUNT"]))
    }


def test_git_runs_in_an_environment_of_its_own_b19() -> None:
    url = parse("https://h/a.git")
    env = environment(url, Reach(addresses=("1.1.1.1", "2606::1"), header="Basic x"), "/home")
    found = settings(env)
    assert env["GIT_ALLOW_PROTOCOL"] == "https:http:git:ssh" and env["GIT_CONFIG_NOSYSTEM"] == "1"
    assert found["protocol.allow"] == "never" and "protocol.file.allow" not in found
    assert found["core.hooksPath"] == "/dev/null" and found["http.followRedirects"] == "false"
    assert found["http.curloptResolve"] == "h:443:1.1.1.1,[2606::1]"
    assert found["http.extraHeader"] == "Authorization: Basic x"
    assert "SSH_AUTH_SOCK" not in env and "GIT_SSH_COMMAND" not in env
    local = settings(environment(None, Reach(header="Basic x"), "/home"))
    assert "http.extraHeader" not in local


def test_ssh_of_git_asks_nobody_and_goes_to_the_judged_address_b19() -> None:
    env = environment(
        parse("git@h:a"), Reach(addresses=("1.1.1.1",), agent="/s", known_hosts="/k k"), "/home"
    )
    command = env["GIT_SSH_COMMAND"]
    assert env["SSH_AUTH_SOCK"] == "/s" and command.startswith("ssh -F /dev/null ")
    for option in ("BatchMode=yes", "HostName=1.1.1.1", "HostKeyAlias=h", "'UserKnownHostsFile=/k k'"):
        assert f"-o {option}" in command


def test_url_of_gits_own_protocol_is_by_address() -> None:
    assert target(parse("git://h:99/a/b"), Reach(addresses=("::1",))) == "git://[::1]:99/a/b"
    assert target(parse("https://h/a.git"), Reach(addresses=("1.1.1.1",))) == "https://h/a.git"


def test_command_line_bounds_files_and_output() -> None:
    assert wrapped(["git", "x y"], 1000) == [
        "/bin/sh",
        "-c",
        'umask 022; ulimit -f 2; exec "$@"',
        "sh",
        "git",
        "x y",
    ]
    assert wrapped(["git"], 512, 9)[2].endswith('"$@" | head -c 9')


def test_token_becomes_a_login() -> None:
    assert token_header(b"abc\n") == "Basic eC1hY2Nlc3MtdG9rZW46YWJj"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"fatal: repository 'https://h/a.git/' not found\n", NotFound),
        (b"fatal: Could not resolve host: h", Unavailable),
        (b"fatal: could not read Username for 'https://h': terminal prompts disabled", Forbidden),
        (b"git@h: Permission denied (publickey).", Forbidden),
        (b"\x1b[31mweird\nfatal: \x1b[0mstrange words", Unavailable),
        (b"", Unavailable),
    ],
)
def test_words_of_git_are_told_for_people(said: bytes, kind: type[Exception]) -> None:
    error = refusal(parse("https://me:hidden@h/a.git"), said)
    assert type(error) is kind and "hidden" not in str(error) and str(error).isprintable()


# -- submodules ---------------------------------------------------------------------------------------
COMMIT = "a" * 40
CONFIG = (
    b"submodule.lib.path\nvendor/lib\0submodule.lib.url\n../lib.git\0submodule.x.y.path\nxy\0"
    b"submodule.x.y.url\nhttps://other/xy.git\0submodule.unlinked.path\nno\0submodule.unlinked.url\nfile:///etc\0"
)


def test_submodules_are_those_with_a_link_in_the_tree() -> None:
    links = gitlinks(b"commit " + COMMIT.encode() + b"       -", b"vendor/lib") | {"xy": COMMIT}
    parent = parse("https://h/me/a.git")
    found = modules(CONFIG, links, parent)
    assert [(one.path, url_of(one, parent).url) for one in found] == [
        ("vendor/lib", "https://h/me/lib.git"),
        ("xy", "https://other/xy.git"),
    ]


@pytest.mark.parametrize(
    ("parent", "relative", "url"),
    [
        ("https://h/me/a.git", "../b.git", "https://h/me/b.git"),
        ("https://h/me/a.git", "./b", "https://h/me/a.git/b"),
        ("https://h/me/a.git", "../../../../../b", "https://h/b"),
        ("git@h:me/a.git", "../b", "git@h:me/b"),
        ("ssh://git@h:22/a", "../b", "ssh://git@h:22/b"),
    ],
)
def test_relative_submodule_stays_at_its_host(parent: str, relative: str, url: str) -> None:
    assert url_of(Module(path="p", url=relative, commit=COMMIT), parse(parent)).url == url


@pytest.mark.parametrize(
    "url", ["file:///etc", "/etc", "ext::sh -c id", "--upload-pack=x", "git@-o:x", "../x#y:z"]
)
def test_submodule_from_where_nothing_is_fetched_is_refused_b19(url: str) -> None:
    with pytest.raises(InvalidInput, match="the submodule 'p'"):
        url_of(
            Module(path="p", url=url, commit=COMMIT),
            GitUrl(url="https://h/a", scheme="https", host="h", port=443),
        )
