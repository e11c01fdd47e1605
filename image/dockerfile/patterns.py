"""Lists of patterns as Docker matches them (moby's `patternmatcher`), for a walk from the top down. Pure.

`docs` matches the folder and all that it holds, `!` takes out again what an earlier pattern matched, the last
pattern that matches decides. Source: the reference's section on .dockerignore, and what Docker's builders do:
a pattern that would change nothing about a folder is not held against its contents either. Invariant: a
folder's state holds only the patterns that can still decide something in it; folders with equal states share
one matcher.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from image.dockerfile.automaton import Automaton
from image.dockerfile.globs import FOLDERS, REST, SPECIAL, STAR, GlobFault, Token, regex_of, tokens
from model.errors import InvalidInput
from model.ignorefile import cleaned

_COMBINED_AFTER = 64
"""So many names asked of a folder's matcher, and its globs are made one expression: making it costs more than
a few answers do, and of very many globs more than it ever saves."""
_COMBINED_AT_MOST = 200
Live = tuple[tuple[int, "tuple[int, ...] | int"], ...]
"""Patterns that may match below a folder: number, and places in its parts or the automaton's state."""


class Part:
    """What one name in a path has to be: a literal, a glob, or (`MANY`) any number of names."""

    def __init__(self, found: Sequence[Token]) -> None:
        self.literal: str | None = None
        self._tokens = found
        if all(token.literal for token in found):
            self.literal = "".join(token.literal for token in found)

    @cached_property
    def glob(self) -> re.Pattern[str]:
        return re.compile(regex_of(self._tokens))

    def fits(self, name: str) -> bool:
        return name == self.literal if self.literal is not None else self.glob.match(name) is not None


ANY = Part([STAR])
MANY = Part([STAR])


class Pattern:
    """One pattern, cleaned. `parts`: split at `/` where that shows all that it means, else `automaton`."""

    def __init__(self, text: str, *, exception: bool) -> None:
        self.text = text
        self.exception = exception
        self.parts: tuple[Part, ...] = ()
        self.automaton: Automaton | None = None
        self._floating = False
        if not SPECIAL.search(text):
            self.parts = tuple(Part([Token(kind="one", literal=name)]) for name in text.split("/"))
            return
        found = tokens(text, deep=True)
        if _ends_so(text, found):
            found = [REST, *found[1:]]
        parts = _parts(found)
        if parts is None:
            self.automaton = Automaton(found)
        else:
            self.parts = parts
            self._floating = len(parts) == 2 and parts[0] is MANY

    def start(self) -> tuple[int, ...] | int:
        if self.automaton:
            return self.automaton.start
        return tuple(place for place in self._closed((0,)) if place < len(self.parts))

    def below(self, state: tuple[int, ...] | int, name: str) -> tuple[int, ...] | int:
        """The state in the folder `name`: 0 or no place if nothing in it can match."""
        if self.automaton is not None:
            assert isinstance(state, int)
            return self.automaton.going_on(self.automaton.feed(state, name + "/"))
        assert isinstance(state, tuple)
        if self._floating:
            return state
        places = []
        for place in state:
            part = self.parts[place]
            if part is MANY:
                places.append(place)
            elif part.fits(name):
                places.append(place + 1)
        return tuple(place for place in self._closed(tuple(places)) if place < len(self.parts))

    def last(self, state: tuple[int, ...]) -> list[Part]:
        """What a name in this folder has to be to end the match. `ANY`: anything will do."""
        found = []
        for place in state:
            part = self.parts[place]
            if len(self.parts) in self._closed((place if part is MANY else place + 1,)):
                found.append(ANY if part is MANY else part)
        return found

    def _closed(self, places: tuple[int, ...]) -> tuple[int, ...]:
        reached = set(places)
        for place in places:
            while place < len(self.parts) and self.parts[place] is MANY:
                place += 1
                reached.add(place)
        return tuple(sorted(reached))


def _ends_so(text: str, found: Sequence[Token]) -> bool:
    """`**x`, and no other sign in it: all paths that end so, which Docker means by this form alone."""
    plain = len(found) > 1 and all(token.literal for token in found[1:]) and "\\" not in text
    return plain and text.startswith("**") and text[2] not in "*/"


def _parts(found: Sequence[Token]) -> tuple[Part, ...] | None:
    """None: the pattern reaches over `/` within a name."""
    parts: list[Part] = []
    name: list[Token] = []
    for place, token in enumerate(found):
        fresh = not name
        if token.literal == "/":
            parts.append(Part(name))
            name = []
        elif token is FOLDERS:
            if not fresh:
                return None
            parts.append(MANY)
        elif token is REST and place + 1 == len(found):
            parts += [Part([*name, STAR]) if name else ANY, MANY]
            name = []
        elif token is REST or (token.slash and not fresh):
            return None
        else:
            name.append(token)
    if name:
        parts.append(Part(name))
    return tuple(parts)


