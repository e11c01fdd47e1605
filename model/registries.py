"""Who we are at a registry, and which registry an image's name means. Pure.

Invariant: a login never shows its secrets in a repr, so that no log line, error or trace can.
The header is Docker's X-Registry-Auth: URL-safe Base64 of one JSON object (Docker Engine API, "Auth").
"""

from __future__ import annotations

import base64

import msgspec

from model.errors import InvalidInput
from model.spec import Struct

DEFAULT_HOST = "docker.io"
HEADER = "X-Registry-Auth"
MAX_HEADER = 8000
_ALIASES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


class Login(Struct):
    """A user of one registry: by password, by an identity token that buys short-lived ones, or by a token of
    the registry itself."""

    user: str = ""
    password: str = ""
    identity: str = ""
    token: str = ""

    def __bool__(self) -> bool:
        return bool(self.password or self.identity or self.token)

    def __repr__(self) -> str:
        return f"Login(user={self.user!r})" if self else "Login()"

    __str__ = __repr__

    @property
    def basic(self) -> str:
        """The Authorization header of Basic (RFC 7617); empty without a password."""
        if not self.password:
            return ""
        text = f"{self.user}:{self.password}".encode()
        return "Basic " + base64.b64encode(text).decode("ascii")


NOBODY = Login()


class _Wire(msgspec.Struct, omit_defaults=True):
    """Docker's AuthConfig. Unknown fields are Docker's own (`email`) and mean nothing to us."""

    username: str = ""
    password: str = ""
    auth: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


def encode_header(login: Login, host: str = "") -> str:
    """Empty for nobody."""
    if not login:
        return ""
    wire = _Wire(
        username=login.user,
        password=login.password,
        serveraddress=host,
        identitytoken=login.identity,
        registrytoken=login.token,
    )
    return base64.urlsafe_b64encode(msgspec.json.encode(wire)).decode("ascii")


def decode_header(text: str) -> Login:
    """Raises InvalidInput, without a word of what it holds."""
    if not text:
        return NOBODY
    try:
        if len(text) > MAX_HEADER:
            raise ValueError
        padded = text + "=" * (-len(text) % 4)
        raw = base64.b64decode(padded.replace("+", "-").replace("/", "_"), altchars=b"-_", validate=True)
        wire = msgspec.json.decode(raw, type=_Wire | None) or _Wire()
        user, password = wire.username, wire.password
        if wire.auth and not password:
            user, password = decode_basic(wire.auth)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        raise InvalidInput(
            f"the header {HEADER} holds no login",
            hint="It is Base64 of JSON with username and password",
        ) from None
    return Login(user=user, password=password, identity=wire.identitytoken, token=wire.registrytoken)


def decode_basic(text: str) -> tuple[str, str]:
    """User and password of an `auth` entry. Raises ValueError."""
    user, colon, password = base64.b64decode(text, validate=True).decode("utf-8").partition(":")
    if not colon:
        raise ValueError("no colon")
    return user, password.rstrip("\0")


def split_host(name: str) -> tuple[str, str]:
    """Registry and path of a name without tag, by Docker's rule: a first part with a dot, a port or a capital
    letter, or `localhost`, is a host."""
    first, slash, rest = name.partition("/")
    if not slash or not (("." in first) or (":" in first) or first == "localhost" or first != first.lower()):
        return DEFAULT_HOST, name
    return (DEFAULT_HOST if first == "index.docker.io" else first), rest


def registry_of(name: str) -> str:
    """The registry of an image's name, whether or not the rest of it is well-formed."""
    return split_host(name.partition("@")[0])[0]


def normal_host(address: str) -> str:
    """A registry as people and Docker's files write it: `https://index.docker.io/v1/` is docker.io."""
    host = address.strip().removeprefix("https://").removeprefix("http://").partition("/")[0]
    return DEFAULT_HOST if host in _ALIASES else host


def familiar(name: str) -> str:
    """Drop what is implied: `docker.io/`, and `library/` before a single word."""
    short = name.removeprefix(f"{DEFAULT_HOST}/")
    if short == name:
        return name
    word = short.removeprefix("library/")
    return short if "/" in word.partition(":")[0] else word
