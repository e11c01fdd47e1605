"""How an image came about, as lines: the newest first, each layer's size at the step that made it."""

from __future__ import annotations

from cli.commands.registries import _cut, _steps

RECORD = {
    "id": "sha256:" + "ab" * 32,
    "layer_sizes": [100, 7],
    "history": [
        {"created": "2024-01-01T00:00:00Z", "created_by": "ADD rootfs /", "comment": "base"},
        {"created_by": "ENV A=1", "empty_layer": True},
        {"created_by": "COPY b /b"},
    ],
}


def test_sizes_stand_at_the_steps_that_made_layers() -> None:
    rows = _steps(RECORD, False)
    assert [(row["created_by"], row["size"]) for row in rows] == [
        ("COPY b /b", 7),
        ("ENV A=1", 0),
        ("ADD rootfs /", 100),
    ]
    assert [row["id"] for row in rows] == ["abababababab", "<missing>", "<missing>"]
    assert rows[2]["comment"] == "base" and rows[2]["created_since"].endswith("ago")


def test_image_of_an_older_release_has_no_sizes() -> None:
    assert {row["size"] for row in _steps({**RECORD, "layer_sizes": []}, True)} == {0}


def test_image_without_history_has_no_lines() -> None:
    assert _steps({"id": "sha256:" + "ab" * 32}, False) == []


def test_created_by_is_one_line_of_dockers_length() -> None:
    assert _cut("RUN a\n  && b", False) == "RUN a && b"
    assert len(_cut("x" * 100, False)) == 45 and _cut("x" * 100, True) == "x" * 100
