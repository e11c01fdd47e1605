"""The engine at what builds ask beyond plain steps: mounts, platforms, dates, contexts by name."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from image.build.cache import NoRemote, Record
from image.build.parts import StepFailed
from image.dockerfile.faults import DockerfileFault
from model.build import BuildWarning, Context
from model.errors import FlotaError
from tests.support.builds import Lab, base
from tests.support.waiting import until
from tests.unit.test_build_engine import lab


async def test_triggers_of_a_base_run_first_and_leave_with_it() -> None:
    it = Lab([base(onbuild=("RUN trigger", "COPY src /"))])
    it.runner.contents["src"] = "1"
    image = await it.image("FROM base\nRUN own\n")
    assert it.ran() == ["trigger", "copy src", "own"]
    assert image.config.onbuild == ()
    assert "[2/4] ONBUILD RUN trigger" in it.names()


async def test_trigger_that_copies_from_another_stage_brings_it_in() -> None:
    it = Lab([base(onbuild=("COPY --from=tools /x /",))])
    await it.build("FROM scratch AS tools\nCOPY --from=base /x /\nFROM base\n")
    assert it.ran() == ["copy /x", "copy /x"]


async def test_bad_trigger_names_the_base_and_changes_nothing() -> None:
    it = Lab([base(onbuild=("FROB x",))])
    with pytest.raises(DockerfileFault, match="FROB"):
        await it.build("FROM base\nRUN own\n")
    assert it.ran() == []


async def test_mounts_of_run_show_stages_images_and_contexts() -> None:
    it = lab(src="1")
    text = (
        "FROM base AS a\nRUN a\nFROM base\n"
        "RUN --mount=type=bind,target=/c --mount=from=a,target=/s --mount=type=tmpfs,target=/t use\n"
    )
    await it.build(text)
    assert it.ran()[-1] == "use"
    context, stage, tmpfs = it.runner.bound[-1]
    assert context is not None and stage is not None and tmpfs is None
    await it.build(text)
    assert it.ran() == []
    it.session.roots[""] = "tree:2"
    it.runner.contents["src"] = "2"
    await it.build(text)
    assert it.ran() == ["copy /", "use"]


async def test_shell_in_a_failed_step_holds_up_no_other_build() -> None:
    it = Lab(slots=1)
    it.runner.typed.clear()
    async with asyncio.TaskGroup() as group:
        person = group.create_task(_fails(it, on_failure="shell"))
        await until(lambda: it.runner.shells, deadline=5)
        async with asyncio.timeout(5):
            await _fails(it)
        assert not person.done()
        it.runner.typed.set()
    assert it.snapshots.open == 0 and not it.snapshots.held


async def test_stages_that_fail_at_once_open_one_shell() -> None:
    it = Lab()
    it.runner.typed.clear()
    it.runner.gate.clear()
    text = "FROM base AS a\nRUN false\nFROM base AS b\nENV B=1\nRUN false\nFROM base\n"
    text += "COPY --from=a /x /\nCOPY --from=b /x /\n"
    async with asyncio.TaskGroup() as group:
        failing = group.create_task(_fails(it, text, on_failure="shell"))
        await until(lambda: it.runner.running == 2, deadline=5)
        it.runner.gate.set()
        await until(lambda: len(it.runner.ran) == 2 and it.runner.shells, deadline=5)
        it.runner.typed.set()
        await failing
    assert it.runner.shells == 1


async def test_more_platforms_than_a_build_makes_are_refused() -> None:
    with pytest.raises(FlotaError, match="33 platforms are more"):
        await Lab().build("FROM base\n", platforms=tuple(f"linux/p{n}" for n in range(33)))


async def _fails(it: Lab, text: str = "FROM base\nRUN false\n", **wishes: Any) -> None:
    with pytest.raises(StepFailed):
        await it.build(text, **wishes)


async def test_mounted_path_is_no_pattern() -> None:
    it = lab(**{"[\\[]id]": "1"})
    text = "FROM base\nRUN --mount=source=[id],target=/c use\n"
    for content in ("1", "2"):
        it.runner.contents["[\\[]id]"] = content
        it.session.roots[""] = f"tree:{content}"
        await it.build(text)
        assert it.ran() == ["copy /", "use"]
    assert {paths for _, paths in it.session.scanned} == {("[\\[]id]",)}


async def test_epoch_dates_all_that_the_build_adds() -> None:
    it = lab()
    by_file = await it.image("ARG SOURCE_DATE_EPOCH=86400\nFROM base\nENV A=1\nRUN one\n")
    image = await it.image("FROM base\nENV A=1\nRUN one\n", args={"SOURCE_DATE_EPOCH": "86400"})
    assert by_file.id == image.id
    assert image.created == 86400.0
    assert {entry.created for entry in image.history} == {"1970-01-02T00:00:00.000000Z"}


async def test_secret_or_proxy_is_neither_in_history_nor_in_the_key() -> None:
    it = lab()
    first = await it.image("FROM base\nRUN one\n", args={"HTTP_PROXY": "http://user:pass@a"})
    it.ran()
    second = await it.image("FROM base\nRUN one\n", args={"HTTP_PROXY": "http://b"})
    assert it.ran() == []
    assert second.id == first.id
    assert "pass" not in str(first)


async def test_unused_build_argument_is_warned_of() -> None:
    it = lab()
    await it.build("FROM base\nARG USED\nRUN one\n", args={"USED": "1", "OTHER": "2"})
    warned = [said.message for said in it.session.heard if isinstance(said, BuildWarning)]
    assert len(warned) == 1 and "OTHER" in warned[0] and "USED" not in warned[0]


async def test_several_platforms_give_an_image_each_under_one_digest() -> None:
    it = lab()
    text = "FROM scratch\nARG TARGETARCH\nRUN make $TARGETARCH\n"
    done = await it.build(text, platforms=("linux/amd64", "linux/arm64"), names=("app",))
    assert [made.platform for made in done.images] == ["linux/amd64", "linux/arm64"]
    assert len({made.image for made in done.images}) == 2 and done.digest
    assert "[linux/arm64 1/1] RUN make $TARGETARCH" in it.names()
    histories = [it.images.images[made.image].history[1].created_by for made in done.images]
    assert histories == [
        f"RUN |1 TARGETARCH={arch} /bin/sh -c make $TARGETARCH # buildkit" for arch in ("amd64", "arm64")
    ]


async def test_named_context_stands_for_an_image_a_stage_or_a_folder() -> None:
    it = Lab([base(), base("docker.io/library/other:latest", env=("OTHER=1",))])
    it.session.roots["files"] = "tree:files"
    it.runner.contents["x"] = "1"
    contexts = (
        Context(),
        Context(name="tools", kind="image", ref="other"),
        Context(name="base", kind="image", ref="other"),
        Context(name="files"),
    )
    text = "FROM base AS tools\nRUN never\nFROM base\nCOPY --from=tools /a /\nCOPY --from=files x /\n"
    image = await it.image(text, contexts=contexts)
    assert it.ran() == ["copy /a", "copy x"]
    assert "OTHER=1" in image.config.env
    assert it.session.scanned == [("files", ("x",))]
    image = await it.image("FROM files\nRUN one\n", contexts=contexts)
    assert it.ran() == ["copy /", "one"]
    assert len(image.layers) == 2


async def test_added_urls_and_repositories_are_fetched_and_decide_by_content() -> None:
    it = lab()
    it.fetcher.files["https://a.test/file"] = "file"
    it.fetcher.trees["https://a.test/x.git#v1"] = "tree:git"
    it.runner.contents = {"file": "1", "https://a.test/x.git#v1": "repository"}
    text = "FROM base\nADD https://a.test/file /f\nADD https://a.test/x.git#v1 /g\n"
    await it.build(text)
    assert len(it.ran()) == 2 and it.session.scanned == []
    await it.build(text)
    assert it.ran() == []
    it.runner.contents["file"] = "2"
    await it.build(text)
    assert len(it.ran()) == 2


async def test_one_slot_is_enough_for_a_mounted_context() -> None:
    it = Lab(slots=1)
    await it.build("FROM base\nRUN --mount=target=/src one\n")
    assert it.ran() == ["copy /", "one"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("FROM base AS a\nCOPY --from=a /x /\n", "this very stage"),
        ("FROM base AS a\nCOPY --from=b /x /\nFROM base AS b\nCOPY --from=a /x /\n", "later stage"),
        ("FROM base\nCOPY --from=99 /x /\n", "no stage 99"),
        ("FROM base\nCOPY --from=$X /x /\n", "variables"),
        ("FROM $X\n", "not set"),
        ("FROM ${X:?which}\n", "which"),
        ("FROM scratch:tag\n", "scratch"),
        ("FROM --platform=no/such/plat/form base\n", "platform"),
        ("FROM UPPER/Case\n", "lower case"),
        ("FROM base\nRUN --network=host x\n", "--allow network.host"),
        ("FROM base\nRUN --security=insecure x\n", "--allow security.insecure"),
        ("FROM base\nEXPOSE 0\n", "1–65535"),
        ("FROM base\nVOLUME /\n", "volume"),
        ("FROM base\nUSER 4294967296\n", "largest id"),
        ("FROM base\nSTOPSIGNAL SIGFOO\n", "signal"),
    ],
)
async def test_wrong_file_is_refused_before_anything_is_done(text: str, why: str) -> None:
    it = lab()
    with pytest.raises(FlotaError) as caught:
        await it.build("# one\n" + text)
    assert why in str(caught.value)
    assert "Dockerfile:" in str(caught.value)
    assert it.ran() == []


class Elsewhere(NoRemote):
    """Has nothing; `asked` counts by key."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    async def find(self, key: str) -> Record | None:
        self.asked[key] += 1
        return None


async def test_other_hosts_are_not_asked_for_what_stands_on_files_of_this_very_build() -> None:
    remote = Elsewhere()
    it = Lab(remote=remote)
    it.runner.contents = {"src": "1"}
    text = "FROM base AS a\nRUN one\nRUN two\nFROM a\nRUN three\nCOPY --link src /dst\nRUN four\n"
    await it.build(text)
    assert remote.asked.total() == 2, "the first step, and the linked copy, which stands on nothing"
    remote.asked.clear()
    await it.build(text.replace("three", "3"))
    assert it.ran()[-2:] == ["3", "four"]
    assert remote.asked.total() == 1, "what stands on a step from the cache may be elsewhere"
