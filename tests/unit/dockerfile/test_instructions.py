"""Every instruction with its forms and flags becomes the value that it means."""

from __future__ import annotations

import pytest

from image.dockerfile.faults import DockerfileFault
from image.dockerfile.instruction import (
    Add,
    AnyInstruction,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Label,
    Maintainer,
    Mount,
    Onbuild,
    Run,
    Shell,
    Spot,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from image.dockerfile.parser import parse, parse_trigger
from model.spec import ExecProbe, HealthCheck, ShellProbe


def one(text: str, escape: str = "") -> AnyInstruction:
    (found,) = parse(f"{escape}FROM a\n{text}\n".encode()).stages[0].instructions
    return found


def pairs(text: str, escape: str = "") -> list[tuple[str, str]]:
    found = one(text, escape)
    assert isinstance(found, Env | Label)
    return [(pair.key, pair.value) for pair in found.pairs]


# -- the file -----------------------------------------------------------------------------------------
def test_file_of_two_stages_is_read_whole() -> None:
    found = parse(
        b"#  Syntax = docker/dockerfile:1 \n#check=skip=all\n# hi\nARG V=1\nARG W\n"
        b"FROM --platform=$BUILDPLATFORM golang:$V AS Build\nRUN x\n\nFROM scratch\nCOPY --from=build /x /\n"
    )
    assert (found.syntax, found.check, found.escape) == ("docker/dockerfile:1", "skip=all", "\\")
    assert [arg.key for line in found.args for arg in line.args] == ["V", "W"]
    heads = [(stage.head.image, stage.head.name, stage.head.platform) for stage in found.stages]
    assert heads == [("golang:$V", "build", "$BUILDPLATFORM"), ("scratch", "", "")]
    assert [len(stage.instructions) for stage in found.stages] == [1, 1]


def test_continued_instruction_is_one_line_of_history_and_knows_its_lines() -> None:
    found = one("RUN a \\\n  # comment\n\n   b && \\\n c")
    assert found.source == "RUN a    b &&  c"
    assert (found.spot, found.last_line) == (Spot(line=2, column=1), 6)


def test_empty_line_within_a_continuation_is_warned_of() -> None:
    found = parse(b"FROM a\nRUN x \\\n\n  y\n")
    assert [(w.code, w.spot.line) for w in found.warnings] == [("NoEmptyContinuation", 3)]
    assert parse(b"FROM a\nRUN x \\\n#\n  y\n").warnings == ()


def test_escape_directive_changes_continuation_and_escapes() -> None:
    found = one("RUN dir c:\\ `\n  x", "# escape=`\n")
    assert isinstance(found, Run)
    assert found.command.text == "dir c:\\   x"
    assert pairs("ENV a=b` c d=\\", "# escape=`\n") == [("a", "b` c"), ("d", "\\")]


def test_escaped_escape_at_the_end_continues_nothing() -> None:
    assert len(parse(b"FROM a\nRUN x \\\\\nRUN y\n").stages[0].instructions) == 2


def test_comments_right_before_an_instruction_belong_to_it() -> None:
    stage = parse(b"FROM a\n# far\n\n# one\n# two\nRUN x\nRUN y\n").stages[0]
    assert [found.comments for found in stage.instructions] == [("one", "two"), ()]


# -- commands -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [Run, Cmd, Entrypoint])
def test_command_forms_are_told_apart(kind: type[Run]) -> None:
    word = kind.__struct_config__.tag
    found = one(f'{word}  ["a",  "b c", "\\u00e9"] ')
    assert isinstance(found, kind)
    assert (found.command.words, found.command.shell) == (("a", "b c", "é"), False)
    found = one(f"{word} a  'b c' ")
    assert isinstance(found, kind)
    assert (found.command.text, found.command.shell) == ("a  'b c'", True)


@pytest.mark.parametrize(
    ("text", "column", "hint"),
    [
        ("['a', 'b']", 6, 'Write ["a", "b"]'),
        ('["a", "b",]', 14, "Delete the comma"),
        ('["a" "b"]', 10, 'Write ["a", "b"]'),
        ('["a", b]', 11, 'Write "b"'),
        ("[nginx, -g]", 5, 'Write ["nginx", "-g"]'),
        ('["a", "b"] && c', 15, "without [ ]"),
        ('["a\\c"]', 8, "Write \\\\"),
    ],
)
def test_array_that_is_no_json_is_a_shell_command_and_warned_of(text: str, column: int, hint: str) -> None:
    found = parse(f"FROM a\nCMD {text}\n".encode())
    (warned,) = found.warnings
    assert warned.code == "JSONFormBroken"
    assert (warned.spot.line, warned.spot.column) == (2, column), warned
    assert hint in warned.hint
    command = found.stages[0].instructions[0]
    assert isinstance(command, Cmd)
    assert command.command.shell
    assert command.command.text == text


@pytest.mark.parametrize(
    "text",
    ['[ "$a" = "b" ] && c', "[ -f x ] || y", "[[ a == b ]]", "[a-z]* x", '[ "a" ]; echo "b", c', "[ a, b"],
)
def test_test_of_a_shell_is_no_broken_array(text: str) -> None:
    assert parse(f"FROM a\nRUN {text}\n".encode()).warnings == ()


def test_empty_arrays_reset_entrypoint_and_command() -> None:
    for word in ("CMD", "ENTRYPOINT"):
        found = one(f"{word} []")
        assert isinstance(found, Cmd | Entrypoint)
        assert (found.command.words, found.command.shell) == ((), False)
    with pytest.raises(DockerfileFault, match="runs nothing"):
        one("RUN []")


def test_run_takes_its_heredocs_and_flags() -> None:
    found = one(
        "RUN --network=none --security=insecure --device=a.com/b=c <<EOF 3<<-'X' sh\nhi\nEOF\n\tyo\n\tX"
    )
    assert isinstance(found, Run)
    assert found.command.text == "<<EOF 3<<-'X' sh"
    assert [(doc.content, doc.expand, doc.fd) for doc in found.command.heredocs] == [
        ("hi\n", True, 0),
        ("yo\n", False, 3),
    ]
    assert (found.network, found.security, found.devices) == ("none", "insecure", ("a.com/b=c",))
    assert found.last_line == 6


@pytest.mark.parametrize(
    "text", ['RUN "<<EOF"', "RUN cat <<<word", "RUN x << ", 'RUN ["a", "<<EOF"]', "CMD cat <<EOF"]
)
def test_what_only_looks_like_a_heredoc_is_none(text: str) -> None:
    assert one(text).last_line == 2


def test_shell_takes_words() -> None:
    found = one('SHELL ["a", "-c"]')
    assert isinstance(found, Shell)
    assert found.words == ("a", "-c")


# -- copies -------------------------------------------------------------------------------------------
def test_copy_takes_every_flag() -> None:
    found = one("COPY --from=b --chown=1:2 --chmod=640 --link --parents --exclude=*.o --exclude=x/** a b* d/")
    assert isinstance(found, Copy)
    assert (found.origin, found.owner, found.mode) == ("b", "1:2", "640")
    assert (found.link, found.parents, found.exclude) == (True, True, ("*.o", "x/**"))
    assert (found.sources, found.target) == (("a", "b*"), "d/")


def test_add_takes_every_flag() -> None:
    digest = "sha256:" + "a" * 64
    found = one(f"ADD --checksum={digest} --keep-git-dir=true --unpack=FALSE --link=false https://h/x /x")
    assert isinstance(found, Add)
    assert (found.checksum, found.keep_git_dir, found.unpack, found.link) == (digest, True, False, False)
    plain = one("ADD a b")
    assert isinstance(plain, Add)
    assert (plain.unpack, plain.keep_git_dir) == (None, False)


def test_copy_in_json_form_takes_spaces() -> None:
    found = one('COPY ["a b", "<<x", "/c d/"]')
    assert isinstance(found, Copy)
    assert (found.sources, found.target, found.heredocs) == (("a b", "<<x"), "/c d/", ())


def test_flag_value_is_unquoted_and_two_dashes_end_flags() -> None:
    found = one("COPY --from='b' --chown=\"1\":2 -- --x /y")
    assert isinstance(found, Copy)
    assert (found.origin, found.owner, found.sources) == ("b", "1:2", ("--x",))


@pytest.mark.parametrize(
    ("line", "column", "said"),
    [
        ("COPY --form=a b c", 6, "Did you mean --from?"),
        ("ADD --from=a b c", 5, "It is one of COPY"),
        ("COPY --checksum=a b c", 6, "It is one of ADD"),
        ("ENV --x a=b", 5, "takes no flags"),
        ("RUN --mont=type=cache,target=/x a", 5, "Did you mean --mount?"),
        ("COPY --from a b", 6, "Write --from=value"),
        ("COPY --link=maybe a b", 6, "neither true nor false"),
        ("COPY --from=a --from=b c d", 15, "twice"),
        ("COPY --from=$x c d", 13, "takes no variables"),
        ("RUN --network=bridge a", 15, "default, none, host"),
        ("RUN --security=x a", 16, "sandbox, insecure"),
        ("ADD --checksum=md5:1 a b", 16, "no checksum"),
        ("COPY a", 6, "a source and a target"),
        ("COPY", 1, "a source and a target"),
        ("COPY a <<E\nE", 8, "can't be the target"),
        ('COPY ["a", ""]', 6, "empty target"),
        ("RUN --mount=type=cach,target=/x a", 13, "Did you mean cache?"),
        ("RUN --mount=type=bind,tagret=/x a", 23, "Did you mean target?"),
        ("RUN --mount=type=tmpfs,uid=1,target=/x a", 24, "a tmpfs mount has no uid"),
        ("RUN --mount=type=bind,sharing=locked,target=/x a", 23, "has no sharing"),
        ("RUN --mount=type=cache,sharing=lock,target=/x a", 24, "Did you mean locked?"),
        ("RUN --mount=type=tmpfs,size=1x,target=/x a", 24, "no size"),
        ("RUN --mount=type=tmpfs,size=999999999999999999p,target=/x a", 24, "more than memory can be"),
        ("RUN --mount=type=cache,mode=8,target=/x a", 24, "no octal number"),
        ("RUN --mount=type=cache,uid=4294967296,target=/x a", 24, "no number"),
        ("RUN --mount=type=secret a", 13, "an id or a target"),
        ("RUN --mount=type=secret,id=a,source=b a", 25, "Keep id"),
        ("RUN --mount=type=bind,from=$x,target=/x a", 23, "takes no variables"),
        ("RUN --mount=type=cache,target a", 24, "Write target=value"),
        ("RUN --mount=type=cache,ro=maybe,target=/x a", 24, "neither true nor false"),
    ],
)
def test_wrong_flag_is_shown_with_its_mend(line: str, column: int, said: str) -> None:
    with pytest.raises(DockerfileFault) as caught:
        one(line)
    assert said in str(caught.value)
    assert (caught.value.spot.line, caught.value.spot.column) == (2, column), str(caught.value)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/x", Mount(target="/x")),
        ("type=bind,from=b,src=/s,dst=/x,rw", Mount(origin="b", source="/s", target="/x", read_only=False)),
        ("type=bind,destination=/x,readwrite=false", Mount(target="/x", read_only=True)),
        (
            "type=cache,id=c,target=/x,sharing=LOCKED,mode=0700,uid=1,gid=2,ro",
            Mount(
                kind="cache",
                ident="c",
                target="/x",
                sharing="locked",
                mode=0o700,
                uid=1,
                gid=2,
                read_only=True,
            ),
        ),
        ("type=tmpfs,target=/x,size=1.5m", Mount(kind="tmpfs", target="/x", size=3 << 19)),
        ("type=secret,target=/run/k", Mount(kind="secret", target="/run/k", ident="k")),
        ("type=secret,id=k,env=", Mount(kind="secret", ident="k", env="k")),
        ("TYPE=secret,source=k,required", Mount(kind="secret", source="k", ident="k", required=True)),
        ("type=ssh", Mount(kind="ssh", ident="default")),
        ("type=ssh,id=a,required=1", Mount(kind="ssh", ident="a", required=True)),
    ],
)
def test_mount_of_run_has_every_field(text: str, mount: Mount) -> None:
    found = one(f"RUN --mount={text} true")
    assert isinstance(found, Run)
    assert found.mounts == (mount,)


