"""Logins of registries in the operator's own file, which is Docker's: `~/.docker/config.json`, or in
`$DOCKER_CONFIG`; what a credential helper keeps is asked of it.

Invariant: the file is only ever readable by its owner, replaced whole, and what others wrote in it stays; no
secret is in an argument or in a message. Sources: docker/cli, "docker login"; docker-credential-helpers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from typing import Any

from model.errors import CommandFailed, InvalidInput
from model.registries import DEFAULT_HOST, NOBODY, Login, decode_basic, normal_host

HUB_KEY = "https://index.docker.io/v1/"
DEADLINE = 60.0
"""Seconds for a helper: it may have to ask its user to unlock something."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_MEND = "It is Docker's; mend it or move it"
_TOKEN_USER = "<token>"  # noqa: S105 - the word by which helpers mark identity tokens


def path() -> str:
    folder = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    return os.path.join(folder, "config.json")


def kept() -> bool:
    """Whether there may be any."""
    return os.path.exists(path())


def find(registry: str) -> Login:
    """Nobody where there is no login. Raises InvalidInput for a file that can't be read, CommandFailed."""
    config = _load()
    host = normal_host(registry)
    helper = _helper(config, host)
    if helper:
        return _asked(helper, host)
    entries = config.get("auths")
    found = dict(entries) if isinstance(entries, dict) else {}
    own = {_key(host): found.pop(_key(host), None)}  # what `store` writes comes before others' spellings
    for key, entry in (own | found).items():
        if normal_host(key) == host and isinstance(entry, dict) and (login := _read(entry, host)):
            return login
    return NOBODY


def store(registry: str, login: Login) -> str:
    """Where it went, for people."""
    config = _load()
    host = normal_host(registry)
    helper = _helper(config, host)
    auths = config.setdefault("auths", {})
    if helper:
        user, secret = (_TOKEN_USER, login.identity) if login.identity else (login.user, login.password)
        _run(helper, "store", json.dumps({"ServerURL": _key(host), "Username": user, "Secret": secret}))
        auths[_key(host)] = {}
    else:
        auths[_key(host)] = _written(login)
    _save(config)
    return f"docker-credential-{helper}" if helper else path()


def erase(registry: str) -> bool:
    """Whether there was one."""
    config = _load()
    host = normal_host(registry)
    helper = _helper(config, host)
    there = False
    if helper and _asked(helper, host):
        _run(helper, "erase", _key(host))
        there = True
    auths = config.get("auths") or {}
    for key in [key for key in auths if normal_host(key) == host]:
        del auths[key]
        there = True
    if there:
        _save(config)
    return there


# -- the file ---------------------------------------------------------------------------------------
def _load() -> dict[str, Any]:
    try:
        with open(path(), encoding="utf-8") as file:
            config = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path()} can't be read: {error}", hint=_MEND) from error
    if not isinstance(config, dict):
        raise InvalidInput(f"{path()} is not a JSON object", hint=_MEND)
    return config


def _save(config: Mapping[str, Any]) -> None:
    target = os.path.realpath(path())
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    aside = f"{target}.{os.getpid()}"
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(config, file, indent="\t")
            file.flush()
            os.fsync(file.fileno())
        os.rename(aside, target)
    except OSError:
        os.unlink(aside)
        raise


def _key(host: str) -> str:
    return HUB_KEY if host == DEFAULT_HOST else host


def _written(login: Login) -> dict[str, str]:
    import base64

    text = f"{login.user}:{login.password}".encode()
    entry = {"auth": base64.b64encode(text).decode()}
    return {**entry, "identitytoken": login.identity} if login.identity else entry


def _read(entry: Mapping[str, Any], host: str) -> Login:
    words = {key: value for key, value in entry.items() if isinstance(value, str)}
    user, password = words.get("username", ""), words.get("password", "")
    if words.get("auth"):
        try:
            user, password = decode_basic(words["auth"])
        except ValueError:
            raise InvalidInput(
                f"{path()}: auths.{host}.auth is no login", hint=f"Log in again: flota login {host}"
            ) from None
    identity, token = words.get("identitytoken", ""), words.get("registrytoken", "")
    return Login(user=user, password="" if identity else password, identity=identity, token=token)


# -- helpers ----------------------------------------------------------------------------------------
def _helper(config: Mapping[str, Any], host: str) -> str:
    """The name of the helper that keeps this registry's login; empty: the file does."""
    own = config.get("credHelpers")
    for key, name in (own if isinstance(own, dict) else {}).items():
        if normal_host(key) == host:
            return _checked(name)
    return _checked(config.get("credsStore") or "")


def _checked(name: Any) -> str:
    if name == "" or (isinstance(name, str) and _NAME.match(name)):
        return str(name)
    raise InvalidInput(f"{path()}: {str(name)[:60]!r} is no name of a credential helper")


def _asked(helper: str, host: str) -> Login:
    answer = _run(helper, "get", _key(host), absent="credentials not found")
    if not answer:
        return NOBODY
    try:
        found = json.loads(answer)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError):
        raise CommandFailed(f"docker-credential-{helper} gives no login for {host}") from None
    return Login(identity=secret) if user == _TOKEN_USER else Login(user=user, password=secret)


def _run(helper: str, action: str, text: str, *, absent: str = "") -> str:
    """What it answers; empty where its failure says `absent`. Raises CommandFailed."""
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, action], input=text, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
    except FileNotFoundError:
        raise CommandFailed(
            f"{program} is not installed", hint=f"Install it, or take it out of {path()}"
        ) from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{program} {action} did not end within {DEADLINE:g} s") from None
    if done.returncode == 0:
        return done.stdout
    said = (done.stdout or done.stderr).strip().splitlines()
    if absent and said and absent in said[0]:
        return ""
    words = said[-1][:200] if said else f"exit status {done.returncode}"
    raise CommandFailed(f"{program} {action} failed: {words}")
