"""Words of `flota build`'s flags that have parts: `type=local,dest=out`, `id=key,src=file`. Pure.

The source is docker buildx's command line. Invariant: a part that is not known is refused by its name: left
out in silence it could leave out a protection.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from model.build import CacheWay, Output
from model.codec import convert_strict
from model.errors import InvalidInput
from model.quantity import BOOLS
from model.spec import Struct

GIT = re.compile(
    r"(?:git://|ssh://|git@[\w.-]+:|github\.com/).+|https?://[^?#]+\.git(?:[?#].*)?\Z", re.IGNORECASE
)
HTTP = re.compile(r"https?://", re.IGNORECASE)
_ID = re.compile(r"[\w.@/+-]{1,255}\Z", re.ASCII)
CACHE_KINDS = ("registry", "local", "inline", "fleet")
OUTPUT_KINDS = ("image", "registry", "docker", "oci", "tar", "local")


class SecretPlace(Struct):
    """Where the client has a secret: a file, or a variable of its environment."""

    file: str = ""
    env: str = ""


class Destination(Struct):
    """Where the client writes an output; `-` is standard output, empty: it gets none."""

    output: Output
    dest: str = ""


def fields(text: str, known: Collection[str], *, first: str = "") -> dict[str, str]:
    """`key=value` parts as a line of CSV. `first`: the key of a first part without one. Raises
    InvalidInput."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise InvalidInput(f"{text[:80]!r} can't be read: {error}") from error
    found: dict[str, str] = {}
    for place, part in enumerate(rows[0] if rows else ()):
        key, equals, value = part.partition("=")
        if not equals and place == 0 and first:
            key, value = first, part
        elif not equals:
            raise InvalidInput(f"{part[:80]!r} is no key=value")
        key = key.strip().lower()
        if known and key not in known:
            raise InvalidInput(f"there is no {key[:40]!r}", hint=f"There are {', '.join(sorted(known))}")
        found[key] = value
    return found


def secret(text: str, environ: Mapping[str, str]) -> tuple[str, SecretPlace]:
    """`id=key,src=file` or `id=key,env=NAME`; without either the variable, else the file, of that name."""
    found = fields(text, {"id", "src", "source", "env", "type"})
    ident = found.get("id", "")
    if not _ID.match(ident):
        raise InvalidInput(
            f"{text[:80]!r} names no secret", hint="Write id=NAME,src=FILE or id=NAME,env=NAME"
        )
    kind = found.get("type", "")
    if kind not in ("", "file", "env"):
        raise InvalidInput(f"a secret is of type file or env, not {kind[:40]!r}")
    file = found.get("src", found.get("source", ""))
    env = found.get("env", "")
    if file and kind == "env" and not env:
        file, env = "", file
    if file and env:
        raise InvalidInput(f"secret {ident} comes from a file or a variable, not from both")
    if not file and not env:
        if kind != "file" and (kind == "env" or ident in environ):
            env = ident
        else:
            file = ident
    if env and env not in environ:
        raise InvalidInput(f"secret {ident}: there is no variable {env[:80]}")
    return ident, SecretPlace(file=file, env=env)


