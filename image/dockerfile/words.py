"""Variables and quotes in a Dockerfile's words: `$v`, `${v:-word}` and its kin, `'…'`, `"…"`, `\\x`. Pure.

Source: the reference's "Environment replacement"; where it is silent, BuildKit's shell lexer. What a variable
holds comes from `lookup`, None for one that is not set. Invariant: the work of one expansion is bounded,
whatever the text and the values are; an error says at which character of the text it stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from image.dockerfile.shellpatterns import ShellPattern
from model.errors import InvalidInput
from model.spec import Struct

Lookup = Callable[[str], str | None]
Quotes = Literal["removed", "kept", "plain"]
"""What becomes of quotes; plain: they are characters like any other, and quote nothing."""
MAX_VALUES = 4 << 20
"""Characters that variables may bring into one text."""
MAX_WORK = 16 << 20
"""Steps that the patterns in it may take."""
MAX_DEPTH = 100
"""Of `${a:-${b:-…}}`."""
_SPECIAL = "@*#?-$!0"
_SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_HEREDOC = re.compile("<(?:<[\t\r ]*)?")


class WordFault(InvalidInput):
    """`offset`: of the character of the text, from 0, at which it goes wrong."""

    def __init__(self, message: str, offset: int, *, hint: str = "") -> None:
        self.offset = offset
        super().__init__(message, hint=hint)


class Expanded(Struct):
    text: str
    words: tuple[str, ...] = ()
    """The text split at spaces that are not quoted, also those that variables brought."""
    used: frozenset[str] = frozenset()
    """Variables that were read and set."""
    unset: frozenset[str] = frozenset()


def expand(text: str, lookup: Lookup, *, escape: str = "\\") -> str:
    """One word: quotes removed, spaces kept. Raises WordFault."""
    return expanded(text, lookup, escape=escape).text


def expand_words(text: str, lookup: Lookup, *, escape: str = "\\") -> tuple[str, ...]:
    """Raises WordFault."""
    return expanded(text, lookup, escape=escape).words


def expand_raw(text: str, lookup: Lookup, *, escape: str = "\\") -> str:
    """For people to read: quotes kept, variables that are not set left as they stand. Raises WordFault."""
    return expanded(text, lookup, escape=escape, quotes="kept", keep_unset=True).text


def expand_heredoc(text: str, lookup: Lookup) -> str:
    """The content of a heredoc of COPY or ADD: quotes quote nothing, `\\` escapes whatever the Dockerfile's
    own escape is. Raises WordFault."""
    return expanded(text, lookup, quotes="plain").text


def expanded(
    text: str,
    lookup: Lookup,
    *,
    escape: str = "\\",
    quotes: Quotes = "removed",
    keep_unset: bool = False,
    keep_escapes: bool = False,
) -> Expanded:
    """`keep_unset`: variables that are not set stay as they are written. Raises WordFault."""
    lexer = _Lexer(text, lookup, escape, quotes, keep_unset=keep_unset, keep_escapes=keep_escapes)
    words = _Words()
    result = lexer.until("", words)
    return Expanded(
        text=result,
        words=words.ended(),
        used=frozenset(lexer.used),
        unset=frozenset(lexer.unset),
    )


class _Words:
    """Gathers words: what is `raw` is never split."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._word: list[str] = []

    def raw(self, text: str) -> None:
        if text:
            self._word.append(text)

    def split(self, text: str) -> None:
        first, *others = _SPACE.split(text)
        self.raw(first)
        for other in others:
            self._end()
            self.raw(other)

    def _end(self) -> None:
        if self._word:
            self._done.append("".join(self._word))
            self._word = []

    def ended(self) -> tuple[str, ...]:
        self._end()
        return tuple(self._done)


