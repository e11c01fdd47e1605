"""Bytes that a client sends, counted on their way."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from bench.counted import counted


def test_bytes_of_a_client_are_counted_and_arrive(tmp_path: Path) -> None:
    """Those of the answer are not; the client's end of input is told to the server."""
    got: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "server"))
        server.listen()

        def serve() -> None:
            peer, _ = server.accept()
            with peer, peer.makefile("rb") as sent:
                got.append(sent.read())
                peer.sendall(b"an answer")

        thread = threading.Thread(target=serve)
        thread.start()
        with counted(tmp_path / "way", str(tmp_path / "server")) as count:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "way"))
                client.sendall(b"x" * 100_000)
                client.shutdown(socket.SHUT_WR)
                assert client.makefile("rb").read() == b"an answer"
            assert count.sent == 100_000
        thread.join()
    assert got == [b"x" * 100_000]
    assert not (tmp_path / "way").exists()
