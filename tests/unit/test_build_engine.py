"""Builds by the engine, with files and processes in memory."""

from __future__ import annotations

import asyncio

import pytest

from image.build.parts import StepFailed
from model.build import StepBegan, StepEnded
from model.errors import NotFound
from tests.support.builds import Lab
from tests.support.waiting import until

PLAIN = """FROM base
ENV A=1
RUN make $A
COPY src /dst
CMD ["run"]
"""


def lab(**contents: str) -> Lab:
    made = Lab()
    made.runner.contents = contents
    return made


async def test_build_of_a_plain_file_gives_steps_and_configuration() -> None:
    it = lab(src="1")
    image = await it.image(PLAIN, names=("app",))
    assert it.ran() == ["make $A", "copy src"]
    assert image.names == ("docker.io/library/app:latest",)
    assert image.config.cmd == ("run",)
    assert "A=1" in image.config.env
    assert len(image.layers) == 3
    assert [(entry.created_by, entry.empty_layer) for entry in image.history] == [
        ("ENV A=1", True),
        ("RUN /bin/sh -c make $A # buildkit", False),
        ("COPY src /dst # buildkit", False),
        ('CMD ["run"]', True),
    ]
    assert it.names() == [
        "[1/3] FROM base",
        "[2/3] RUN make $A",
        "[3/3] COPY src /dst",
        "exporting the image",
    ]


async def test_build_again_takes_all_from_the_cache_and_gives_the_same_image() -> None:
    it = lab(src="1")
    first = await it.image(PLAIN)
    it.ran()
    await it.clock.advance(100)
    second = await it.image(PLAIN)
    assert it.ran() == []
    assert it.cached() == ["[2/3] RUN make $A", "[3/3] COPY src /dst"]
    assert second.id == first.id


async def test_changed_file_of_a_copy_makes_all_later_steps_miss() -> None:
    text = "FROM base\nRUN one\nCOPY src /dst\nRUN two\n"
    it = lab(src="1")
    await it.build(text)
    it.ran()
    it.runner.contents["src"] = "2"
    it.session.roots[""] = "tree:2"
    await it.build(text)
    assert it.ran() == ["copy src", "two"]


async def test_miss_makes_later_steps_miss_though_its_result_is_equal() -> None:
    text = "FROM base\nRUN one\nRUN two\n"
    it = lab()
    await it.build(text)
    it.ran()
    await it.build(text, no_cache=True)
    assert it.ran() == ["one", "two"]
    await it.build(text)
    assert it.ran() == []


async def test_changed_instruction_misses_from_there_on() -> None:
    it = lab()
    await it.build("FROM base\nRUN one\nRUN two\nRUN three\n")
    it.ran()
    await it.build("FROM base\nRUN one\nRUN 2\nRUN three\n")
    assert it.ran() == ["2", "three"]


async def test_stages_that_nobody_needs_are_left_out() -> None:
    text = "FROM base AS a\nRUN a\nFROM base AS b\nRUN b\nFROM base\nCOPY --from=a /x /\nRUN last\n"
    it = lab()
    await it.build(text)
    assert it.ran() == ["a", "copy /x", "last"]
    await it.build(text, target="B")
    assert it.ran() == ["b"]


async def test_independent_stages_run_at_the_same_time() -> None:
    stages = "".join(f"FROM base AS s{n}\nRUN work {n}\n" for n in range(4))
    text = stages + "FROM base\n" + "".join(f"COPY --from=s{n} /x /{n}\n" for n in range(4))
    it = lab()
    it.runner.gate.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(it.build(text))
        await until(lambda: it.runner.running == 4, deadline=5)
        it.runner.gate.set()
    assert it.runner.most == 4


async def test_slots_bound_what_runs_at_the_same_time() -> None:
    stages = "".join(f"FROM base AS s{n}\nRUN work {n}\n" for n in range(4))
    text = stages + "FROM base\n" + "".join(f"COPY --from=s{n} /x /{n}\n" for n in range(4))
    it = Lab(slots=2)
    await it.build(text)
    assert it.runner.most == 2


async def test_step_that_two_builds_want_at_once_is_done_once() -> None:
    it = lab()
    it.runner.gate.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(it.build("FROM base\nRUN shared\nRUN one\n"))
        group.create_task(it.build("FROM base\nRUN shared\nRUN two\n"))
        await until(lambda: it.runner.running == 1, deadline=5)
        it.runner.gate.set()
    assert sorted(it.ran()) == ["one", "shared", "two"]


