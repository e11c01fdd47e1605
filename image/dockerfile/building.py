"""What the builders of instructions share: where they stand, values that are judged, warnings. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from image.dockerfile.faults import Mistake, printable
from image.dockerfile.fields import variable
from image.dockerfile.heredocs import chomped
from image.dockerfile.instruction import Command, Heredoc, Spot, Warned
from image.dockerfile.jsonform import broken
from image.dockerfile.nodes import Node
from image.dockerfile.words import WordFault, expanded


class Scene:
    """One instruction that is being built: its node, the file's escape, warnings so far."""

    def __init__(
        self, node: Node, escape: str, warnings: list[Warned], *, trigger: Spot | None = None
    ) -> None:
        self.node = node
        self.escape = escape
        self.trigger = trigger
        self._warnings = warnings

    def warn(self, code: str, message: str, at: int, hint: str = "") -> None:
        spot = self.node.line.spot(at)
        self._warnings.append(Warned(code=code, message=printable(message), spot=spot, hint=printable(hint)))

    def common(self) -> dict[str, Any]:
        """Fields of every instruction."""
        node = self.node
        return {
            "source": node.line.text[node.start :].strip(),
            "spot": self.trigger or node.line.spot(node.start),
            "last_line": 0 if self.trigger else node.last_line,
            "trigger": self.trigger is not None,
            "comments": node.line.comments,
        }

    def one(self, what: str) -> str:
        """The only argument: all that follows the keyword."""
        self.some(what)
        return self.quoted(self.node.words[0], self.node.offset(0))

    def some(self, what: str) -> None:
        if not self.node.words:
            raise Mistake(f"{self.node.name} needs {what}", self.node.start)

    def quoted(self, text: str, at: int) -> str:
        """Text that variables are expanded in: its quotes and braces must be closed, whatever they hold."""
        if "$" in text or "'" in text or '"' in text:
            try:
                expanded(text, _anything, escape=self.escape)
            except WordFault as fault:
                raise Mistake(fault.message, at + fault.offset, fault.hint) from None
        return text

    def judged(self, judge: Callable[[str], object], text: str, at: int) -> str:
        """Text without variables, quotes and escapes must be what `judge` takes; other text is judged once it
        is expanded."""
        if not variable(text) and not any(char in text for char in ("'", '"', self.escape)):
            try:
                judge(text)
            except Mistake as mistake:
                raise Mistake(mistake.message, at + mistake.at, mistake.hint) from None
        return text

    def command(self, first: int = 0) -> Command:
        """Of RUN, CMD, ENTRYPOINT, HEALTHCHECK: exec form or shell form, from word `first` on."""
        node = self.node
        words = node.words[first:]
        if node.json:
            return Command(words=words)
        text = words[0] if words else ""
        if text.startswith("[") and (found := broken(text, node.offset(first))):
            if found.fatal:
                raise Mistake(found.message, found.at, found.hint)
            self.warn("JSONFormBroken", found.message, found.at, found.hint)
        return Command(text=text, shell=True, heredocs=tuple(self.files()))  # noqa: S604

    def listed(self) -> None:
        """Of COPY, ADD, VOLUME: warns of what was to be an array."""
        node = self.node
        if not node.json and (found := broken(node.text, node.text_at)):
            if found.fatal:
                raise Mistake(found.message, found.at, found.hint)
            self.warn("JSONFormBroken", found.message, found.at, found.hint)

    def files(self) -> list[Heredoc]:
        return [
            Heredoc(name=doc.name, content=chomped(doc.content), expand=doc.expand, chomp=True, fd=doc.fd)
            if doc.chomp
            else doc
            for doc in self.node.heredocs
        ]


def _anything(name: str) -> str | None:
    """A lookup: what a variable holds does not matter yet."""
    return "x" if name else None
