"""Checks of single values: durations, owners, modes, platforms, ports, signals, digests. Pure.

They judge what is written, and what variables came to: text with a variable in it is judged once that is
expanded, by the same functions. Each raises Mistake with an offset from the start of its text.
"""

from __future__ import annotations

import re
import signal

from image.dockerfile.faults import Mistake

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_UNITS["h"] = 3600 * 10**9
_PART = re.compile(r"([0-9]{0,20})(?:\.([0-9]{0,20}))?([a-zµμ]+)")
_MAX_DURATION = (1 << 63) - 1
_LEAST = 10**6
MAX_ID = (1 << 32) - 2
_NAME = re.compile(r"[^:\s\x00-\x1f\x7f/]{1,256}\Z")
_SYMBOLIC = re.compile(r"[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+(?:,[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+)*\Z")
_PLATFORM = re.compile(r"[A-Za-z0-9_.+-]{1,64}(?:\([A-Za-z0-9_.+-]{1,64}\))?\Z")
_OS = ("linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "aix", "android", "plan9",
       "dragonfly", "illumos", "ios", "js", "wasip1", "wasi", "zos", "local")  # fmt: skip
_ARCH = ("386", "i386", "amd64", "x86_64", "x86-64", "arm", "armhf", "armel", "arm64", "aarch64", "loong64",
         "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x", "wasm")  # fmt: skip
_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})\Z")
_COMMIT = re.compile(r"[0-9a-f]{7,64}\Z")
_REALTIME = re.compile(r"RT(MIN|MAX)(?:([-+])([0-9]{1,2}))?\Z")
MAX_SIGNAL = 64


def variable(text: str) -> bool:
    """Whether it holds a variable, or may: then only expansion tells what it is."""
    return "$" in text


def duration(text: str) -> int:
    """Nanoseconds, in Go's syntax: `1m30s`, `1.5h`; empty and `0` are 0, which means the default."""
    if text in ("", "0", "+0", "-0"):
        return 0
    body = text.removeprefix("+")
    total = end = 0
    while end < len(body) and (part := _PART.match(body, end)):
        unit = _UNITS.get(part[3])
        if unit is None or not (part[1] or part[2]):
            break
        fraction = int(part[2] or 0) * unit // 10 ** len(part[2] or "")
        total += int(part[1] or 0) * unit + fraction
        end = part.end()
    if end == 0 or end < len(body):
        hint = f"Write {text}s for seconds" if text.isdigit() else "Write for example 30s, 1m30s or 500ms"
        raise Mistake(f"{text[:40]!r} is no duration", 0, hint)
    if total and (total < _LEAST or total > _MAX_DURATION):
        raise Mistake(
            f"the duration {text[:40]} is out of range", 0, "Give 1ms or more, and 292 years at most"
        )
    return total


def owner(text: str) -> None:
    """`user`, `user:group`, `:group`; names or numbers."""
    user, colon, group = text.partition(":")
    for what, part, at in (("user", user, 0), ("group", group, len(user) + 1)):
        if not part:
            if what == "user" or colon:
                raise Mistake(f"{text[:60]!r} names no {what}", at, "Write user, or user:group")
            continue
        if part.isdigit() and part.isascii():
            if len(part) > 10 or int(part) > MAX_ID:
                raise Mistake(f"{what} {part[:40]} is above {MAX_ID}", at)
        elif part[0] == "-" or not _NAME.match(part):
            hint = "Write user:group, one colon" if ":" in part else ""
            raise Mistake(f"{part[:60]!r} is no {what}", at, hint)


def mode(text: str) -> None:
    """`755`, `u=rwX,go=rX`."""
    if text and not text.strip("01234567"):
        if len(text) > 12 or int(text, 8) > 0o7777:
            raise Mistake(f"mode {text[:40]} is above 7777", 0)
    elif not _SYMBOLIC.match(text):
        raise Mistake(f"{text[:40]!r} is no mode", 0, "Write an octal number, 755 say, or u=rwX,go=rX")


def platform(text: str) -> None:
    """`os`, `arch`, `os/arch`, `os/arch/variant`."""
    parts = text.split("/")
    if len(parts) > 3 or not all(_PLATFORM.match(part) for part in parts):
        raise Mistake(f"{text[:60]!r} is no platform", 0, "Write os/arch, linux/arm64 say")
    if len(parts) == 1 and parts[0].lower().partition("(")[0] not in _OS + _ARCH:
        raise Mistake(
            f"{text[:60]!r} is neither an operating system nor an architecture", 0, "Write linux/amd64 say"
        )


def ports(text: str) -> tuple[str, ...]:
    """Of EXPOSE: `80`, `80/udp`, `8000-8010/tcp` → `80/tcp` …. Docker's old `[address:][host port:]port` is
    taken too; what stands before the last colon means nothing there."""
    *_, last = text.split(":")
    at = len(text) - len(last)
    numbers, _, protocol = last.partition("/")
    if protocol and protocol.lower() not in ("tcp", "udp", "sctp"):
        raise Mistake(f"{protocol[:40]!r} is no protocol", at + len(numbers) + 1, "Write tcp, udp or sctp")
    first, dash, final = numbers.partition("-")
    begin = _port(first, at)
    end = _port(final, at + len(first) + 1) if dash else begin
    if end < begin:
        raise Mistake(f"the range {numbers[:40]} ends before it begins", at, f"Write {end}-{begin}")
    return tuple(f"{number}/{protocol.lower() or 'tcp'}" for number in range(begin, end + 1))


def _port(text: str, at: int) -> int:
    if not text.isdigit() or not text.isascii():
        raise Mistake(f"{text[:40]!r} is no port", at, "Write a number, 8080 say, or 8080/udp")
    if len(text) > 9 or not 1 <= int(text) <= 65535:
        raise Mistake(f"port {text[:20]} is not in 1–65535", at)
    return int(text)


def stop_signal(text: str) -> int:
    """The number of `SIGTERM`, `term`, `15`, `SIGRTMIN+3`."""
    if text.isdigit() and text.isascii():
        if len(text) > 9 or not 1 <= int(text) <= MAX_SIGNAL:
            raise Mistake(f"signal {text[:20]} is not in 1–{MAX_SIGNAL}", 0)
        return int(text)
    name = text.upper().removeprefix("SIG")
    if match := _REALTIME.match(name):
        base = signal.SIGRTMIN if match[1] == "MIN" else signal.SIGRTMAX
        number = int(base) + int(f"{match[2] or '+'}{match[3] or 0}")
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    elif re.fullmatch(r"[A-Z]{2,10}[0-9]?", name) and (found := getattr(signal, f"SIG{name}", None)):
        return int(found)
    raise Mistake(f"{text[:40]!r} is no signal", 0, "Write SIGTERM say, or its number")


def checksum(text: str) -> None:
    """Of ADD: a digest, or of a git repository a commit."""
    if not _DIGEST.match(text) and not _COMMIT.match(text):
        raise Mistake(
            f"{text[:80]!r} is no checksum",
            0,
            "Write sha256:… with 64 hexadecimal digits, or a commit of git",
        )


def volume(text: str) -> None:
    """A path in the container; the root and the kernel's own files can't be one."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        return
    if not parts or parts[0] == "proc":
        raise Mistake(f"{text[:60]!r} is no place for a volume", 0, "Name a folder, /data say")
