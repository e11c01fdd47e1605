"""`--update-*` and `--rollback-*`."""

from __future__ import annotations

import pytest

from cli.parse.rollout import update_policy
from model.errors import InvalidInput
from model.spec import ContainerSpec, Publish, ServiceSpec, UpdatePolicy
from model.validate import validate_service


def test_policy_flags_change_what_they_name_of_their_kind_alone() -> None:
    before = UpdatePolicy(parallelism=3, order="start-first")
    flags = {
        "update_parallelism": 0,
        "update_delay": "10s",
        "update_failure_action": "rollback",
        "update_monitor": "1m",
        "update_max_failure_ratio": "0.25",
        "rollback_order": "start-first",
        "rollback_delay": None,
    }
    assert update_policy({}, "update", before) == before
    assert update_policy(flags, "update", before) == UpdatePolicy(
        parallelism=0,
        delay=10.0,
        order="start-first",
        failure_action="rollback",
        monitor=60.0,
        max_failure_ratio=0.25,
    )
    assert update_policy(flags, "rollback", UpdatePolicy()) == UpdatePolicy(order="start-first")


@pytest.mark.parametrize("flags", [{"update_max_failure_ratio": "half"}, {"update_monitor": "-1s"}])
def test_policy_flags_that_say_nothing_are_refused(flags: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        update_policy(flags, "update", UpdatePolicy())


def test_policies_that_can_not_be_have_all_their_problems_named() -> None:
    spec = ServiceSpec(
        name="web",
        container=ContainerSpec(image="x", ports=(Publish(target=80, published=80),)),
        update=UpdatePolicy(parallelism=-1, monitor=-1.0, max_failure_ratio=1.5),
        rollback=UpdatePolicy(delay=-1.0, failure_action="rollback", order="start-first"),
    )
    assert [problem.path for problem in validate_service(spec)] == [
        "spec.update.parallelism",
        "spec.update.monitor",
        "spec.update.max_failure_ratio",
        "spec.rollback.delay",
        "spec.rollback.failure_action",
        "spec.rollback.order",
    ]
