"""What a build tells of its image and of its contexts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.build.outputs import Outputs
from agent.builds import Contexts
from image.build.fake import FakeFetcher, FakeSession, FakeSnapshots
from image.fake import FakeImages, record
from model.build import BuildRequest, Built, Context, Done, Output


class Given(Outputs):
    """Sends no files."""

    async def _files(self, number: int, image: Any) -> None:
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
