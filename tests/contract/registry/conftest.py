"""The two registries that the same requirements are asked of: the fleet's own, and the field's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.dockerregistry import docker_registry
from tests.support.fleetregistry import Client, serving

PREFIX = "test_registry_conformance_"
OURS, THEIRS = "flota", "docker-registry"
BEHIND = {
    "pull_11": "a range beyond the blob is its whole",
    "push_7": "the range of a closing PUT is not looked at",
    "push_9": "the range of a chunk is not looked at",
    "push_12": "a mount has to name its source",
    "push_13": "a chunk of another length is taken",
    "push_20": "a manifest of 4 MiB is refused",
    "push_21": "400 for a missing blob",
    "push_22": "400 for a missing manifest",
    "push_24": "no referrers",
    "push_26": "no digests but sha256",
    "push_27": "no digests but sha256",
    "push_28": "no digests but sha256",
    "discovery_2": "tags come in no order",
    "discovery_4": "a repository without tags is none",
    "discovery_5": "lists of tags have no pages",
    "discovery_6": "lists of tags have no pages",
    "discovery_7": "lists of tags have no pages",
    "discovery_8": "lists of tags have no order",
    **{f"discovery_{number}": "no referrers" for number in range(9, 15)},
    "management_1": "tags can't be deleted",
    "management_6": "no referrers",
}
"""Where docker-registry 2.8, older than 1.1, does not what the specification asks, by requirement."""


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with docker_registry(tmp_path_factory.mktemp("oracle")) as port:
        yield port


@pytest.fixture(params=[OURS, THEIRS])
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    if request.param == OURS:
        async with serving(tmp_path / "registry") as served:
            yield served.client
        return
    port = request.getfixturevalue("oracle")
    number = "_".join(request.node.originalname.removeprefix(PREFIX).split("_", 2)[:2])
    if number in BEHIND:
        request.node.add_marker(pytest.mark.xfail(strict=True, reason=BEHIND[number]))
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield Client(f"http://127.0.0.1:{port}", session)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository that no other test has."""
    return "c/" + request.node.originalname.removeprefix(PREFIX)[:60]
