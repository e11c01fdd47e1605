"""How an image's history writes instructions: BuildKit's words, as tools that read histories know them. Pure.

Go's verbs for its values: `%q` and `%v` of lists, durations as `1m30s`. A step that made a layer ends with
`# buildkit`, by which readers tell this form from the classic builder's.
"""

from __future__ import annotations

from collections.abc import Sequence

from image.build.step import CopyStep
from image.dockerfile.instruction import Pair
from model.spec import ExecProbe, HealthCheck, ShellProbe

STEP = " # buildkit"
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_ESCAPES |= {'"': '\\"', "\\": "\\\\"}


def run(args: Sequence[str], declared: Sequence[str]) -> str:
    """`declared`: `KEY=value` of the ARGs that the step sees."""
    before = [f"|{len(declared)}", *declared] if declared else []
    return "RUN " + " ".join((*before, *args)) + STEP


def copy(step: CopyStep, target: str) -> str:
    """`target` as the Dockerfile has it, expanded."""
    words = ["ADD" if step.add else "COPY"]
    words += ["--parents"] if step.parents else []
    words += [f"--chown={step.owner}"] if step.owner else []
    words += [f"--chmod={step.mode}"] if step.mode else []
    words += [*step.sources, *(f"<<{file.name}" for file in step.inline), target]
    return " ".join(words) + STEP


def pairs(name: str, given: Sequence[Pair]) -> str:
    return " ".join((name, *(f"{pair.key}={pair.value}" for pair in given)))


def command(name: str, words: Sequence[str]) -> str:
    return f"{name} [{' '.join(map(quoted, words))}]"


def listed(name: str, words: Sequence[str]) -> str:
    return f"{name} [{' '.join(words)}]"


def health(check: HealthCheck) -> str:
    test: Sequence[str] = ("NONE",) if check.disabled else ()
    match check.probe:
        case ExecProbe(args=args):
            test = ("CMD", *args)
        case ShellProbe(command=text):
            test = ("CMD-SHELL", text)
    times = (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    )
    told = " ".join(f"{name}:{duration(seconds)}" for name, seconds in times)
    return f"HEALTHCHECK {{Test:[{' '.join(test)}] {told} Retries:{check.retries}}}"


def quoted(text: str) -> str:
    """Go's `%q`."""
    return '"' + "".join(_ESCAPES.get(char) or _shown(char) for char in text) + '"'


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    number = ord(char)
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def duration(seconds: float) -> str:
    """Go's `time.Duration`."""
    nanos = round(seconds * 1_000_000_000)
    if nanos == 0:
        return "0s"
    if nanos < 1_000_000_000:
        for unit, size in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if nanos >= size:
                return _decimal(nanos, size) + unit
    minutes, rest = divmod(nanos, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    shown = f"{hours}h" if hours else ""
    shown += f"{minutes}m" if hours or minutes else ""
    return shown + _decimal(rest, 1_000_000_000) + "s"


def _decimal(number: int, unit: int) -> str:
    whole, part = divmod(number, unit)
    digits = str(part).zfill(len(str(unit)) - 1).rstrip("0") if part else ""
    return f"{whole}.{digits}" if digits else str(whole)
