"""A root file system with names that a layer's readers take for removals."""

from __future__ import annotations

import io

import pytest

from image.extract import Extractor
from image.tarstream import TarReader
from model.errors import Unsupported
from tests.support.images import member, tar


@pytest.mark.parametrize("name", ["proc/.wh.x", "proc/.wh..wh..opq", "./proc/.wh.d/x"])
def test_name_of_a_whiteout_in_a_root_file_system_is_refused(name: str) -> None:
    """In /proc, where nothing can be made whatever happens."""
    extractor = Extractor(whiteouts=False, max_bytes=100, max_files=100)
    with pytest.raises(Unsupported, match=r"wh.* has a name that no layer can hold"):
        extractor.run(TarReader(io.BytesIO(tar(member(name, b"x"))).read))
