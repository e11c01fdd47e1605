"""Provisioning's questions to the fleet, where nobody answers them."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

from cli.context import App
from cli.fleetapi import FleetOverApi
from model.errors import Unavailable

DEADLINE = 10


def test_a_controller_that_hangs_is_not_waited_for_nor_is_the_thread_that_asked_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "sock"))
        listening.listen()
        saved: list[BaseException] = []

        def ask() -> None:
            try:
                asyncio.run(FleetOverApi(App(f"unix://{tmp_path}/sock"), deadline=0.2).view())
            except Unavailable as error:
                saved.append(error)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(DEADLINE)
        assert not asking.is_alive() and "does not answer" in str(saved[0])
