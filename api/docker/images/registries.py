"""What is asked of registries: `POST /auth`, `GET /images/search`, `GET /distribution/{name}/json`.

One host asks, any would do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import field

from api.docker.bodies import Body, Docker
from api.docker.errors import Refusal
from api.docker.fields import Field, Table, idle
from api.docker.images.names import full
from api.docker.parameters import Filters, check_filters
from api.docker.route import Call
from api.fanout import hosts_for
from api.hostcall import ask, ask_for, target
from api.imagefilters import filter_found
from model.api import FoundImage
from model.errors import InvalidInput, Unauthenticated
from model.ids import HostId
from model.registries import DEFAULT_HOST, Login, decode_basic, encode_header, familiar, normal_host
from model.remoteimages import RemoteImage
from model.spec import Struct

FOUND = 25
MOST_FOUND = 100


class Search(Struct):
    term: str = ""
    limit: int = 0
    filters: Filters = field(default_factory=dict)


class AuthBody(Docker, rename="lower"):
    username: str = ""
    password: str = ""
    auth: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    def __repr__(self) -> str:
        return f"AuthBody(username={self.username!r})"


AUTH_FIELDS: Table = (
    Field("username"),
    Field("password"),
    Field("auth"),
    Field("serveraddress"),
    Field("identitytoken"),
    Field("registrytoken"),
    idle("email", "registries have not asked for it for years"),
)
AUTH = Body(AuthBody, AUTH_FIELDS)


def _one_host(call: Call) -> HostId:
    return hosts_for(call.port, call.node())[0][0]


async def auth(call: Call) -> dict[str, str]:
    body = call.body_as(AuthBody)
    host = normal_host(body.serveraddress) if body.serveraddress else DEFAULT_HOST
    login = encode_header(login_of(body), host)
    if not login:
        raise Refusal(401, "no login is given: username and password, or identitytoken")
    path = target("/v1/registries/check", {"registry": host})
    try:
        async with ask(call.port, _one_host(call), "POST", path, login=login) as reply:
            await reply.body()
    except Unauthenticated as error:
        raise Refusal(
            401, f"login attempt to https://{host}/v2/ failed with status: 401 Unauthorized: {error.message}"
        ) from error
    return {"Status": "Login Succeeded", "IdentityToken": ""}


def login_of(body: AuthBody) -> Login:
    """Raises InvalidInput, without a word of what it holds."""
    user, password = body.username, body.password
    if body.auth and not password:
        try:
            user, password = decode_basic(body.auth)
        except ValueError:
            raise InvalidInput("auth is no Base64 of user:password") from None
    return Login(user=user, password=password, identity=body.identitytoken, token=body.registrytoken)


async def search(call: Call) -> list[dict[str, Any]]:
    query = call.query_as(Search)
    if not query.term:
        raise InvalidInput("the parameter term is empty")
    if query.limit and not 1 <= query.limit <= MOST_FOUND:
        raise InvalidInput(f"limit {query.limit} is outside the range of [1, {MOST_FOUND}]")
    filters = check_filters(query.filters, ("stars", "is-official", "is-automated"))
    texts = [f"{key}={value}" for key, values in filters.items() for value in values]
    filter_found((), texts)  # a fault in them is told before anybody is asked
    path = target("/v1/search", {"term": query.term, "limit": query.limit or FOUND})
    login = encode_header(call.login())
    found = await ask_for(call.port, _one_host(call), "GET", path, list[FoundImage], login=login)
    return [
        {
            "name": familiar(one.name),
            "description": one.description,
            "star_count": one.stars,
            "is_official": one.official,
            "is_automated": False,
        }
        for one in filter_found(found, texts)
    ]


async def distribution(call: Call) -> dict[str, Any]:
    path = target("/v1/distribution", {"ref": full(call.ref()), "config": True, "near": True})
    login = encode_header(call.login())
    found = await ask_for(call.port, _one_host(call), "GET", path, RemoteImage, login=login)
    return {
        "Descriptor": {"mediaType": found.media_type, "digest": found.digest, "size": found.size},
        "Platforms": [_platform(text) for text in found.platforms],
    }


def _platform(text: str) -> Mapping[str, str]:
    names = ("os", "architecture", "variant")
    return dict(zip(names, text.split("/"), strict=False))
