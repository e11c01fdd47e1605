"""Programs of this machine as seeds, with the libraries that they are linked to: suites count on them.

Invariant: nothing is fetched; a machine that lacks one says which.
"""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

from tests.conformance.seeds import Seed

_LINKED = re.compile(r"(/\S+) \(0x[0-9a-f]+\)")
_LEFT_OUT = {"__pycache__", "test", "tests", "idlelib", "ensurepip", "lib2to3", "pydoc_data", "turtledemo"}
"""Of Python's library: what no test of a container needs."""
_REGISTRY = """\
version: 0.1
storage:
  filesystem: {rootdirectory: /var/lib/registry}
http:
  addr: :5000
"""


@cache
def _linked(program: Path) -> dict[str, bytes]:
    """The shared libraries of a program, its loader among them, by their paths in an image."""
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True)
    paths = [Path(path) for path in _LINKED.findall(done.stdout)]
    return {str(path).removeprefix("/"): path.read_bytes() for path in paths}


@cache
def _library() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """This machine's interpreter with all that it and its modules are linked to, and its standard library."""
    program = Path("/usr/bin/python3").resolve()
    top = Path("/usr/lib") / program.name
    files: dict[str, bytes] = {}
    for path in sorted(top.rglob("*")):
        if path.is_file() and not _LEFT_OUT & set(path.relative_to(top).parts):
            files[str(path).removeprefix("/")] = path.read_bytes()
    programs = {"usr/bin/python": program.read_bytes(), **_linked(program)}
    for module in top.glob("lib-dynload/*.so"):
        programs |= _linked(module)
    return programs, files


def python(name: str) -> Seed:
    """An image whose `python` is this machine's, whatever version the name says."""
    programs, files = _library()
    return Seed(name, extra=files, programs=programs, config={"Cmd": ["python"]})


def registry(name: str) -> Seed:
    """Docker's registry, as its image behaves: settings come by REGISTRY_… variables."""
    program = Path("/usr/bin/docker-registry")
    place = "etc/docker/registry/config.yml"
    return Seed(
        name,
        extra={place: _REGISTRY.encode()},
        programs={"usr/bin/docker-registry": program.read_bytes(), **_linked(program)},
        config={
            "Entrypoint": ["docker-registry"],
            "Cmd": ["serve", f"/{place}"],
            "ExposedPorts": {"5000/tcp": {}},
            "Volumes": {"/var/lib/registry": {}},
        },
    )