def test_mount_with_variables_keeps_its_text_for_later() -> None:
    found = one("RUN --mount=type=$T,target=$D/x,uid=$U,id=a-$I true")
    assert isinstance(found, Run)
    (mount,) = found.mounts
    assert mount.text == "type=$T,target=$D/x,uid=$U,id=a-$I"
    assert (mount.target, mount.ident, mount.uid) == ("$D/x", "a-$I", None)


# -- pairs and words ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a=b", [("a", "b")]),
        ("a=b c=d\te=", [("a", "b"), ("c", "d"), ("e", "")]),
        ("a=\"b c\" d='e f'", [("a", '"b c"'), ("d", "'e f'")]),
        ("a=b\\ c", [("a", "b\\ c")]),
        ('a="b\\"c" d=e', [("a", '"b\\"c"'), ("d", "e")]),
        ("a=b=c", [("a", "b=c")]),
        ("a=$b${c:-d}", [("a", "$b${c:-d}")]),
        ("a b  c=d ", [("a", "b  c=d")]),
        ('"a b"=c', [('"a b"', "c")]),
        ("a='b\\'", [("a", "'b\\'")]),
        ("a=b \\\n  # c\n  d=e", [("a", "b"), ("d", "e")]),
    ],
)
@pytest.mark.parametrize("word", ["ENV", "LABEL"])
def test_pairs_are_split_as_docker_splits_them(word: str, text: str, wanted: list[tuple[str, str]]) -> None:
    assert pairs(f"{word} {text}") == wanted


