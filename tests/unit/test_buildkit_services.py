"""What BuildKit's Control says of caches and results, without a connection."""

from __future__ import annotations

import pytest

from api.docker.buildkit.control import PruneRequest
from api.docker.buildkit.messages import Timestamp
from api.docker.buildkit.services import response
from api.docker.buildkit.usage import record, wish_of
from model.build import Built, Done
from model.buildcache import CacheEntry, CachePrune
from model.errors import InvalidInput, Unsupported


def test_prune_keeps_what_it_is_told_to_keep() -> None:
    asked = PruneRequest(all=True, unused=3_600_000_000_000, reserved=10, most=30)
    assert wish_of(asked) == CachePrune(all=True, unused_for=3600.0, keep=30)
    assert wish_of(PruneRequest()) == CachePrune()


@pytest.mark.parametrize(
    "asked", [PruneRequest(filters=("type==regular",)), PruneRequest(free=1), PruneRequest(reserved=-1)]
)
def test_prune_by_what_is_not_done_here_removes_nothing(asked: PruneRequest) -> None:
    with pytest.raises((InvalidInput, Unsupported)):
        wish_of(asked)


def test_record_of_the_cache_says_what_it_is_and_where() -> None:
    entry = CacheEntry(id="x", kind="mount", source="RUN a", size=5, created=1.5, in_use=True)
    seen = record(entry, "n1")
    assert (seen.id, seen.mutable, seen.in_use, seen.size) == ("x", True, True, 5)
    assert (seen.type, seen.description) == ("exec.cachemount", "RUN a (n1)")
    assert seen.created == Timestamp(seconds=1, nanos=500_000_000) and seen.used is None


def test_response_of_a_build_names_its_image_by_both_digests() -> None:
    done = Done(images=(Built(image="sha256:c"),), digest="sha256:m", metadata={"a": '"t"', "b": '{"k": 1}'})
    assert response(done) == {
        "a": "t",
        "b": '{"k": 1}',
        "containerimage.config.digest": "sha256:c",
        "containerimage.digest": "sha256:m",
    }
    assert response(Done()) == {}
