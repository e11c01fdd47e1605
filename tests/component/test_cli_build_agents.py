"""SSH agents of the client, and a host that opens more of them than an honest one."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.build.agents import MOST, Agents
from model.build import FROM_CLIENT, OpenSsh, SshData, Unframer

IDENT = "default"


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as selector:
        server.bind(path)
        server.listen(2 * MOST)
        made = Agents({IDENT: path}, selector)
        yield made
        made.close()


def refused(frames: bytes) -> bool:
    return Unframer(FROM_CLIENT).feed(frames) == [SshData(channel=1)] if frames else False


def test_agent_that_was_not_named_is_not_reached(agents: Agents) -> None:
    assert refused(agents.open(OpenSsh(channel=1, ident="other")))
    assert not agents.open(OpenSsh(channel=1, ident=IDENT))


def test_host_opens_each_channel_once_and_not_any_number(agents: Agents) -> None:
    assert not agents.open(OpenSsh(channel=1, ident=IDENT))
    assert refused(agents.open(OpenSsh(channel=1, ident=IDENT)))
    for channel in range(2, MOST + 1):
        assert not agents.open(OpenSsh(channel=channel, ident=IDENT))
    assert agents.open(OpenSsh(channel=MOST + 1, ident=IDENT))
    agents.said(SshData(channel=2))
    assert not agents.open(OpenSsh(channel=MOST + 1, ident=IDENT))
