"""SSH agents of the client, and a host that opens more of them than an honest one."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import asyncssh
import pytest

from cli.build.agents import MOST, Agents
from deploy.sshkeys import KeyAgent, read_keys
from model.build import FROM_CLIENT, OpenSsh, SshData, Unframer
from model.errors import FlotaError

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


def question(kind: int, *parts: bytes, flags: int | None = None) -> bytes:
    body = bytes([kind]) + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    body += b"" if flags is None else flags.to_bytes(4, "big")
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    ("kind", "flags", "algorithm"),
    [
        ("ssh-ed25519", 0, b"ssh-ed25519"),
        ("ecdsa-sha2-nistp256", 0, b"ecdsa-sha2-nistp256"),
        ("ssh-rsa", 2, b"rsa-sha2-256"),
        ("ssh-rsa", 4, b"rsa-sha2-512"),
    ],
)
def test_key_of_a_file_is_listed_and_signs_without_an_agent(
    tmp_path: Path, kind: str, flags: int, algorithm: bytes
) -> None:
    key = asyncssh.generate_private_key(kind)
    key.write_private_key(tmp_path / "key")
    with selectors.DefaultSelector() as selector:
        agents = Agents({}, selector, {IDENT: partial(KeyAgent, read_keys([str(tmp_path / "key")]))})
        assert not agents.open(OpenSsh(channel=1, ident=IDENT))
        asked = question(11) + question(13, key.public_data, b"challenge", flags=flags)
        frames = b"".join(
            agents.said(SshData(channel=1, data=asked[at : at + 3])) for at in range(0, len(asked), 3)
        )
        said = b"".join(one.data for one in Unframer(FROM_CLIENT).feed(frames) if isinstance(one, SshData))
        listed = said[: 4 + int.from_bytes(said[:4], "big")]
        assert listed[4] == 12 and key.public_data in listed
        signed = said[len(listed) :]
        assert signed[4] == 14 and algorithm in signed
        assert asyncssh.import_public_key(key.export_public_key()).verify(b"challenge", signed[9:])
        assert key.export_private_key() not in said
        assert refused(agents.said(SshData(channel=1)))
        assert not agents.open(OpenSsh(channel=1, ident=IDENT)), "the channel had ended"


@pytest.mark.parametrize(
    "asked",
    [question(13, b"other", b"x", flags=0), question(13, b"cut"), question(17, b"a key"), question(19)],
)
def test_question_that_keys_have_no_answer_to_fails_and_changes_nothing(asked: bytes) -> None:
    agent = KeyAgent([asyncssh.generate_private_key("ssh-ed25519")])
    assert agent.feed(asked) == b"\0\0\0\1\5"
    assert agent.feed(question(11))[4] == 12


def test_host_that_speaks_something_else_to_keys_is_cut_off() -> None:
    with selectors.DefaultSelector() as selector:
        agents = Agents({}, selector, {IDENT: partial(KeyAgent, ())})
        assert not agents.open(OpenSsh(channel=1, ident=IDENT))
        assert refused(agents.said(SshData(channel=1, data=b"GET / HTTP/1.1")))
        assert agents.said(SshData(channel=1, data=question(11))) == b""


def test_file_that_is_no_open_key_is_refused_with_what_to_do(tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "locked", "pkcs8-pem", passphrase="word")
    (tmp_path / "text").write_bytes(b"\xff no key")
    for name, said in (("locked", "passphrase"), ("text", "no private key"), ("nosuch", "no such file")):
        with pytest.raises(FlotaError, match=said):
            read_keys([str(tmp_path / name)])
