"""Bytes from an enemy where a PROXY header should be: a value or InvalidInput, never anything else."""

from __future__ import annotations

import os
import random
import time

from model.errors import InvalidInput
from net.proxy.header import SIGNATURE, Header, decode, encode

SECONDS = 60.0 if os.environ.get("FLOTA_FULL") == "1" else 2.0


def mutated(rng: random.Random) -> bytes:
    kind = rng.choice(("v1", "v2", "tail", "noise"))
    header = Header(
        source="192.0.2.7", source_port=rng.randrange(65536), destination="192.0.2.9", destination_port=443
    )
    if kind == "noise":
        return rng.randbytes(rng.randrange(300))
    if kind == "tail":
        return rng.choice((SIGNATURE, b"PROXY ", b"PROXY TCP6 ")) + rng.randbytes(rng.randrange(200))
    data = bytearray(encode(header, "v1" if kind == "v1" else "v2"))
    for _ in range(rng.randrange(4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randrange(len(data) + 1)]) + rng.randbytes(rng.randrange(20))


def test_decode_gives_a_value_or_a_refusal_and_reads_no_further_than_it_says() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng, end, read = random.Random(seed), time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        data = mutated(rng)
        try:
            found = decode(data)
        except InvalidInput:
            continue
        if found is None:
            continue
        header, size = found
        read += 1
        assert size <= len(data) and decode(data[:size]) == found
        for version in ("v1", "v2"):
            again = encode(header, "v1" if version == "v1" else "v2")
            assert decode(again) == (header, len(again))
    assert read
