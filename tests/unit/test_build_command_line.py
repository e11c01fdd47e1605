"""Words of `flota build`'s flags, and the request that they make."""

from __future__ import annotations

from typing import Any

import pytest

from cli.build import words
from cli.build.registries import registries
from cli.build.request import Where, usual_place, wish
from cli.build.words import Destination, SecretPlace
from cli.commands.build import build
from model.build import BuildRequest, CacheWay, Output
from model.errors import InvalidInput

ENVIRON = {"TOKEN": "t", "SSH_AUTH_SOCK": "/run/agent"}


def flags(**given: Any) -> dict[str, Any]:
    """All at their defaults but these."""
    return {**build.make_context("build", ["."]).params, **given}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("id=a,src=/x", SecretPlace(file="/x")),
        ("id=a,source=/x", SecretPlace(file="/x")),
        ("type=file,id=a,src=/x", SecretPlace(file="/x")),
        ("id=a,env=TOKEN", SecretPlace(env="TOKEN")),
        ("type=env,id=a,src=TOKEN", SecretPlace(env="TOKEN")),
        ("id=TOKEN", SecretPlace(env="TOKEN")),
        ("id=other", SecretPlace(file="other")),
        ('"id=a","src=/with,comma"', SecretPlace(file="/with,comma")),
    ],
)
def test_secret_comes_from_a_file_or_a_variable(text: str, place: SecretPlace) -> None:
    assert words.secret(text, ENVIRON)[1] == place


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (lambda t: words.secret(t, ENVIRON), "src=/x", "names no secret"),
        (lambda t: words.secret(t, ENVIRON), "id=../x,src=y,z=1", "there is no 'z'"),
        (lambda t: words.secret(t, ENVIRON), "id=a,env=NOSUCH", "there is no variable NOSUCH"),
        (lambda t: words.secret(t, ENVIRON), "id=a,env=TOKEN,src=x", "not from both"),
        (lambda t: words.secret(t, ENVIRON), '"id=a', "can't be read"),
        (lambda t: words.agent(t, {}), "default", "no SSH agent runs here"),
        (lambda t: words.cache(t, to=False), "type=gha", "no cache of type 'gha'"),
        (lambda t: words.cache(t, to=False), "type=registry", "needs ref=NAME"),
        (lambda t: words.cache(t, to=True), "type=local,src=x", "needs dest=FOLDER"),
        (words.output, "type=oci", "needs dest=PATH"),
        (words.output, "type=local,dest=-", "can't be written to standard output"),
        (words.output, "type=image,dest=x", "has no dest"),
        (words.output, "type=s3", "no output of type 's3'"),
        (words.output, "type=image,push=perhaps", "neither true nor false"),
        (words.provenance, "mode=all", "min or max"),
        (words.provenance, "version=v2", "v0.2 or v1"),
        (words.provenance, "reproducible=true", "not stated"),
        (words.provenance, "builder-id=me", "no URI"),
        (words.provenance, "materials=none", "there is no 'materials'"),
        (words.sbom, "generator=some/image", "no image is run"),
        (words.sbom, "perhaps", "no key=value"),
        (words.attestation, "type=other", "no attestation of type 'other'"),
    ],
)
def test_word_that_can_not_be_meant_is_refused(read: Any, text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("out", Destination(output=Output(kind="local"), dest="out")),
        ("-", Destination(output=Output(kind="tar"), dest="-")),
        ("type=docker", Destination(output=Output(kind="image"))),
        ("type=docker,dest=x", Destination(output=Output(kind="docker"), dest="x")),
        ("type=image,push=true", Destination(output=Output(kind="registry"))),
        ("type=registry,name=a", Destination(output=Output(kind="registry", options={"name": "a"}))),
        ("type=oci,destination=x", Destination(output=Output(kind="oci"), dest="x")),
    ],
)
def test_output_is_what_docker_means_by_it(text: str, found: Destination) -> None:
    assert words.output(text) == found


def test_cache_is_a_registrys_where_only_a_name_is_said() -> None:
    assert words.cache("host/a:b", to=False) == CacheWay(kind="registry", options={"ref": "host/a:b"})
    way = words.cache("type=registry,ref=a,mode=max", to=True)
    assert way == CacheWay(kind="registry", options={"ref": "a", "mode": "max"})


@pytest.mark.parametrize(
    ("text", "mode"), [("true", "min"), ("false", ""), ("mode=max", "max"), ("1", "min")]
)
def test_provenance_has_a_mode(text: str, mode: str) -> None:
    assert words.provenance(text).mode == mode