def test_old_form_of_pairs_is_marked() -> None:
    assert getattr(one("ENV a b c"), "old_form", None) is True
    assert getattr(one("LABEL a=b"), "old_form", None) is False


def test_arguments_have_defaults_or_none() -> None:
    found = one('ARG a b= c="d e" f=$g')
    assert isinstance(found, Arg)
    assert [(arg.key, arg.value) for arg in found.args] == [
        ("a", None),
        ("b", ""),
        ("c", '"d e"'),
        ("f", "$g"),
    ]


def test_plain_instructions_take_the_rest_of_their_line() -> None:
    user, workdir, signal = one("USER a:b"), one("WORKDIR /a b/c"), one("STOPSIGNAL rtmin+3")
    assert isinstance(user, User)
    assert isinstance(workdir, Workdir)
    assert isinstance(signal, StopSignal)
    assert (user.user, workdir.path, signal.signal) == ("a:b", "/a b/c", "rtmin+3")
    maintainer = one("MAINTAINER A B <a@b>")
    assert isinstance(maintainer, Maintainer)
    assert maintainer.name == "A B <a@b>"


def test_ports_and_volumes_are_words() -> None:
    ports = one("EXPOSE 90 80-82/UDP $P 127.0.0.1:1:2")
    assert isinstance(ports, Expose)
    assert ports.ports == ("$P", "127.0.0.1:1:2", "80-82/UDP", "90")
    plain, listed = one("VOLUME /a b"), one('VOLUME ["/a b", " /c "]')
    assert isinstance(plain, Volume)
    assert isinstance(listed, Volume)
    assert (plain.paths, listed.paths) == (("/a", "b"), ("/a b", "/c"))


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("NONE", HealthCheck(disabled=True)),
        ("CMD a b", HealthCheck(probe=ShellProbe(command="a b"))),
        ('cmd ["a", "b"]', HealthCheck(probe=ExecProbe(args=("a", "b")))),
        (
            "--interval=1m30s --timeout=1.5s --start-period=0 --start-interval=250ms --retries=4 CMD a",
            HealthCheck(
                probe=ShellProbe(command="a"), interval=90.0, timeout=1.5, start_interval=0.25, retries=4
            ),
        ),
    ],
)
def test_health_check_is_what_it_says(text: str, check: HealthCheck) -> None:
    found = one(f"HEALTHCHECK {text}")
    assert isinstance(found, Healthcheck)
    assert found.check == check