class Patterns:
    """Raises InvalidInput for a pattern that can't be understood; `where(n)` says where number n stands."""

    def __init__(self, patterns: Iterable[str], *, where: Callable[[int], str] = "pattern {}".format) -> None:
        self.all: list[Pattern] = []
        for number, text in enumerate(patterns, 1):
            if text.strip():
                self.all.append(_pattern(text.strip(), where(number)))
        self._matchers: dict[tuple[Live, int], Matcher] = {}
        self.root = Folder(self, tuple((n, pattern.start()) for n, pattern in enumerate(self.all)), -1)

    def matches(self, path: str) -> bool:
        """Of one path by itself, as `a/b`. A walk is cheaper by `root`."""
        *folders, name = path.split("/")
        folder = self.root
        for above in folders:
            if folder.settled:
                break
            folder = folder.enter(above)
        return folder.matches(name)

    def is_exception(self, number: int) -> bool:
        return number < 0 or self.all[number].exception

    def matcher(self, live: Live, decided: int) -> Matcher:
        found = self._matchers.get((live, decided))
        if found is None:
            found = self._matchers[live, decided] = Matcher(self, live, decided)
        return found


def _pattern(text: str, where: str) -> Pattern:
    text = cleaned(text)
    exception = text.startswith("!")
    if text == "!":
        hint = "Write after it what is not to be left out"
        raise InvalidInput(f"{where}: a ! with nothing after it", hint=hint)
    try:
        return Pattern(text.removeprefix("!"), exception=exception)
    except GlobFault as fault:
        raise InvalidInput(f"{where}: {fault.message}", hint=fault.hint) from None


class Matcher:
    """What decides about names in all folders of one state."""

    def __init__(self, patterns: Patterns, live: Live, decided: int) -> None:
        self._patterns = patterns
        self._literals: dict[str, list[int]] = {}
        self._always: list[int] = []
        self._globs: list[tuple[int, re.Pattern[str]]] = []
        self._automata: list[tuple[int, Automaton, int]] = []
        self._asked = 0
        self._combined: re.Pattern[str] | None = None
        for number, state in live:
            self._add(number, state)
        self._base = max([decided, *self._always])
        self._globs.reverse()

    def _add(self, number: int, state: tuple[int, ...] | int) -> None:
        pattern = self._patterns.all[number]
        if isinstance(state, int):
            assert pattern.automaton is not None
            self._automata.append((number, pattern.automaton, state))
            return
        for part in pattern.last(state):
            if part is ANY:
                self._always.append(number)
            elif part.literal is not None:
                self._literals.setdefault(part.literal, []).append(number)
            else:
                self._globs.append((number, part.glob))

    def decides(self, name: str) -> int:
        """The number of the last pattern that matches; -1: none does."""
        best = self._base
        numbers = self._literals.get(name)
        if numbers and numbers[-1] > best:
            best = numbers[-1]
        if self._globs:
            best = max(best, self._glob(name))
        for number, automaton, state in self._automata:
            if number > best and automaton.accepts(automaton.feed(state, name)):
                best = number
        return best

    def _glob(self, name: str) -> int:
        if self._combined is None:
            self._asked += 1
            if self._asked > _COMBINED_AFTER and len(self._globs) <= _COMBINED_AT_MOST:
                either = "|".join(f"({regex.pattern})" for _, regex in self._globs)
                self._combined = re.compile(either)
            return next((number for number, regex in self._globs if regex.match(name)), -1)
        found = self._combined.match(name)
        return self._globs[found.lastindex - 1][0] if found and found.lastindex else -1

    def all(self, name: str) -> list[int]:
        """The numbers of all that match, in order."""
        found = {*self._always, *self._literals.get(name, ())}
        found.update(number for number, regex in self._globs if regex.match(name))
        for number, automaton, state in self._automata:
            if automaton.accepts(automaton.feed(state, name)):
                found.add(number)
        return sorted(found)


class Folder:
    """One folder of a walk. `matched`: the folder itself is; `settled`: so is all that it holds, or nothing
    of it: it needn't be looked into."""

    __slots__ = ("_decided", "_live", "_matcher", "_patterns", "matched", "settled")

    def __init__(self, patterns: Patterns, live: Live, decided: int) -> None:
        self._patterns = patterns
        self._live = live
        self._decided = decided
        self.matched = not patterns.is_exception(decided)
        self.settled = all(patterns.all[n].exception != self.matched for n, _ in live)
        self._matcher = None if self.settled else patterns.matcher(live, decided)

    def matches(self, name: str) -> bool:
        """Of what is no folder, or won't be looked into."""
        if self._matcher is None:
            return self.matched
        return not self._patterns.is_exception(self._matcher.decides(name))

    def enter(self, name: str) -> Folder:
        if self._matcher is None:
            return self
        decided, matched = self._decided, self.matched
        for number in self._matcher.all(name):
            if number > decided and self._patterns.all[number].exception == matched:
                decided, matched = number, not matched
        live = []
        for number, state in self._live:
            if number > decided:
                below = self._patterns.all[number].below(state, name)
                if below:
                    live.append((number, below))
        return Folder(self._patterns, tuple(live), decided)
