"""What the command line calls OCI layouts."""

from __future__ import annotations

import pytest

from image.context.layouts import Layout, layout_of
from model.errors import InvalidInput

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("dir", Layout(folder="dir")),
        ("/a/b:v1", Layout(folder="/a/b", tag="v1")),
        ("./a:b/c", Layout(folder="./a:b/c")),
        ("a@b/c", Layout(folder="a@b/c")),
        (f"dir@{DIGEST}", Layout(folder="dir", digest=DIGEST)),
        (f"dir:v1@{DIGEST}", Layout(folder="dir", tag="v1", digest=DIGEST)),
    ],
)
def test_name_of_a_layout_has_a_folder_and_may_have_tag_and_digest(text: str, layout: Layout) -> None:
    assert layout_of(text) == layout


@pytest.mark.parametrize("text", ["", ":v1", "dir:", "dir@sha256:12", f"@{DIGEST}"])
def test_name_that_lacks_a_part_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        layout_of(text)