# -- triggers -----------------------------------------------------------------------------------------
def test_trigger_is_kept_as_text_and_parsed_where_it_fires() -> None:
    found = one("ONBUILD  RUN --network=none cat <<-E\n\tx\n\tE")
    assert isinstance(found, Onbuild)
    assert found.expression == "RUN --network=none cat <<-E\n\tx\nE"
    fired = parse_trigger(found.expression, Spot(line=7, column=3))
    assert isinstance(fired, Run)
    assert (fired.trigger, fired.spot, fired.network) == (True, Spot(line=7, column=3), "none")
    assert fired.command.heredocs[0].content == "x\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "FROM a",
        "ONBUILD RUN a",
        "MAINTAINER a",
        "RUN a\nRUN b",
        "NOPE",
        "COPY a",
        "RUN <<E\n",
        "\0",
        "\udcff",
    ],
)
def test_trigger_of_a_strange_base_is_refused_at_its_from(text: str) -> None:
    with pytest.raises(DockerfileFault) as caught:
        parse_trigger(text, Spot(line=3, column=6), file="D")
    assert str(caught.value).startswith("D:3:6: ONBUILD ")
    assert str(caught.value).isprintable()


def test_trigger_with_a_lone_carriage_return_fires_as_it_was_taken() -> None:
    found = parse(b"FROM a\nONBUILD ARG \rx\n").stages[0].instructions[0]
    assert isinstance(found, Onbuild)
    fired = parse_trigger(found.expression, Spot(line=1))
    assert isinstance(fired, Arg)
    assert [arg.key for arg in fired.args] == ["x"]
