"""What the client makes of standard input, however it drips."""

from __future__ import annotations

import gzip
import io

import pytest

from cli.build.contexts import material
from cli.build.request import Where, Wish
from image.context.sinks import TarSource
from model.build import BuildRequest
from tests.support.contexts import Dripping
from tests.support.images import member, tar

TAR = tar(member("Dockerfile", b"FROM scratch\n"), member("a", b"a" * 5000))


@pytest.mark.parametrize("data", [TAR, gzip.compress(TAR)])
def test_tar_that_comes_in_drops_is_a_context(data: bytes) -> None:
    wish = Wish(request=BuildRequest(dockerfile=b""), contexts={"": Where(place="stdin", ref="-")})
    found = material(wish, io.BufferedReader(Dripping(data)))
    source = found.sources[""]
    assert found.text == b"FROM scratch\n" and isinstance(source, TarSource)
    assert b"".join(source.pieces(source.scan(()).root)).count(b"sha256:") == 2
    source.close()


def test_dockerfile_that_comes_in_drops_is_one() -> None:
    wish = Wish(request=BuildRequest(dockerfile=b""), contexts={"": Where(place="stdin", ref="-")})
    found = material(wish, io.BufferedReader(Dripping(b"FROM scratch\n" * 100)))
    assert found.text == b"FROM scratch\n" * 100 and not found.sources
