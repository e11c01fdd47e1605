"""Wheels of the libraries that this very environment has, so that bundles are made without an index."""

from __future__ import annotations

import hashlib
import re
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

from deploy.bundle import LOCK, Target

HERE = Target(python="{}.{}".format(*sys.version_info[:2]))


def fill(cache: Path, target: Target = HERE) -> None:
    """As if `deploy.bundle` had fetched them."""
    key = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    folder = cache / "wheels" / f"{key}-{target}"
    folder.mkdir(parents=True)
    for line in re.findall(r"^\S+==\S+", LOCK.read_text(), re.MULTILINE):
        name = line.partition("==")[0]
        with zipfile.ZipFile(folder / f"{line.replace('==', '-')}-py3-none-any.whl", "w") as wheel:
            for file in distribution(name).files or ():
                path = Path(str(file.locate()))
                if ".." not in file.parts and file.suffix != ".pyc" and path.is_file():
                    wheel.write(path, str(file))