async def test_cancelled_build_leaves_its_step_to_the_other_that_waits() -> None:
    it = lab()
    it.runner.gate.clear()
    first = asyncio.create_task(it.build("FROM base\nRUN shared\n"))
    await until(lambda: it.runner.running == 1, deadline=5)
    second = asyncio.create_task(it.build("FROM base\nRUN shared\n"))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await until(lambda: it.runner.running == 1, deadline=5)
    it.runner.gate.set()
    await second
    assert it.ran() == ["shared"]


ALL_KINDS = """FROM base AS a
WORKDIR /w
RUN one
FROM base AS b
COPY src /src
ADD https://h/f /f
RUN two
FROM base
RUN --mount=target=/c --mount=from=a,target=/s --mount=from=b,target=/b,rw three
COPY --from=a /x /x
ADD https://h/g.git /g
"""


async def test_build_cancelled_at_any_moment_leaves_nothing_and_the_next_is_right() -> None:
    cut = turns = 0
    while turns == cut:
        it = lab(src="1", f="2")
        it.fetcher.files, it.fetcher.trees = {"https://h/f": "f"}, {"https://h/g.git": "tree:g"}
        it.runner.contents["https://h/g.git"] = "g"
        task = asyncio.create_task(it.build(ALL_KINDS))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            cut += 1
        assert it.snapshots.open == 0 and not +it.snapshots.held, turns
        began = {s.step for s in it.session.heard if isinstance(s, StepBegan)}
        assert began == {s.step for s in it.session.heard if isinstance(s, StepEnded)}, turns
        async with asyncio.timeout(5):
            image = await it.image(ALL_KINDS)
        assert len(set(it.ran())) == 9 and len(image.layers) == 4, turns
        turns += 1
    assert cut > 15, "it was never cut short"


async def test_failed_step_tells_its_line_and_code_and_ends_the_rest() -> None:
    text = "FROM base AS a\nRUN slow\nFROM base\nRUN false\nCOPY --from=a /x /\n"
    it = lab()
    with pytest.raises(StepFailed, match="Dockerfile:4: RUN false: exit code 1") as caught:
        await it.build(text)
    assert (caught.value.exit_code, caught.value.line) == (1, 4)
    assert it.snapshots.open == 0
    assert not +it.snapshots.held
    began, ended = len(it.names()), [s for s in it.session.heard if isinstance(s, StepEnded)]
    assert len(ended) == began


async def test_failed_step_is_no_record_and_is_tried_again() -> None:
    it = lab()
    for _ in range(2):
        with pytest.raises(StepFailed):
            await it.build("FROM base\nRUN one\nRUN false\n")
    assert it.ran() == ["one", "false", "false"]


async def test_shell_is_opened_in_the_failed_step_when_asked_for() -> None:
    it = lab()
    with pytest.raises(StepFailed):
        await it.build("FROM base\nRUN false\n", on_failure="shell")
    assert it.runner.shells == 1


async def test_failed_copy_names_what_is_missing() -> None:
    it = lab()
    with pytest.raises(NotFound, match="Dockerfile:2: gone: not in the context"):
        await it.build("FROM base\nCOPY gone /\n")


async def test_context_is_scanned_once_and_only_for_what_is_read() -> None:
    it = lab(a="1", b="2")
    await it.build("FROM base\nCOPY a /\nCOPY b /\n")
    assert it.session.scanned == [("", ("a", "b"))]
    await it.build("FROM base\nRUN one\n")
    assert it.session.scanned == []


async def test_no_cache_filter_redoes_one_stage_alone() -> None:
    text = "FROM base AS a\nRUN a\nFROM base AS b\nRUN b\nCOPY --from=a /x /\n"
    it = lab()
    await it.build(text)
    it.ran()
    await it.build(text, no_cache_stages=("A",))
    assert it.ran() == ["a"]


async def test_copy_of_a_stage_hits_as_long_as_its_files_are_equal() -> None:
    """Their content decides, not how it came about."""
    text = "FROM base AS a\nRUN a\nFROM base\nCOPY --from=a /x /\nRUN last\n"
    it = lab()
    await it.build(text)
    it.ran()
    await it.build(text, no_cache_stages=("a",))
    assert it.ran() == ["a"]
    await it.build(text.replace("RUN a", "RUN b"))
    assert it.ran() == ["b", "copy /x", "last"]
