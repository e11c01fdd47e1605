"""Elements of sets, changed by netlink."""

from __future__ import annotations

import pytest

from net.kernel import nfnetlink
from net.loadbalance import ElementChange
from tests.support.ownnetns import own_network_namespace

pytestmark = pytest.mark.kernel


def test_change_that_is_refused_says_the_kernels_reason() -> None:
    change = ElementChange(new={"served4": {b"\x0a\x00\x00\x01": b""}}, gone={})
    with own_network_namespace(), nfnetlink.connect() as link, pytest.raises(FileNotFoundError):
        nfnetlink.change_elements(link, "flota_nowhere", change)
