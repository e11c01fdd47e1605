"""How a build is shown: lines of a log, and pictures of a screen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cli.build.progress import LONGEST, TAIL, Progress, Screen
from cli.render import clean
from model.build import FromHost, Placed, StepBegan, StepEnded, StepMoved, StepSaid

WORDS = st.binary(max_size=80)
MESSAGES = st.one_of(
    st.builds(StepBegan, step=st.integers(-3, 9), name=st.text(max_size=200)),
    st.builds(StepSaid, step=st.integers(-3, 9), data=WORDS, stderr=st.booleans()),
    st.builds(StepMoved, step=st.integers(-3, 9), what=st.text(max_size=90), current=st.integers(0, 1 << 40),
              total=st.integers(0, 1 << 40)),
    st.builds(StepEnded, step=st.integers(-3, 9), cached=st.booleans(), error=st.text(max_size=90)),
    st.builds(Placed, host=st.text(max_size=30), why=st.text(max_size=90)),
)  # fmt: skip


def shown(*messages: FromHost) -> list[str]:
    progress = Progress()
    return [line for at, message in enumerate(messages) for line in progress.take(message, at / 10)]


def test_steps_are_numbered_as_they_begin_whatever_their_host_calls_them() -> None:
    lines = shown(StepBegan(step=-1, name="load"), StepEnded(step=-1), StepBegan(step=7, name="RUN x"))
    assert lines == ["#1 load", "#1 DONE 0.0s", "", "#2 RUN x"]


def test_output_is_shown_by_lines_with_the_steps_own_time() -> None:
    began = StepBegan(step=1, name="x")
    assert shown(began, StepSaid(step=1, data=b"a\nb"), StepSaid(step=1, data=b"c\n")) == [
        "#1 x", "#1 0.10 a", "#1 0.20 bc"]  # fmt: skip
    assert shown(began, StepSaid(step=1, data=b"rest"), StepEnded(step=1, seconds=2))[1:] == [
        "#1 0.20 rest", "#1 DONE 2.0s"]  # fmt: skip


def test_line_that_is_written_over_is_shown_in_its_last_state() -> None:
    said = StepSaid(step=1, data=b"10%\r50%\r100%\r\nnext\r\n")
    assert shown(StepBegan(step=1, name="x"), said)[1:] == ["#1 0.10 100%", "#1 0.10 next"]


def test_controls_but_colours_are_left_out_and_colours_end_with_their_line() -> None:
    said = StepSaid(step=1, data=b"\x1b]0;title\x07a\x1b[31mred\x1b[2Jx\n")
    assert shown(StepBegan(step=1, name="\x1b[2Jname"), said) == [
        "#1 [2Jname", "#1 0.10 ]0;titlea\x1b[31mred[2Jx\x1b[0m"]  # fmt: skip


def test_line_without_an_end_is_cut_and_memory_is_bounded() -> None:
    progress = Progress()
    progress.take(StepBegan(step=1, name="x"), 0)
    for _ in range(200):
        for line in progress.take(StepSaid(step=1, data=b"y" * 30_000), 1):
            assert len(line) <= LONGEST + 20
    assert len(progress.steps[1].tail) == TAIL


def test_movement_is_told_at_most_once_a_second_and_at_its_end() -> None:
    progress = Progress()
    progress.take(StepBegan(step=1, name="x"), 0)
    lines = [
        line
        for n in range(100)
        for line in progress.take(StepMoved(step=1, what="layer", current=n, total=100), n / 20)
    ]
    assert len(lines) == 5
    whole = StepMoved(step=1, what="layer", current=100, total=100)
    assert progress.take(whole, 5) == ["#1 layer: 100B / 100B"]
    progress.take(StepMoved(step=1, what="other", current=1), 5)
    progress.take(StepMoved(step=1, what="other", current=9), 5)
    assert progress.take(StepEnded(step=1), 5) == ["#1 other: 9B", "#1 DONE 0.0s"]


def test_failed_step_keeps_its_last_lines() -> None:
    progress = Progress()
    progress.take(StepBegan(step=1, name="RUN make"), 0)
    progress.take(StepSaid(step=1, data=b"\n".join(b"%d" % n for n in range(100))), 1)
    progress.take(StepEnded(step=1, error="exit code 2"), 2)
    failed = progress.failed()
    assert failed is not None and list(failed.tail)[-2:] == ["98", "99"] and len(failed.tail) == TAIL


@given(st.lists(MESSAGES, max_size=60), st.integers(20, 120), st.integers(4, 40))
def test_picture_fits_the_screen_whatever_is_told(messages: list[FromHost], width: int, height: int) -> None:
    progress = Progress()
    screen = Screen(progress, 0)
    for at, message in enumerate(messages):
        for line in progress.take(message, at / 10):
            assert "\n" not in line
        lines = screen.now(at / 10, width, height)
        assert 1 <= len(lines) <= height
        assert all(len(line) < width and clean(line) == line for line in lines)
    ended = sum(step.ended is not None for step in progress.steps.values())
    assert len(screen.over()) == ended and screen.over() == []
