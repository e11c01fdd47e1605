"""What a build tells of its image, by what became of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.build.outputs import Outputs
from image.build.fake import FakeSession, FakeSnapshots
from image.fake import FakeImages, record
from model.build import BuildRequest, Built, Done, Output


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
