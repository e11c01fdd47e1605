"""`POST /containers/{id}/update`: what Docker's words change, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.docker.bodies import decode
from api.docker.containers.update import UPDATE, UpdateBody, limits_of
from cli.parse.container import limits_of as limits_of_flags
from model.errors import InvalidInput
from model.limits import UpdateLimits
from model.spec import RestartPolicy


def asked(words: dict[str, Any]) -> UpdateLimits:
    body = decode(json.dumps(words).encode(), UPDATE)
    assert isinstance(body, UpdateBody)
    return limits_of(body)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ({}, UpdateLimits()),
        ({"Memory": 0, "CpusetCpus": "", "Devices": None, "RestartPolicy": {"Name": ""}}, UpdateLimits()),
        ({"Memory": 1 << 26, "MemorySwap": -1}, UpdateLimits(memory=1 << 26, memory_swap=-1)),
        ({"NanoCPUs": 5 * 10**8}, UpdateLimits(nano_cpus=5 * 10**8)),
        ({"CpuQuota": 50_000}, UpdateLimits(nano_cpus=5 * 10**8)),
        ({"CpuQuota": -1}, UpdateLimits(nano_cpus=0)),
        ({"PidsLimit": 0}, UpdateLimits(pids=0)),
        ({"PidsLimit": -1}, UpdateLimits(pids=0)),
        ({"PidsLimit": None}, UpdateLimits()),
        ({"CpuShares": 9, "BlkioWeight": 20, "CpusetMems": "0"},
         UpdateLimits(cpu_shares=9, blkio_weight=20, cpuset_mems="0")),
        ({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}},
         UpdateLimits(restart=RestartPolicy(condition="on-failure", max_attempts=2))),
    ],
    ids=str,
)  # fmt: skip
def test_words_of_docker_change_what_they_name(words: dict[str, Any], wanted: UpdateLimits) -> None:
    assert asked(words) == wanted


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"Devices": [{"PathOnHost": "/dev/fuse"}]}, "Devices: is not supported: is of a container's start"),
        ({"MemoryReservation": 5}, "MemoryReservation"),
        ({"BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1}]}, "BlkioDeviceReadBps"),
        ({"RestartPolicy": {"Name": "sometimes"}}, "unknown policy"),
        ({"NanoCpus": 5, "CpuPeriod": 1000}, "Conflicting options"),
    ],
    ids=str,
)
def test_words_that_change_nothing_that_lives_are_refused(words: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        asked(words)


def test_flags_that_were_given_are_changed_and_no_others() -> None:
    none = {"memory": None, "cpus": None, "pids_limit": None, "restart": None}
    assert limits_of_flags(none) == UpdateLimits()
    given = {**none, "memory": "64m", "cpus": "0", "pids_limit": -1, "restart": "always"}
    always = RestartPolicy(condition="always")
    assert limits_of_flags(given) == UpdateLimits(memory=64 << 20, nano_cpus=0, pids=0, restart=always)
