"""What the differential test takes for equal: trees put together of layers, and normal configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.differential import trees
from tests.differential.case import THEN, F, Hard, L, copied, file, folder, tar_of
from tests.differential.opinions import document
from tests.differential.table import CASES
from tests.differential.trees import Image, changed, differences, normal, over
from tests.support.images import docker_archive, image, member, tar


def test_layer_over_a_tree_replaces_and_removes() -> None:
    below = over({}, tar_of({"d/a": F("1"), "d/b": F("2"), "d/s/c": F("3"), "l": L("d")}))
    above = over(below, tar_of({"d/.wh.a": F(), "d/s/.wh..wh..opq": F(), "d/s/new": F("4"), "l": F("file")}))
    assert above == {"d/b": copied("2"), "d/s/new": copied("4"), "l": copied("file")}


def test_opaque_folder_hides_what_is_below_not_beside() -> None:
    below = over({}, tar_of({"d/old": F("1")}))
    assert over(below, tar_of({"d/new": F("2"), "d/.wh..wh..opq": F()})) == {"d/new": copied("2")}


def test_file_over_a_folder_hides_all_of_it() -> None:
    below = over({}, tar_of({"d/a": F("1")}))
    assert over(below, tar_of({"d": F("2")})) == {"d": copied("2")}


def test_young_times_are_left_out_and_old_ones_kept() -> None:
    tree = over({}, tar(member("new", b"1", mtime=1_700_000_000), member("old", b"1", mtime=5)))
    assert tree == {"new": file("1"), "old": file("1", mtime=5)}


def test_hard_links_are_told_by_their_first_name() -> None:
    layers = [tar_of({"b": F("1"), "a": Hard("b"), "c": F("1")})]
    tree = trees.read(docker_archive(image(layers), layers)).tree
    assert [tree[name].twin for name in "abc"] == ["a", "a", ""]


def test_hard_link_whose_other_name_is_gone_is_a_file() -> None:
    layers = [tar_of({"b": F("1"), "a": Hard("b")}), tar_of({".wh.b": F()})]
    assert trees.read(docker_archive(image(layers), layers)).tree == {"a": copied("1")}


def test_attributes_are_part_of_a_file() -> None:
    entry = member("a", b"1", mtime=THEN)
    entry[0].pax_headers = {"SCHILY.xattr.user.note": "x"}
    assert over({}, tar(entry)) == {"a": copied("1", user__note=b"x")}


def test_long_content_is_told_by_size_and_digest() -> None:
    one, other = (over({}, tar_of({"a": F(letter * 1000)}))["a"].content for letter in "xy")
    assert one.startswith(b"1000 bytes, ") and one != other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"Env": [], "Cmd": None, "Labels": {}, "Volumes": None, "WorkingDir": "/", "OnBuild": []}),
        ({"Labels": {"a": "b"}}, {"Labels": {"a": "b", "io.buildah.version": "1"}}),
        ({"ExposedPorts": {"2/tcp": {}, "1/tcp": {}}}, {"ExposedPorts": {"1/tcp": {}, "2/tcp": {}}}),
        ({"Healthcheck": {"Test": ["NONE"]}}, {"Healthcheck": {"Test": ["NONE"], "Interval": 0}}),
        ({"Volumes": {"/a": {}}}, {"Volumes": {"/a/": {}}}),
        ({"Cmd": ["x"]}, {"Cmd": ["x"], "Hostname": "abc", "Image": "sha256:1", "ArgsEscaped": True}),
    ],
)
def test_configurations_that_mean_the_same_are_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert normal({"config": one}) == normal({"config": other})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"Env": ["a=1", "b=2"]}, {"Env": ["b=2", "a=1"]}),
        ({"Cmd": ["x"]}, {"Entrypoint": ["x"]}),
        ({"WorkingDir": "/a"}, {"WorkingDir": "/a/"}),
        ({"Healthcheck": {"Test": ["NONE"]}}, {}),
        ({"StopSignal": "9"}, {"StopSignal": "SIGKILL"}),
    ],
)
def test_configurations_that_differ_do(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert normal({"config": one}) != normal({"config": other})


def test_differences_name_each_file_and_key() -> None:
    one = Image({"Cmd": ["a"]}, {"x": file("1", 0o600), "y": folder()})
    other = Image({"Cmd": ["b"]}, {"x": file("1", 0o644, (5, 0))})
    assert differences(one, one) == []
    assert differences(one, other) == [
        'config Cmd: ["a"] | ["b"]',
        "/x: file 0600 0:0 b'1' | file 0644 5:0 b'1'",
        "/y: dir 0755 0:0 b'' | -",
    ]


def test_changes_of_a_base_are_told_with_what_is_gone() -> None:
    base = {"a": file("1"), "b": file("2")}
    assert changed(base, {"a": file("1"), "c": file("3")}) == {"b": None, "c": file("3")}


def test_archive_with_gzipped_layers_is_read() -> None:
    built = image([tar_of({"a": F("1")})])
    [packed] = [blob for name, blob in built.blobs.items() if name not in (built.id,)]
    assert trees.read(docker_archive(built, [packed])).tree == {"a": copied("1")}


def test_document_of_disagreements_is_what_the_cases_say() -> None:
    """Write it anew by `python -m tests.differential.opinions >docs/build-differences.md`."""
    written = Path(__file__).parents[2] / "docs/build-differences.md"
    assert written.read_text(encoding="utf-8") == document(CASES)
