"""Bytes from an enemy where a build's frames should be: messages or InvalidInput, never anything else."""

from __future__ import annotations

import os
import random
import time

import msgspec
import pytest

from model.build import (
    FROM_CLIENT,
    FROM_HOST,
    MAX_FRAME,
    BuildRequest,
    Done,
    Exported,
    Instructed,
    Object,
    Outline,
    Scan,
    Scanned,
    SendTar,
    Start,
    StepMoved,
    StepSaid,
    Taken,
    Unframer,
    pack,
)
from model.errors import ErrorBody, InvalidInput

SECONDS = 60.0 if os.environ.get("FLOTA_FULL") == "1" else 2.0
CLIENTS = [
    Start(request=BuildRequest(dockerfile=b"FROM scratch\n", args={"A": "b"}, ulimits={"nofile": (1, 2)})),
    Scanned(ask=1, root="sha256:ab", error=ErrorBody(message="x")),
    Object(ask=1, digest="sha256:ab", data=b"x" * 100, last=True),
    Taken(size=5),
]
HOSTS = [Scan(ask=1, paths=("a", "b")), StepSaid(step=1, data=b"x"), StepMoved(step=1, what="y"),
         Exported(output=0, data=b"z"), SendTar(ask=1),
         Outline(instructions=(Instructed(line=1, source="FROM a"),)),
         Done(names=("a",), metadata={"k": "v"})]  # fmt: skip


def mutated(rng: random.Random, messages: list[object]) -> bytes:
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(300))
    data = bytearray(b"".join(pack(rng.choice(messages)) for _ in range(rng.randrange(1, 4))))  # type: ignore[arg-type]
    for _ in range(rng.randrange(6)):
        at = rng.randrange(len(data))
        data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(4))
    return bytes(data)


@pytest.mark.parametrize(("decoder", "messages"), [(FROM_CLIENT, CLIENTS), (FROM_HOST, HOSTS)])
def test_bytes_give_messages_or_a_refusal_and_no_more_than_a_frame_is_kept(
    decoder: msgspec.msgpack.Decoder[object], messages: list[object]
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng, end, read = random.Random(seed), time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        unframer = Unframer(decoder)
        data = mutated(rng, messages)
        try:
            for at in range(0, len(data), 37):
                for message in unframer.feed(data[at : at + 37]):
                    assert Unframer(decoder).feed(pack(message)) == [message]  # type: ignore[arg-type]
                    read += 1
        except InvalidInput as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
        assert len(unframer._buffer) <= MAX_FRAME + 41
    assert read
