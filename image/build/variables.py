"""What names mean at one place of a Dockerfile, and which of them were asked for. Pure.

Invariant: ENV is stronger than ARG, wherever either stands (Docker's reference; BuildKit lets a later ARG
hide an ENV).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from image.dockerfile import words
from image.dockerfile.faults import DockerfileFault
from image.dockerfile.instruction import Spot
from model.errors import InvalidInput

T = TypeVar("T")
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def is_proxy(name: str) -> bool:
    """An argument that is predefined: a RUN gets it though no ARG names it."""
    return name.lower() in PROXIES and name in (name.lower(), name.upper())


class Variables:
    """`values` by name; `file` is what messages call the Dockerfile."""

    def __init__(self, values: Mapping[str, str], *, escape: str = "\\", file: str = "Dockerfile") -> None:
        self._values = values
        self._escape = escape
        self._file = file
        self.used: set[str] = set()
        self.unset: set[str] = set()

    def word(self, text: str, spot: Spot) -> str:
        """One word, quotes removed. Raises DockerfileFault."""
        return self._expanded(lambda: words.expand(text, self._find, escape=self._escape), spot)

    def words(self, text: str, spot: Spot) -> tuple[str, ...]:
        """As many words as its value has."""
        return self._expanded(lambda: words.expand_words(text, self._find, escape=self._escape), spot)

    def document(self, text: str, spot: Spot) -> str:
        """A heredoc's content: quotes mean nothing there, and its escape is always the backslash."""
        return self._expanded(lambda: words.expand_heredoc(text, self._find), spot)

    def _find(self, name: str) -> str | None:
        value = self._values.get(name)
        (self.unset if value is None else self.used).add(name)
        return value

    def _expanded(self, work: Callable[[], T], spot: Spot) -> T:
        try:
            return work()
        except DockerfileFault:
            raise
        except InvalidInput as error:
            raise DockerfileFault(error.message, spot, file=self._file, hint=error.hint) from error


def env_of(config_env: tuple[str, ...]) -> dict[str, str]:
    """`KEY=value`, in order, as a mapping."""
    return {key: value for key, _, value in (entry.partition("=") for entry in config_env)}


def with_env(config_env: tuple[str, ...], *pairs: tuple[str, str]) -> tuple[str, ...]:
    """Names with values; a known name keeps its place."""
    made = list(config_env)
    places: dict[str, list[int]] = {}
    for index, entry in enumerate(made):
        places.setdefault(entry.partition("=")[0], []).append(index)
    for key, value in pairs:
        for index in places.setdefault(key, [len(made)]):
            made[index : index + 1] = [f"{key}={value}"]
    return tuple(made)
