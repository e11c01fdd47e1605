"""`--change` instructions of import, one at a time and together."""

from __future__ import annotations

from typing import Any

import pytest

from image.changes import apply
from model.errors import InvalidInput
from model.image import ImageConfig
from model.spec import HealthCheck, ShellProbe


@pytest.mark.parametrize(
    ("change", "edited"),
    [
        ('CMD ["a", "b c"]', {"cmd": ("a", "b c")}),
        ("CMD echo hi", {"cmd": ("/bin/sh", "-c", "echo hi")}),
        ("ENTRYPOINT []", {"entrypoint": ()}),
        ('SHELL ["ash", "-xc"]', {"shell": ("ash", "-xc")}),
        ("ONBUILD RUN a", {"onbuild": ("RUN a",)}),
        ("HEALTHCHECK NONE", {"health": HealthCheck(disabled=True)}),
        (
            "HEALTHCHECK --interval=5s --retries=2 CMD a b",
            {"health": HealthCheck(probe=ShellProbe(command="a b"), interval=5, retries=2)},
        ),
        ("cmd [not json", {"cmd": ("/bin/sh", "-c", "[not json")}),
        ('ENTRYPOINT ["/x"]', {"entrypoint": ("/x",)}),
        ("ENV A=1 B='two words'", {"env": ("OLD=0", "A=1", "B=two words")}),
        ("ENV A one two", {"env": ("OLD=0", "A=one two")}),
        ("ENV OLD=1", {"env": ("OLD=1",)}),
        ("LABEL a=b c=d", {"labels": {"a": "b", "c": "d"}}),
        ("EXPOSE 80 53/udp 80/tcp", {"exposed_ports": ("53/udp", "80/tcp")}),
        ('VOLUME ["/a b", "/c"]', {"volumes": ("/a b", "/c")}),
        ("VOLUME /a /b", {"volumes": ("/a", "/b")}),
        ("WORKDIR /srv/../data", {"workdir": "/data"}),
        ("WORKDIR sub", {"workdir": "/sub"}),
        ("USER 1:2", {"user": "1:2"}),
        ("STOPSIGNAL SIGINT", {"stop_signal": "SIGINT"}),
        ("STOPSIGNAL 9", {"stop_signal": "9"}),
        ("STOPSIGNAL SIGRTMIN+3", {"stop_signal": "SIGRTMIN+3"}),
    ],
)
def test_change_edits_its_part_of_the_configuration(change: str, edited: dict[str, Any]) -> None:
    config = apply(ImageConfig(env=("OLD=0",)), [change])
    assert {name: getattr(config, name) for name in edited} == edited


def test_changes_apply_in_order() -> None:
    config = apply(
        ImageConfig(), ["WORKDIR /a", "WORKDIR b", "CMD x", 'SHELL ["ash"]', "CMD y", "ONBUILD USER a"]
    )
    config = apply(config, ["ONBUILD USER b"])
    assert (config.workdir, config.cmd, config.onbuild) == ("/a/b", ("ash", "y"), ("USER a", "USER b"))


@pytest.mark.parametrize(
    "change",
    [
        "", "RUN x", "FROM y", "CMD", "CMD  ", "ENV A", "ENV =x", "ENV A='x", "LABEL =", "EXPOSE http",
        "EXPOSE 0", "EXPOSE 70000", "EXPOSE 80/icmp", "VOLUME /", 'VOLUME [""]', "STOPSIGNAL SIGNOTHING",
        "STOPSIGNAL 0", "STOPSIGNAL RTMIN+99", "STOPSIGNAL INT+1", "STOPSIGNAL 999", "USER a b",
        "CMD [1]", "SHELL sh", "ONBUILD FROM x", "ONBUILD", "HEALTHCHECK x", "ENV A=\0",
        'SHELL ["a"]\nUSER b',
    ],
)  # fmt: skip
def test_bad_change_is_refused_in_one_line_that_names_it(change: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        apply(ImageConfig(), [change])
    assert "\n" not in str(caught.value) and "--change" in str(caught.value)
