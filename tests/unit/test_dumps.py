"""Listings of the kernel's tables while others change them, and how its refusals are told."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence

import pytest

from model.errors import CommandFailed, DeadlineExceeded
from net.kernel import nfnetlink, rtnl
from net.kernel.linux import refusing

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Ours, and the one by which the kernel answers; what it said already waits to be read."""
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(1.0)
    with ours, kernels:
        yield ours, kernels


def say(kernel: socket.socket, payload: bytes, *, interrupted: bool) -> None:
    """One dump of one row."""
    flags = rtnl.DUMP_INTR if interrupted else 0
    row = struct.pack("=IHHII", 16 + len(payload), 1000, flags, 1, 0) + payload
    kernel.send(row + struct.pack("=IHHIIi", 20, rtnl.NLMSG_DONE, 0, 1, 0, 0))


def test_list_that_changed_while_it_was_written_is_asked_for_anew(ends: Ends) -> None:
    ours, kernel = ends
    for payload, interrupted in ((b"half", True), (b"less", True), (b"good", False)):
        say(kernel, payload, interrupted=interrupted)
    assert rtnl.dump(ours, 22, bytes(8)) == [b"good"]


def test_rules_that_docker_commits_to_meanwhile_are_listed_anew(ends: Ends) -> None:
    ours, kernel = ends
    rule = bytes(4) + rtnl.attr(2, b"DOCKER-USER\0") + rtnl.attr(3, struct.pack(">Q", 7))
    say(kernel, bytes(4), interrupted=True)
    say(kernel, rule, interrupted=False)
    handles = nfnetlink.rule_handles(ours, nfnetlink.AF_INET, "filter")
    assert handles == (("DOCKER-USER", 7),)


def test_list_that_never_stands_still_is_told_in_words(ends: Ends) -> None:
    ours, kernel = ends
    for _ in range(rtnl.TRIES):
        say(kernel, b"half", interrupted=True)
    with pytest.raises(CommandFailed, match="changed 20 times while it was listed"):
        rtnl.dump(ours, 22, bytes(8))


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (OSError(errno.ENOBUFS, "No buffer space available"), "cannot look: No buffer space available"),
        (TimeoutError("timed out"), "cannot look: timed out"),
        (DeadlineExceeded("iptables took longer than 10 s"), "cannot look: iptables took longer than 10 s"),
        (CommandFailed("nft refused"), "nft refused"),
    ],
)
def test_refusal_of_any_kind_is_one_that_callers_expect(refusal: Exception, words: str) -> None:
    def fail(errors: Sequence[Exception]) -> None:
        raise errors[0]

    with pytest.raises(CommandFailed) as told, refusing("look"):
        fail([refusal])
    assert str(told.value) == words
