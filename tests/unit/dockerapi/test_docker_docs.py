"""docs/docker-api.md says what the code does: its tables are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.docker.described import tables
from api.docker.errors import Refusal
from api.docker.unserved import refuse

DOCS = Path(__file__).resolve().parents[3] / "docs" / "docker-api.md"


def test_tables_of_the_page_are_those_of_the_code() -> None:
    assert DOCS.read_text().endswith(tables()), "python -m api.docker.described docs/docker-api.md"


@pytest.mark.parametrize(
    "path",
    [
        "/secrets",
        "/secrets/create",
        "/containers/x/checkpoints",
        "/containers/x/attach/ws",
    ],
)
def test_endpoint_that_docker_has_and_we_have_not_is_refused_with_why(path: str) -> None:
    with pytest.raises(Refusal) as refused:
        refuse(path)
    assert refused.value.status == 501 and "not supported" in refused.value.message


@pytest.mark.parametrize("path", ["/secretsx", "/info", "/containers/secrets/json"])
def test_other_paths_are_not(path: str) -> None:
    refuse(path)
