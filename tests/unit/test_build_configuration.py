"""What instructions make of an image's configuration, its history and the steps that are done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from image.build import written
from image.build.fake import FakeRunner
from image.build.step import RunStep
from image.dockerfile.faults import DockerfileFault
from model.image import ImageRecord
from model.spec import ExecProbe, HealthCheck, ShellProbe
from tests.support.builds import Lab, base

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Watched(FakeRunner):
    """Keeps the steps of RUN."""

    def __init__(self, runner: FakeRunner) -> None:
        super().__init__(runner.snapshots, runner.contents)
        self.steps: list[RunStep] = []

    async def run(self, root: str, step: RunStep, *rest: Any) -> int:
        self.steps.append(step)
        return await super().run(root, step, *rest)


async def built(body: str, *, head: str = "FROM base", **wishes: Any) -> ImageRecord:
    lab = Lab([base(**wishes.pop("config", {}))])
    lab.runner.contents = {"a": "1", "b": "2"}
    return await lab.image(f"{head}\n{body}\n", **wishes)


async def steps(body: str, **wishes: Any) -> list[RunStep]:
    lab = Lab([base(**wishes.pop("config", {}))])
    watched = Watched(lab.runner)
    lab.parts = replace(lab.parts, runner=watched)
    await lab.build(f"FROM base\n{body}\n", **wishes)
    return watched.steps


def lines(image: ImageRecord) -> list[str]:
    return [entry.created_by for entry in image.history]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("ENV a=1 b='two words'", "ENV a=1 b=two words"),
        ("ENV a the value", "ENV a=the value"),
        ("ARG x=1 y", "ARG x=1 y"),
        ("LABEL a=b", "LABEL a=b"),
        ("RUN echo $x", "RUN /bin/sh -c echo $x # buildkit"),
        ('RUN ["a", "b c"]', "RUN a b c # buildkit"),
        ("COPY a b /x/", "COPY a b /x/ # buildkit"),
        ("COPY --chown=1:2 --chmod=640 a /x", "COPY --chown=1:2 --chmod=640 a /x # buildkit"),
        ("ADD a /x", "ADD a /x # buildkit"),
        ("COPY <<one /x\ntext\none", "COPY <<one /x # buildkit"),
        ('CMD ["a", "q\\"q"]', 'CMD ["a" "q\\"q"]'),
        ("CMD a b", 'CMD ["/bin/sh" "-c" "a b"]'),
        ('ENTRYPOINT ["a"]', 'ENTRYPOINT ["a"]'),
        ("EXPOSE 53/udp 80", "EXPOSE [53/udp 80/tcp]"),
        ("VOLUME /a /b", "VOLUME [/a /b]"),
        ("USER app:app", "USER app:app"),
        ("WORKDIR /a/../b", "WORKDIR /b"),
        ("STOPSIGNAL SIGINT", "STOPSIGNAL SIGINT"),
        ('SHELL ["/bin/bash", "-c"]', "SHELL [/bin/bash -c]"),
        ("MAINTAINER me", "MAINTAINER me"),
        ("HEALTHCHECK NONE", "HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s "
         "StartInterval:0s Retries:0}"),
        ("HEALTHCHECK --interval=90s --timeout=1500ms --retries=3 CMD curl x",
         "HEALTHCHECK {Test:[CMD-SHELL curl x] Interval:1m30s Timeout:1.5s StartPeriod:0s "
         "StartInterval:0s Retries:3}"),
    ],
)  # fmt: skip
async def test_history_has_the_line_that_buildkit_writes(body: str, line: str) -> None:
    assert lines(await built(body)) == [line]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1, "1s"),
        (0.25, "250ms"),
        (3600, "1h0m0s"),
        (90.5, "1m30.5s"),
        (1e-6, "1µs"),
        (5025, "1h23m45s"),
    ],
)
def test_duration_is_written_as_go_writes_it(seconds: float, text: str) -> None:
    assert written.duration(seconds) == text


def test_quoted_word_escapes_as_go_does() -> None:
    assert written.quoted('a"\\\n\x01é\u2028') == '"a\\"\\\\\\n\\x01é\\u2028"'


async def test_env_wins_over_arg_wherever_it_stands() -> None:
    body = "ARG a=arg\nENV a=env\nARG a=later\nENV seen=$a\nRUN x"
    image = await built(body)
    assert "seen=env" in image.config.env
    (run,) = await steps(body)
    assert [entry for entry in run.env if entry.startswith("a=")] == ["a=env"]


async def test_pairs_of_one_env_see_what_was_before_it() -> None:
    image = await built("ENV a=old\nENV a=new b=$a\nENV c=$b$a")
    assert image.config.env[-3:] == ("a=new", "b=old", "c=oldnew")


async def test_arg_is_seen_by_run_and_told_in_its_line_but_no_env_of_the_image() -> None:
    body = "ARG a=1\nARG b\nRUN make"
    image = await built(body, args={"a": "2"})
    assert image.config.env == (PATH,)
    assert lines(image)[-1] == "RUN |2 a=2 b= /bin/sh -c make # buildkit"
    (run,) = await steps(body, args={"a": "2"})
    assert run.env == ("a=2", PATH)


async def test_global_arg_is_seen_in_a_stage_once_it_is_named_there() -> None:
    image = await built("ENV a=$v\nARG v\nENV b=$v\nARG v=own\nENV c=$v", head="ARG v=global\nFROM base")
    assert image.config.env[-3:] == ("a=", "b=global", "c=own")


async def test_child_stage_inherits_arguments_and_another_does_not() -> None:
    text = "FROM base AS one\nARG v=1\nFROM one\nENV a=$v\n"
    lab = Lab()
    assert "a=1" in (await lab.image(text)).config.env
    assert "a=" in (await lab.image(text.replace("FROM one\n", "FROM base\n"))).config.env


async def test_platform_arguments_are_there_when_named() -> None:
    image = await built("ARG TARGETARCH\nARG BUILDPLATFORM\nENV a=$TARGETARCH b=$BUILDPLATFORM c=$TARGETOS")
    assert image.config.env[-3:] == ("a=amd64", "b=linux/amd64", "c=")


async def test_proxies_reach_run_without_arg_and_are_an_argument_with_one() -> None:
    given = {"http_proxy": "http://p", "NO_PROXY": "x", "other": "y"}
    (run,) = await steps("RUN make", args=given)
    assert run.proxies == ("NO_PROXY=x", "http_proxy=http://p")
    (run,) = await steps("ARG http_proxy\nRUN make", args=given)
    assert run.proxies == ("NO_PROXY=x",) and "http_proxy=http://p" in run.env


async def test_what_a_shell_is_to_expand_stays_as_it_is() -> None:
    image = await built(
        'ENV a=1\nCMD echo $a\nENTRYPOINT ["$a"]\nHEALTHCHECK CMD test $a\nONBUILD RUN echo $a'
    )
    assert image.config.cmd == ("/bin/sh", "-c", "echo $a")
    assert image.config.entrypoint == ("$a",)
    assert image.config.health == HealthCheck(probe=ShellProbe(command="test $a"))
    assert image.config.onbuild == ("RUN echo $a",)


async def test_other_instructions_are_expanded() -> None:
    image = await built(
        "ENV p=80 d=/data u=app s=SIGINT l=key\nEXPOSE $p\nVOLUME $d\nUSER $u\nSTOPSIGNAL $s\n"
        "LABEL $l=$d\nWORKDIR $d/x"
    )
    config = image.config
    assert (config.exposed_ports, config.volumes, config.user) == (("80/tcp",), ("/data",), "app")
    assert (config.stop_signal, config.labels, config.workdir) == ("SIGINT", {"key": "/data"}, "/data/x")


async def test_entrypoint_drops_the_bases_cmd_but_not_the_stages_own() -> None:
    inherited = {"cmd": ("old",)}
    assert (await built('ENTRYPOINT ["e"]', config=inherited)).config.cmd is None
    assert (await built('CMD ["c"]\nENTRYPOINT ["e"]', config=inherited)).config.cmd == ("c",)
    assert (await built('ENTRYPOINT ["e"]\nCMD ["c"]', config=inherited)).config.cmd == ("c",)


async def test_shell_is_for_all_that_follows_and_for_the_image() -> None:
    image = await built('CMD a\nSHELL ["/bin/bash", "-c"]\nRUN b\nENTRYPOINT c')
    assert lines(image)[2] == "RUN /bin/bash -c b # buildkit"
    assert image.config.entrypoint == ("/bin/bash", "-c", "c")
    assert image.config.shell == ("/bin/bash", "-c")


async def test_health_check_in_exec_form_replaces_the_bases() -> None:
    image = await built('HEALTHCHECK CMD ["a", "b"]', config={"health": HealthCheck(retries=7)})
    assert image.config.health == HealthCheck(probe=ExecProbe(args=("a", "b")))


async def test_ports_of_a_range_are_all_named() -> None:
    assert (await built("EXPOSE 8000-8002/udp")).config.exposed_ports == (
        "8000/udp", "8001/udp", "8002/udp",
    )  # fmt: skip


async def test_scratch_begins_with_a_path_and_the_root() -> None:
    image = await Lab().image("FROM scratch\nRUN x\n")
    assert (image.config.env, image.config.workdir) == ((PATH,), "/")


async def test_bases_history_and_author_go_before_the_builds() -> None:
    lab = Lab()
    first = await lab.image("FROM base\nMAINTAINER me\nRUN one\n", names=("first",))
    second = await lab.image("FROM first\nENV a=1\n")
    assert lines(second) == [*lines(first), "ENV a=1"]
    assert second.author == "me"
    assert second.created == first.created


async def test_relative_workdir_user_and_target_go_together() -> None:
    body = "WORKDIR /a\nWORKDIR b\nUSER app\nWORKDIR c\nRUN x\nCOPY a .\nCOPY b ./\n"
    image = await built(body)
    assert image.config.workdir == "/a/b/c"
    (run,) = await steps(body.partition("COPY")[0])
    assert (run.workdir, run.user) == ("/a/b/c", "app")


async def test_heredoc_alone_is_the_shells_text_or_a_script() -> None:
    (run,) = await steps("RUN <<EOF\none\ntwo\nEOF")
    assert run.args == ("/bin/sh", "-c", "one\ntwo\n") and run.script is None
    (run,) = await steps("RUN <<END\n#!/bin/awk\nx\nEND")
    assert run.script is not None and run.script.content == "#!/bin/awk\nx\n"
    (run,) = await steps("RUN cat <<A >x && cat <<B\n1\nA\n2\nB")
    assert run.args[-1] == "cat <<A >x && cat <<B\n1\nA\n2\nB"


async def test_labels_of_the_request_win_and_leave_no_line() -> None:
    image = await built("LABEL a=1", labels={"a": "2", "b": "3"})
    assert image.config.labels == {"a": "2", "b": "3"}
    assert lines(image) == ["LABEL a=1"]


async def test_variables_of_a_mount_are_expanded_but_not_its_from() -> None:
    (run,) = await steps("ENV d=/x i=id\nRUN --mount=type=cache,target=$d/c,id=$i x")
    assert (run.mounts[0].mount.target, run.mounts[0].mount.ident) == ("/x/c", "id")
    (run,) = await steps("WORKDIR /w\nRUN --mount=type=tmpfs,target=t x")
    assert run.mounts[0].mount.target == "/w/t"


async def test_doubling_variables_end_with_an_error_not_with_the_memory() -> None:
    body = "ENV b=xxxxxxxx\n" + "ENV b=$b$b\n" * 40
    with pytest.raises(DockerfileFault):
        await built(body)


@pytest.mark.parametrize(
    "body",
    ["USER 2147483648", "USER a:b:c", "USER 99999999999", "VOLUME /", 'VOLUME [""]', "EXPOSE abc",
     "EXPOSE 1-70000", "EXPOSE 80/icmp", "STOPSIGNAL 999", "RUN --mount=type=tmpfs,target=/ x"],
)  # fmt: skip
async def test_value_that_no_container_could_have_is_refused_with_its_line(body: str) -> None:
    with pytest.raises(DockerfileFault, match="Dockerfile:2"):
        await built(body)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ENV {n}=1", "2001 variables are more"),
        ("ARG a{n}", "at most 2000 arguments"),
        ("LABEL a{n}=1 b{n}=1 c{n}=1 d{n}=1 e{n}=1", "labels are more"),
        ("RUN {n}", "more than 500 instructions that make layers"),
        ("FROM base", "more than 1000 stages"),
    ],
)
async def test_dockerfile_that_is_made_to_take_long_is_refused(line: str, words: str) -> None:
    with pytest.raises(DockerfileFault, match=words):
        await built("\n".join(line.format(n=n) for n in range(2100)))


async def test_variables_of_one_instruction_keep_their_places() -> None:
    env = (await built("ENV a=1 b=2 a=3\nENV b=4 c=5", config={"env": ("b=0", "z=0", "b=0")})).config.env
    assert [entry for entry in env if not entry.startswith("PATH=")] == ["b=4", "z=0", "b=4", "a=3", "c=5"]
