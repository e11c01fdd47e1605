"""What a build tells of its image and of its contexts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.build.outputs import Outputs, check
from agent.build.trees import folders, joined
from agent.builds import Contexts
from image.build.fake import FakeFetcher, FakeSession, FakeSnapshots
from image.fake import FakeImages, record
from image.tarwriter import END
from model.build import BuildRequest, Built, Context, Done, Output
from model.errors import FlotaError


class Given(Outputs):
    """Sends no files."""

    async def _files(self, number: int, output: Any, request: Any, made: Any) -> None:
        return


@contextlib.contextmanager
def told(name: str) -> Iterator[int]:
    del name
    yield 1


@pytest.mark.parametrize(
    ("kinds", "has"),
    [(("local",), False), (("tar", "local"), False), (("tar", "oci"), True), (("image",), True)],
)
async def test_image_is_told_of_only_if_somebody_gets_it(
    tmp_path: Path, kinds: tuple[Any, ...], has: bool
) -> None:
    image = record("a")
    context = cast(Any, SimpleNamespace(images=FakeImages(tmp_path, [image])))
    outputs = Given(context, FakeSnapshots(), FakeSession(), told)
    request = BuildRequest(dockerfile=b"", outputs=tuple(Output(kind=kind) for kind in kinds))
    done = await outputs.deliver(request, Done(images=(Built(image=image.id, platform="linux/amd64"),)))
    [built] = done.images
    assert (built.image == image.id, bool(done.metadata), built.platform) == (has, has, "linux/amd64")


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("https://user:canary@h/a.git#main:d", "https://h/a.git#main:d"),
        ("https://canary@h:8/a@b", "https://h:8/a@b"),
        ("git@h:a/b.git", "git@h:a/b.git"),
        ("github.com/a/b@c", "github.com/a/b@c"),
    ],
)
async def test_context_is_told_of_without_its_password(ref: str, told: str) -> None:
    steps: list[str] = []

    @contextlib.contextmanager
    def step(name: str) -> Iterator[int]:
        steps.append(name)
        yield 1

    fetcher = FakeFetcher()
    fetcher.trees[ref] = "sha256:1"
    assert await Contexts(fetcher, step).context(Context(kind="git", ref=ref)) == "sha256:1"
    assert steps == [f"[internal] load git context {told}"]


@pytest.mark.parametrize(
    ("platforms", "said", "names"),
    [
        (("",), "", ("",)),
        (("linux/arm/v7",), "", ("",)),
        (("linux/arm/v7",), "true", ("linux_arm_v7",)),
        (("linux/amd64", "linux/arm64"), "", ("linux_amd64", "linux_arm64")),
    ],
)
def test_files_of_several_platforms_have_a_folder_each(
    platforms: tuple[str, ...], said: str, names: tuple[str, ...]
) -> None:
    options = {"platform-split": said} if said else {}
    assert folders(Output(kind="local", options=options), platforms) == names


@pytest.mark.parametrize(
    ("output", "refused"),
    [
        (Output(kind="local"), ""),
        (Output(kind="tar"), ""),
        (Output(kind="oci"), ""),
        (Output(kind="docker"), "of one platform"),
        (Output(kind="local", options={"platform-split": "false"}), "not mixed"),
        (Output(kind="local", options={"platform-split": "perhaps"}), "platform-split"),
    ],
)
def test_output_of_several_platforms_is_judged_before_the_build(output: Output, refused: str) -> None:
    request = BuildRequest(dockerfile=b"", outputs=(output,), platforms=("linux/amd64", "linux/arm64"))
    with pytest.raises(FlotaError, match=refused) if refused else contextlib.nullcontext():
        check(request)


@pytest.mark.parametrize("size", [1, 700, 5000])
async def test_tars_are_joined_with_one_end_however_they_come(size: int) -> None:
    async def tree(content: bytes) -> AsyncIterator[bytes]:
        data = content + END
        for at in range(0, len(data), size):
            yield data[at : at + size]

    parts = [b"a" * 1536, b"", b"b" * 512]
    whole = b"".join([piece async for piece in joined([partial(tree, part) for part in parts])])
    assert whole == b"".join(parts) + END