def agent(text: str, environ: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """`default`, `id=socket`, `id=key,key`: who an SSH agent is, and paths of its socket or keys."""
    ident, _, paths = text.partition("=")
    if not _ID.match(ident):
        raise InvalidInput(f"{text[:80]!r} names no SSH agent", hint="Write default, or NAME=SOCKET or KEY")
    if paths:
        return ident, tuple(filter(None, paths.split(",")))
    if not environ.get("SSH_AUTH_SOCK"):
        raise InvalidInput(
            "no SSH agent runs here: SSH_AUTH_SOCK is not set", hint=f"Start one, or write {ident}=KEY"
        )
    return ident, (environ["SSH_AUTH_SOCK"],)


def cache(text: str, *, to: bool) -> CacheWay:
    """`type=registry,ref=…`, `type=local,src=…|dest=…`, `type=inline`, `type=fleet`; a name alone is a
    registry's."""
    found = fields(text, (), first="ref")
    kind = found.pop("type", "registry")
    if kind not in CACHE_KINDS:
        raise InvalidInput(
            f"there is no cache of type {kind[:40]!r}", hint=f"There are {', '.join(CACHE_KINDS)}"
        )
    if kind == "registry" and not found.get("ref"):
        raise InvalidInput("a cache in a registry needs ref=NAME")
    place = "dest" if to else "src"
    if kind == "local" and not found.get(place):
        raise InvalidInput(f"a local cache needs {place}=FOLDER")
    return convert_strict({"kind": kind, "options": found}, CacheWay)


def output(text: str) -> Destination:
    """`type=…,dest=…`, a folder, or `-` for a tar on standard output."""
    if "=" not in text:
        return Destination(output=Output(kind="tar" if text == "-" else "local"), dest=text)
    found = fields(text, ())
    kind, dest = found.pop("type", ""), found.pop("dest", found.pop("destination", ""))
    if kind not in OUTPUT_KINDS:
        raise InvalidInput(
            f"there is no output of type {kind[:40]!r}", hint=f"There are {', '.join(OUTPUT_KINDS)}"
        )
    if kind == "docker" and not dest:
        kind = "image"
    if kind == "image" and _true(found.pop("push", "false"), "push"):
        kind = "registry"
    if kind in ("oci", "tar", "local") and not dest:
        raise InvalidInput(f"an output of type {kind} needs dest=PATH")
    if kind == "local" and dest == "-":
        raise InvalidInput("a folder can't be written to standard output", hint="Write type=tar,dest=-")
    if kind in ("image", "registry") and dest:
        raise InvalidInput(f"an output of type {kind} has no dest")
    return Destination(output=convert_strict({"kind": kind, "options": found}, Output), dest=dest)


class Provenance(Struct):
    """As it is asked for; `mode` empty: none."""

    mode: Literal["", "min", "max"] = ""
    version: Literal["v0.2", "v1"] = "v0.2"
    builder_id: str = ""


def provenance(text: str) -> Provenance:
    """`true`, `false`, `mode=min`, `mode=max`, with `version=v0.2|v1` and `builder-id=URI`."""
    if text in BOOLS:
        return Provenance(mode="min" if BOOLS[text] else "")
    found = fields(text, {"mode", "inline-only", "builder-id", "version", "reproducible", "disabled"})
    if _true(found.get("disabled", "false"), "disabled"):
        return Provenance()
    mode, version = found.get("mode", "min"), found.get("version", "v0.2")
    if mode not in ("min", "max"):
        raise InvalidInput(f"the provenance's mode is min or max, not {mode[:40]!r}")
    if version not in ("v0.2", "v1"):
        raise InvalidInput(f"the provenance's version is v0.2 or v1, not {version[:40]!r}")
    _true(found.get("inline-only", "false"), "inline-only")  # it goes with images alone in any case
    if _true(found.get("reproducible", "false"), "reproducible"):
        raise InvalidInput("whether a build can be reproduced is not stated here", hint="Leave it out")
    ident = found.get("builder-id", "")
    if len(ident) > 2048 or not ident.isprintable() or (ident and ":" not in ident):
        raise InvalidInput(f"builder-id: {ident[:80]!r} is no URI")
    return convert_strict({"mode": mode, "version": version, "builder_id": ident}, Provenance)


def sbom(text: str) -> bool:
    """`true`, `false`. Raises InvalidInput, for other scanners too."""
    if text in BOOLS:
        return BOOLS[text]
    found = fields(text, {"generator", "disabled"})
    if _true(found.get("disabled", "false"), "disabled"):
        return False
    if "generator" in found:
        raise InvalidInput(
            "no image is run to list an image's contents", hint="Leave out generator=: the host lists them"
        )
    return True


def attestation(text: str) -> tuple[str, str]:
    """`type=provenance,mode=max`, `type=sbom` → (type, the rest)."""
    found = fields(text, ())
    kind = found.pop("type", "")
    if kind not in ("provenance", "sbom"):
        raise InvalidInput(
            f"there is no attestation of type {kind[:40]!r}", hint="There are provenance, sbom"
        )
    if _true(found.pop("disabled", "false"), "disabled"):
        return kind, "false"
    return kind, ",".join(f"{k}={v}" for k, v in found.items()) or "true"


def pairs(entries: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """`KEY=VALUE`; `KEY` alone takes what the environment has, if it has one."""
    found: dict[str, str] = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not key or "\0" in entry:
            raise InvalidInput(f"{entry[:60]!r}: the name is empty or holds a NUL")
        if equals:
            found[key] = value
        elif key in environ:
            found[key] = environ[key]
    return found


def _true(text: str, field: str) -> bool:
    if text not in BOOLS:
        raise InvalidInput(f"{field}: {text[:40]!r} is neither true nor false")
    return BOOLS[text]