def test_provenance_has_a_version_and_a_builder() -> None:
    said = words.provenance("mode=max,version=v1,builder-id=https://ci/run/7,inline-only=true")
    assert said == words.Provenance(mode="max", version="v1", builder_id="https://ci/run/7")


@pytest.mark.parametrize(
    ("given", "mode", "sbom"),
    [
        ({}, "", False),
        ({"provenance": "true", "sbom": "true"}, "min", True),
        ({"attest": ("type=provenance,mode=max", "type=sbom")}, "max", True),
        ({"attest": ("type=provenance,mode=max",), "provenance": "false"}, "", False),
        ({"attest": ("type=sbom,disabled=true", "type=provenance,disabled=true")}, "", False),
    ],
)
def test_attestations_are_asked_for_in_short_or_in_long(given: dict[str, Any], mode: str, sbom: bool) -> None:
    request = wish(flags(**given), ".", {}).request
    assert (request.provenance, request.sbom) == (mode, sbom)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (".", "path"),
        ("/some/where", "path"),
        ("-", "stdin"),
        ("https://host/x.git", "git"),
        ("https://host/x.git#main:sub", "git"),
        ("http://host/x.git?ref=a", "git"),
        ("git@host:team/x", "git"),
        ("git://host/x", "git"),
        ("ssh://git@host/x", "git"),
        ("github.com/team/x", "git"),
        ("https://host/x.tar.gz", "http"),
        ("https://host/git", "http"),
        ("./x.git", "path"),
    ],
)
def test_context_is_known_by_its_form(text: str, place: str) -> None:
    assert wish(flags(), text, {}).contexts[""].place == place


def test_named_contexts_are_told_apart() -> None:
    said = ("a=dir", "B=docker-image://alpine", "c=https://host/x.git", "d=oci-layout:///x")
    found = wish(flags(build_context=said), ".", {}).contexts
    assert found["a"] == Where(place="path", ref="dir") and found["b"] == Where(place="image", ref="alpine")
    assert found["c"].place == "git" and found["d"] == Where(place="layout", ref="/x")


def test_epoch_of_the_environment_goes_along_unless_said_otherwise() -> None:
    environ = {"SOURCE_DATE_EPOCH": "7"}
    assert wish(flags(), ".", environ).request.args == {"SOURCE_DATE_EPOCH": "7"}
    said = wish(flags(build_arg=("SOURCE_DATE_EPOCH=9", "NOSUCH")), ".", environ)
    assert said.request.args == {"SOURCE_DATE_EPOCH": "9"}


def test_push_and_load_make_outputs() -> None:
    def kinds(**given: Any) -> list[str]:
        return [one.output.kind for one in wish(flags(tag=("a",), **given), ".", {}).outputs]

    assert kinds() == ["image"]
    assert kinds(push=True) == ["registry"]
    assert kinds(push=True, load=True) == ["registry", "image"]
    assert kinds(output=("out",), load=True) == ["local", "image"]
    with pytest.raises(InvalidInput, match="--push: an output is asked for that is not pushed"):
        kinds(push=True, output=("out",))


def test_builds_of_one_folder_are_known_by_its_name_wherever_it_is() -> None:
    def place(context: str, cwd: str, **given: Any) -> str:
        return usual_place(wish(flags(**given), context, {}), cwd)

    assert (
        place(".", "/home/ada/app") == place("/srv/app/", "/") == place("../app", "/x/y") == "app:Dockerfile"
    )
    assert place(".", "/home/ada/app", file="sub/other.Dockerfile") == "app:other.Dockerfile"
    assert place("https://host/x.git#v1", "/") == place("https://host/x.git#v2", "/")


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("FROM alpine", ("docker.io",)),
        ("FROM scratch\nCOPY --from=one.test/a /x /", ("one.test",)),
        ("ARG R=one.test\nFROM $R/a AS x\nFROM x", ("one.test",)),
        ("FROM one.test/a\nRUN --mount=from=two.test/b,target=/x true", ("one.test", "two.test")),
        ("FROM $NOSUCH/a", ()),
        ("FROM [", ()),
        ("", ()),
    ],
)
def test_registries_are_those_that_the_dockerfile_names(text: str, hosts: tuple[str, ...]) -> None:
    request = BuildRequest(dockerfile=text.replace("\\\n", "\n").encode())
    assert registries(wish(flags(), ".", {}), request) == hosts
