"""Network drivers of third parties: found by their entry points, loaded by name.

Only what the host's owner names is loaded: a package that is merely installed runs nothing. For `main.py`
files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points

from model.errors import InvalidInput
from net.backend.base import Backend, Features

GROUP = "flota.backends"
_PARTS = ("validate", "traits", "fragment", "unreached", "overhead")


def load(names: Iterable[str]) -> Mapping[str, Backend]:
    """An instance of each. Raises InvalidInput naming the first that is not there or is no driver."""
    return {name: _one(name) for name in dict.fromkeys(names)}


def _one(name: str) -> Backend:
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if len(found) != 1:
        many = f"several packages have it ({', '.join(point.value for point in found)})"
        raise InvalidInput(
            f"network driver {name}: {many if found else 'no package has it'}",
            hint=f"Install one package with an entry point {name} of group {GROUP} beside flota",
        )
    (point,) = found
    try:
        backend = point.load()()
    except Exception as error:  # whatever a stranger's code raises
        raise InvalidInput(f"network driver {name}: {point.value} can't be loaded: {error!r}") from error
    lacks = [part for part in _PARTS if not callable(getattr(backend, part, None))]
    if not isinstance(getattr(backend, "features", None), Features):
        lacks.append("features")
    if lacks:
        raise InvalidInput(
            f"network driver {name}: {point.value} has no {', '.join(lacks)}",
            hint="It was written for another version: see docs/drivers.md",
        )
    made: Backend = backend
    return made