class _Lexer:
    def __init__(
        self,
        text: str,
        lookup: Lookup,
        escape: str,
        quotes: Quotes,
        *,
        keep_unset: bool,
        keep_escapes: bool,
    ) -> None:
        self.used: set[str] = set()
        self.unset: set[str] = set()
        self._text = text
        self._at = 0
        self._lookup = lookup
        self._escape = escape
        self._quotes = quotes
        self._keep_unset = keep_unset
        self._keep_escapes = keep_escapes
        self._plain = re.compile(f"[^$<'\"/}}{re.escape(escape)}]+")
        self._depth = 0
        self._brought = 0
        self._worked = 0

    def until(self, stop: str, words: _Words | None = None) -> str:
        """The text up to `stop` (empty: to its end), which is passed over."""
        words = words or _Words()
        out: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == stop:
                self._at += 1
                return "".join(out)
            if char == "$":
                out.append(self._variable())
                words.split(out[-1])
            elif char == "<":
                found = _HEREDOC.match(self._text, self._at)
                assert found is not None
                out.append(self._passed(found.group()))
                words.raw(out[-1])
            elif char in "'\"" and self._quotes != "plain":
                out.append(self._single() if char == "'" else self._double())
                words.raw(out[-1])
            elif char == self._escape:
                out.append(self._escaped())
                words.raw(out[-1])
            else:
                run = self._plain.match(self._text, self._at)
                out.append(self._passed(run.group() if run else char))
                words.split(out[-1])
        if stop:
            raise WordFault(f"'{stop}' is missing", self._at)
        return "".join(out)

    def _passed(self, text: str) -> str:
        self._at += len(text)
        return text

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        return self._passed(self._peek())

    def _escaped(self) -> str:
        """At the text's end it escapes nothing, and is gone."""
        mark = self._next()
        return (mark if self._keep_escapes else "") + self._next()

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise WordFault("a ' is opened and never closed", self._at, hint='Close it, or write it as "\'"')
        whole = self._passed(self._text[self._at : end + 1])
        return whole if self._quotes == "kept" else whole[1:-1]

    def _double(self) -> str:
        """A backslash in it escapes `"`, `$` and itself, and is itself before all else."""
        start = self._at
        out = [self._next()]
        while char := self._peek():
            if char == '"':
                out.append(self._next())
                return "".join(out if self._quotes == "kept" else out[1:-1])
            if char == "$":
                out.append(self._variable())
            elif char == self._escape:
                mark = self._next()
                special = self._peek() in ('"', "$", self._escape)
                out.append(mark if self._keep_escapes or not special else "")
                out.append(self._next() if special else "")
            else:
                run = self._plain.match(self._text, self._at)
                out.append(self._passed(run.group() if run else char))
        raise WordFault('a " is opened and never closed', start, hint="Close it, or write it as '\"'")

    # -- variables ------------------------------------------------------------------------------------
    def _variable(self) -> str:
        start = self._at
        self._at += 1
        if self._peek() == "{":
            result = self._braced(start)
        else:
            name = self._name()
            result = self._or_kept(self._value(name), f"${name}") if name else "$"
        self._brought += len(result)
        if self._brought > MAX_VALUES:
            raise WordFault(f"with its variables it has more than {MAX_VALUES} characters", start)
        return result

    def _braced(self, start: int) -> str:
        self._at += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise WordFault(f"${{ }} stand more than {MAX_DEPTH} deep in each other", start)
        if self._peek() and self._peek() in "{}:":
            raise WordFault("a variable's name is missing after ${", start, hint="Write ${NAME}")
        name = self._name()
        result = self._modified(name, start)
        self._depth -= 1
        return result

    def _modified(self, name: str, start: int) -> str:
        sign = self._next()
        if sign == "}":
            return self._or_kept(self._value(name), f"${{{name}}}")
        if sign == "/":
            return self._replaced(name, start)
        colon = sign == ":"
        if colon:
            sign = self._next()
        written = ":" * colon + sign
        if not sign:
            raise self._open(start)
        if sign not in "+-?#%" or (colon and sign in "#%"):
            hint = "It may be :- - :+ + :? ? # ## % %% / //"
            raise WordFault(f"${{{name}{written}…}} is no form that is known", start, hint=hint)
        word = self._word("}", start, raw=sign in "#%")
        value = self._value(name)
        if value is None and self._keep_unset:
            return f"${{{name}{written}{word}}}"
        if sign in "#%":
            return self._trimmed(sign, word, value or "", start)
        missing = value is None or (colon and not value)
        if sign == "+":
            return "" if missing else word
        if sign == "?" and missing:
            raise WordFault(f"{name}: {word or self._wanting(value)}", start)
        return word if missing else value or ""

    def _wanting(self, value: str | None) -> str:
        return "it must be set, and is not" if value is None else "it must not be empty"

    def _trimmed(self, sign: str, word: str, value: str, start: int) -> str:
        longest = word.startswith(sign)
        pattern = self._pattern(word[longest:], start)
        trim = pattern.without_prefix if sign == "#" else pattern.without_suffix
        return trim(value, longest=longest)

    def _replaced(self, name: str, start: int) -> str:
        every = self._peek() == "/"
        self._at += every
        text = self._word("/", start, raw=True)
        replacement = self._word("}", start, raw=True)
        value = self._value(name)
        if value is None and self._keep_unset:
            return f"${{{name}/{'/' * every}{text}/{replacement}}}"
        return self._pattern(text, start).replaced(value or "", replacement, every=every)

    def _pattern(self, text: str, start: int) -> ShellPattern:
        def spend(steps: int) -> None:
            self._worked += steps
            if self._worked > MAX_WORK:
                raise WordFault("the pattern takes too long on a value of this length", start)

        try:
            return ShellPattern(text, spend)
        except ValueError as error:
            hint = "A backslash may stand before * ? } / and another one"
            raise WordFault(f"the pattern {text[:80]!r} {error}", start, hint=hint) from None

    def _word(self, stop: str, start: int, *, raw: bool) -> str:
        """What follows a modifier; `raw`: of a pattern, which has the escapes in it."""
        before, self._keep_escapes = self._keep_escapes, raw
        try:
            return self.until(stop)
        except WordFault as fault:
            if fault.offset == len(self._text):
                raise self._open(start, stop) from None
            raise
        finally:
            self._keep_escapes = before

    def _open(self, start: int, stop: str = "}") -> WordFault:
        return WordFault(f"${{ is opened and its {stop} is missing", start, hint="Write ${NAME}")

    def _name(self) -> str:
        """Letters, digits and `_`; or digits alone; or one of the shell's signs."""
        first = self._peek()
        start = self._at
        if first.isdecimal():
            while self._peek().isdecimal():
                self._at += 1
        elif first and first in _SPECIAL:
            self._at += 1
        else:
            while (char := self._peek()) and (char.isalpha() or char.isdecimal() or char == "_"):
                self._at += 1
        return self._text[start : self._at]

    def _value(self, name: str) -> str | None:
        value = self._lookup(name)
        (self.unset if value is None else self.used).add(name)
        return value

    def _or_kept(self, value: str | None, written: str) -> str:
        if value is None:
            return written if self._keep_unset else ""
        return value
