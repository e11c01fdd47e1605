"""FLOTA_FUZZ_SECONDS: so long in all the targets of this tier go on, each with new examples."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Generator
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("FLOTA_FUZZ_SECONDS", "0"))
HERE = Path(__file__).parent
SHARE = pytest.StashKey[float]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    targets = [item for item in items if HERE in item.path.parents]
    for item in targets if SECONDS else ():
        item.stash[SHARE] = SECONDS / len(targets)
        item.add_marker(pytest.mark.timeout(item.stash[SHARE] + 900), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Only those that hypothesis draws examples for: others would do the same again."""
    end = time.monotonic() + pyfuncitem.stash.get(SHARE, 0.0)
    result = yield
    target = pyfuncitem.obj
    while hasattr(target, "hypothesis") and time.monotonic() < end:
        target._hypothesis_internal_use_seed = random.getrandbits(64)
        target()
    return result
