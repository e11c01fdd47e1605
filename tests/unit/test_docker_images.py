"""The pure parts of Docker's image calls: names, progress of several hosts, lines of a build."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.docker.builds.output import Output
from api.docker.builds.request import PARAMETERS, Build
from api.docker.containers.body import Health
from api.docker.containers.hostconfig import health_of
from api.docker.images import summary
from api.docker.images.committing import CommitBody, Words, instructions
from api.docker.images.names import full, has_tag, joined, repository_of, tag_of
from api.docker.images.progress import Merged, bar
from api.docker.images.summary import history, inspect, layers_size, merged, shared_sizes
from image.changes import apply
from image.reference import parse
from model.api import ImageInfo
from model.build import Instructed, Outline, StepBegan, StepEnded, StepMoved
from model.errors import InvalidInput, NotFound, Unavailable
from model.image import HistoryEntry, ImageConfig, ImageRecord, Origin, Progress

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    "text",
    [
        "alpine",
        "alpine:3",
        "h:5000/a/b",
        "h:5000/a/b:1",
        f"a@{DIGEST}",
        f"h/a:1@{DIGEST}",
        "localhost/x",
        "u/x:y",
    ],
)
def test_full_name_is_the_one_that_hosts_keep(text: str) -> None:
    reference = parse(text)
    wanted = f"{reference.repository}@{reference.digest}" if reference.digest else reference.name
    assert full(text) == wanted
    assert has_tag(text) == (text != repository_of(text))


def test_committed_image_tells_of_what_it_was_made() -> None:
    origin = Origin(parent=DIGEST, container="c" * 64, image="busybox")
    image = ImageRecord(id="sha256:" + "d" * 64, origin=origin)
    seen = inspect(image, ("n1",), "overlay2", (1, 43))
    assert (seen["Parent"], seen["Container"]) == (DIGEST, "c" * 64)
    assert seen["ContainerConfig"]["Image"] == "busybox"
    assert summary.line(image, ("n1",), (1, 43))["ParentId"] == DIGEST
    assert "Container" not in inspect(image, ("n1",), "overlay2", (1, 45))


def test_tag_beside_a_repository_takes_the_place_of_its_own() -> None:
    assert joined("a", "") == "a" and joined("a:1", "") == "a:1"
    assert joined("a", "2") == "a:2" and joined("h:5000/a:1", "2") == "h:5000/a:2"
    assert joined("a", DIGEST) == f"a@{DIGEST}"
    assert tag_of("h:5000/a") == "" and tag_of("h:5000/a:2") == "2" and tag_of(f"a@{DIGEST}") == ""


def line(host: str, status: str, current: int = 0, total: int = 0) -> Progress:
    return Progress(status=status, id="0123456789ab", host=host, current=current, total=total)


def test_layer_is_shown_as_the_host_that_is_least_far_has_it() -> None:
    shown = Merged()
    said = [
        line("n1", "Downloading", 5, 10), line("n2", "Downloading", 2, 10), line("n1", "Pull complete"),
        line("n2", "Downloading", 2, 10), line("n2", "Extracting"), line("n2", "Pull complete"),
    ]  # fmt: skip
    found = [shown.take(one) for one in said]
    assert [m and (m["status"], m["progressDetail"].get("current")) for m in found] == [
        ("Downloading", 5), ("Downloading", 2), None, None, ("Extracting", None), ("Pull complete", None),
    ]  # fmt: skip


def test_failure_of_one_of_several_hosts_is_told_by_its_name() -> None:
    shown = Merged()
    assert shown.failure() is None
    shown.take(Progress(status="done", image="a:1", host="n1"))
    shown.take(Progress(status="failed", host="n2", error="no room", error_code="unavailable"))
    failure = shown.failure()
    assert isinstance(failure, Unavailable) and str(failure) == "n2: no room"
    alone = Merged()
    alone.take(Progress(status="failed", host="n1", error="gone", error_code="not_found"))
    assert isinstance(alone.failure(), NotFound) and str(alone.failure()) == "gone"


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 50))
def test_bar_has_one_width_whatever_a_host_says(current: int, total: int) -> None:
    text = bar(current, total)
    assert (text.index("]") == 52) if total else "[" not in text


def record(ident: str, layers: dict[str, int], **fields: object) -> ImageRecord:
    sizes = {"layers": tuple(layers), "layer_sizes": tuple(layers.values()), "size": sum(layers.values())}
    return ImageRecord(id=ident, **sizes, **fields)  # type: ignore[arg-type]


def test_images_of_several_hosts_become_one_list_newest_first() -> None:
    first = record("a", {"x": 5, "y": 1}, names=("a:1",), created=1.0)
    other = record("a", {"x": 5, "y": 1}, names=("b:1",), created=1.0)
    second = record("c", {"x": 5}, created=2.0)
    infos = [ImageInfo(image=i, host=h) for i, h in ((first, "n1"), (second, "n2"), (other, "n3"))]
    found = merged(infos)
    assert [(i.id, i.names, hosts) for i, hosts in found] == [
        ("c", (), ("n2",)), ("a", ("a:1", "b:1"), ("n1", "n3")),
    ]  # fmt: skip
    images = [image for image, _ in found]
    assert shared_sizes(images) == {"a": 5, "c": 5} and layers_size(images) == 6


def test_history_of_a_strangers_image_is_shown_whatever_its_times_are() -> None:
    entries = tuple(
        HistoryEntry(created=text) for text in ("", "yesterday", "0001-01-01T00:00:00Z", "9" * 400)
    )
    assert [one["Created"] for one in history(record("a", {}, history=entries))] == [0, 0, 0, 0]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0")))
def test_environment_of_a_commit_arrives_as_it_was_given(text: str) -> None:
    body = CommitBody(env=(f"A={text}",), labels={"l": text}, cmd=(text, "x"))
    config = apply(ImageConfig(), instructions(body))
    assert config.env == (f"A={text}",) and config.labels == {"l": text} and config.cmd == (text, "x")


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(st.sampled_from(["CMD", "CMD-SHELL"]), WORDS, st.integers(1_000_000, 1 << 50), st.integers(0, 99))
def test_health_check_of_a_commit_arrives_as_it_was_given_or_is_refused(
    kind: str, text: str, interval: int, retries: int
) -> None:
    wish = Health(test=(kind, text), interval=interval, retries=retries)
    try:
        lines = instructions(CommitBody(healthcheck=wish))
    except InvalidInput:
        assert kind == "CMD-SHELL"
        return
    found = apply(ImageConfig(), lines).health
    expected = health_of(wish)
    assert found is not None and expected is not None
    assert found.probe == expected.probe and found.retries == retries
    assert found.interval == pytest.approx(expected.interval)


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "made"),
    [
        (None, None, (("e",), ("c",))),
        ((), None, ((), ("c",))),
        (("x",), None, (("x",), ())),
        ((), ("y",), ((), ("y",))),
        (None, ("y",), (("e",), ("y",))),
    ],
)
def test_commit_takes_the_containers_command_as_docker_does(
    entrypoint: Words, cmd: Words, made: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    container = ImageConfig(entrypoint=("e",), cmd=("c",))
    config = apply(container, instructions(CommitBody(entrypoint=entrypoint, cmd=cmd)))
    assert (config.entrypoint, config.cmd) == made


def test_triggers_and_shell_of_a_commit_are_the_images() -> None:
    body = CommitBody(on_build=("RUN a", "COPY . /"), shell=("ash", "-c"))
    config = apply(ImageConfig(), instructions(body))
    assert (config.onbuild, config.shell) == (("RUN a", "COPY . /"), ("ash", "-c"))


def test_environment_of_a_commit_that_no_line_can_hold_is_refused() -> None:
    with pytest.raises(InvalidInput, match="User"):
        instructions(CommitBody(user="a\nb"))


def outlined(*sources: str) -> Output:
    output = Output(quiet=False)
    lines = tuple(Instructed(line=at, source=source) for at, source in enumerate(sources, 1))
    assert not list(output.take(Outline(instructions=lines)))
    return output


def test_instructions_of_stages_side_by_side_are_each_told_once() -> None:
    output = outlined("ARG V", "FROM a AS one", "RUN x", "FROM b", "ENV A=b", "COPY --from=one y y", "CMD z")
    began = [StepBegan(step=1, name="", line=2), StepBegan(step=2, name="", line=4),
             StepBegan(step=3, name="", line=3), StepBegan(step=4, name="", line=6)]  # fmt: skip
    told = [m["stream"].split(" ")[1] for one in began for m in output.take(one)]
    assert told == ["1/7", "2/7", "4/7", "3/7", "5/7", "6/7"]


def test_movements_that_are_no_pull_say_nothing() -> None:
    output = outlined("FROM a")
    assert not list(output.take(StepMoved(step=-1, what="transferring", current=5)))
    assert not list(output.take(StepEnded(step=-1, cached=True)))
    [shown] = output.take(StepMoved(step=1, what="0123456789ab Extracting"))
    assert shown == {"status": "Extracting", "id": "0123456789ab", "progressDetail": {}}


def test_every_parameter_of_a_build_is_in_the_table_once() -> None:
    assert [one.name for one in PARAMETERS] == list(Build.__struct_fields__)
