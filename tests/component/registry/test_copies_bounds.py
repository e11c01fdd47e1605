"""What a host that was taken over can make of the end points for copies: little."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.copyplan import BELIEVED
from image.registry.server.limits import Limits
from model.registrycopies import CopyReport
from tests.support.images import digest
from tests.support.servedcopies import copies_served

pytestmark = pytest.mark.timeout(60)
LIMITS = Limits(reserve=0)
WASTE = digest(b"waste")


async def test_state_that_a_host_only_speaks_of_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async with copies_served(tmp_path, "liar", "good", limits=LIMITS) as served:
        for day, dropped in enumerate([(), (WASTE,)]):
            claim = CopyReport(lineage="f" * 32, generation=day)
            assert (await served.report("liar", claim)).send_index
            own = await served.ask("good", "GET", "/index")
            head = {
                "lineage": own.headers["Flota-Lineage"],
                "generation": int(own.headers["Flota-Generation"]),
            }
            told = await served.report("good", CopyReport(have=(WASTE,), **head))  # type: ignore[arg-type]
            assert told.drop == dropped
            await served.clock.advance(BELIEVED + 1)
