"""Whatever a client or a registry writes about who and where, it is read or refused in one clear line."""

from __future__ import annotations

import base64
import os

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from yarl import URL

from image.registry.endpoints import settings as registry_settings
from image.registry.transport import redirected
from model.blobs import read_ticket, to_sign
from model.errors import FlotaError, Forbidden, InvalidInput
from model.registries import HEADER, Login, decode_header, encode_header, normal_host, registry_of

FULL = os.environ.get("FLOTA_FULL") == "1"
examples = settings(
    max_examples=10_000 if FULL else 200, deadline=None, suppress_health_check=list(HealthCheck)
)
WORDS = st.text(st.characters(codec="utf-8"), max_size=40)


def packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


DEEP = b'{"x":' + b"[" * 2900 + b"]" * 2900 + b"}"


@examples
@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda b: b.decode("latin-1"))))
@example(packed(DEEP))
def test_header_of_anything_is_a_login_or_one_line(text: str) -> None:
    try:
        assert isinstance(decode_header(text), Login)
    except InvalidInput as error:
        assert "\n" not in str(error) and HEADER in str(error)


@examples
@given(user=WORDS, password=WORDS, identity=WORDS, token=WORDS)
def test_any_login_survives_its_header(user: str, password: str, identity: str, token: str) -> None:
    login = Login(user=user, password=password, identity=identity, token=token)
    assert decode_header(encode_header(login)) == (login if login else Login())


@examples
@given(st.text(max_size=300))
@example("https://[::1]git@")
def test_any_location_leads_to_http_or_nowhere(target: str) -> None:
    try:
        found = redirected(URL("https://a.example/v2/app/blobs/uploads/"), target)
    except FlotaError as error:
        assert "\n" not in str(error)
    else:
        assert found.scheme == "https" and found.host


@examples
@given(
    st.text(max_size=200)
    | st.builds("{}.{}".format, st.binary(max_size=100).map(packed), st.binary(max_size=40).map(packed))
)
@example(packed(DEEP) + ".")
@example(packed(b'{"host":"a","certificate":"b","until":1e400,"images":["x"]}') + ".AA==")
def test_ticket_of_anything_is_one_or_forbidden(text: str) -> None:
    try:
        signed = read_ticket(text)[1]
    except Forbidden as error:
        assert "\n" not in str(error)
    else:
        assert signed.startswith(to_sign(b""))


@examples
@given(st.text(max_size=120))
def test_any_mirror_is_a_base_or_one_line(word: str) -> None:
    try:
        told = registry_settings(mirrors=(word,))
    except InvalidInput:
        return
    for bases in told.mirrors.values():
        assert all(base.startswith(("http://", "https://")) for base in bases)


@examples
@given(st.text(max_size=120))
def test_any_name_has_a_registry(name: str) -> None:
    assert isinstance(registry_of(name), str) and isinstance(normal_host(name), str)
