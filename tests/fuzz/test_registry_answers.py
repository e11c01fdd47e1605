"""Whatever a registry answers beside manifests and blobs, it is read or refused, in bounded time."""

from __future__ import annotations

import json
import os
import time

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from image.registry.auth import TokenReply, challenges
from image.registry.lookups import following, hits
from image.registry.refusals import first_words, seconds_of
from model.codec import UNREADABLE
from model.errors import Unavailable
from tests.fuzz.test_image_parsers import anything

FULL = os.environ.get("FLOTA_FULL") == "1"
examples = settings(
    max_examples=10_000 if FULL else 200, deadline=None, suppress_health_check=list(HealthCheck)
)
HERE = URL("https://a.example/v2/app/tags/list?n=1000")
BODIES = st.one_of(
    st.binary(max_size=100),
    st.recursive(anything, lambda inner: st.dictionaries(st.sampled_from(["errors", "results"]), inner)).map(
        lambda document: json.dumps(document).encode()
    ),
)
LINKS = st.one_of(
    st.text(max_size=200),
    st.builds(
        '<{}{}>{}; rel="next"'.format,
        st.sampled_from(["", "/", "//", "http://b.example", "https://u:p@b.example/", "file://"]),
        st.text(max_size=60),
        st.sampled_from(["", " ", ";"]),
    ),
)


@examples
@given(LINKS)
def test_any_link_leads_to_the_server_that_was_asked_or_nowhere(link: str) -> None:
    found = following(link, HERE)
    assert found is None or (found.scheme, found.host, found.port) == ("https", "a.example", 443)


@examples
@given(BODIES, st.integers(1, 100))
def test_answer_to_a_search_is_so_many_names_or_one_line(data: bytes, limit: int) -> None:
    try:
        assert len(hits(data, limit)) <= limit
    except Unavailable as error:
        assert "\n" not in str(error)


@examples
@given(BODIES)
def test_error_of_any_registry_is_short_and_fit_for_a_terminal(data: bytes) -> None:
    words = first_words(data)[1]
    assert len(words) < 300 and words.isprintable()


@examples
@given(
    st.one_of(
        st.text(max_size=120),
        st.from_regex(
            r"\A(Mon, )?[0-9]{1,12} (Jan|Feb) [0-9]{1,12} [0-9]{1,3}:[0-9]{1,3}:[0-9]{1,3} [A-Z+-][0-9]{0,9}"
        ),
    ),
    st.floats(0, 1e12),
)
def test_any_retry_after_is_a_time_that_is_not_past(header: str, now: float) -> None:
    assert seconds_of(header, now) >= 0.0


@examples
@given(
    st.dictionaries(st.sampled_from(["token", "access_token", "expires_in", "refresh_token"]), anything).map(
        lambda document: json.dumps(document).encode()
    )
)
def test_any_reply_of_a_token_service_is_a_bounded_life_or_unreadable(data: bytes) -> None:
    try:
        reply = msgspec.json.decode(data, type=TokenReply)
    except UNREADABLE:
        return
    assert 5.0 <= reply.life <= 3600.0


@examples
@given(
    st.lists(st.sampled_from(["Bearer", "a", "=", '"', "\\", ",", " ", "\t"]), min_size=1, max_size=4),
    st.text("Bearer =,\"\\ \t'", max_size=40),
    st.sampled_from([1, 2000, 8000]),
)
def test_challenges_of_the_longest_headers_are_read_quickly(parts: list[str], end: str, count: int) -> None:
    header = "Bearer x=y" + ("".join(parts) * count)[:8180] + end
    began = time.thread_time()
    challenges([header] * 4)
    assert time.thread_time() - began < 1.0
